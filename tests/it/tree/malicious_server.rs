//! A malicious server: whatever it calls an entry, the client writes only below its folder.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use mqfs::wire::{Entry, Failure, Kind, Meta, Packed, Reply, Request, Trailer};
use nix::errno::Errno;
use sysv_ipc::{Key, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, Select};

use crate::support::{Finished, client, in_own_namespace, public_folder, run, unique_key};

fn meta(kind: Kind) -> Meta {
    Meta { kind, mode: 0o777, size: 0, mtime: (0, 0), device: 1, inode: 2, offset: 0, length: None }
}

/// What a hostile server packs.
#[derive(Default, Clone)]
struct Lies(Vec<u8>);

impl Lies {
    fn meta(mut self, kind: Kind, name: impl AsRef<[u8]>, target: &str) -> Self {
        let (name, target) = (name.as_ref(), target.as_bytes());
        let entry = Entry { meta: meta(kind), uid: 0, gid: 0, links: 1, special: 0, name, target };
        entry.append(&mut self.0);
        self
    }

    /// A file that is announced with this size.
    fn large(mut self, name: impl AsRef<[u8]>, size: u64) -> Self {
        let (meta, name) = (Meta { size, ..meta(Kind::Regular) }, name.as_ref());
        let entry = Entry { meta, uid: 0, gid: 0, links: 1, special: 0, name, target: b"" };
        entry.append(&mut self.0);
        self
    }

    fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.meta(Kind::Directory, name, "")
    }

    fn file(self, name: impl AsRef<[u8]>) -> Self {
        let mut lies = self.meta(Kind::Regular, name, "");
        Packed::append(&mut lies.0, Reply::DATA, b"planted");
        let checksum = crc32fast::hash(b"planted");
        let trailer = Trailer { bytes: 7, checksum, changed: false };
        Packed::append(&mut lies.0, Reply::END, &trailer.encode());
        lies
    }

    fn link(self, name: impl AsRef<[u8]>, target: &str) -> Self {
        self.meta(Kind::Link, name, target).end()
    }

    fn end(mut self) -> Self {
        let trailer = Trailer { bytes: 0, checksum: 0, changed: false };
        Packed::append(&mut self.0, Reply::END, &trailer.encode());
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn failure(mut self, errno: Errno) -> Self {
        let failure = Failure { text: b"not now".to_vec(), errno: Some(errno) };
        Packed::append(&mut self.0, Reply::FAILURE, &failure.encode());
        self
    }

    /// Answers one request on the queue with all these messages.
    fn tell(&self, requests: &Queue) {
        let (bytes, checksum) = (self.0.len() as u64, crc32fast::hash(&self.0));
        let end = Trailer { bytes, checksum, changed: false }.encode();
        self.tell_of(Kind::Directory, requests, (Reply::END, &end));
    }

    fn tell_of(&self, top: Kind, requests: &Queue, (end, last): (MessageType, &[u8])) {
        let mut message = MessageBuffer::with_capacity(65_536);
        requests.receive(&mut message, Select::Any).unwrap();
        let request = Request::decode(message.text()).unwrap();
        let reply = Queue::from_id(request.reply_queue);
        let send = |mtype, text: &[u8]| {
            let _ = reply.send(&MessageBuffer::with_text(mtype, text));
        };
        send(Reply::META, &meta(top).encode());
        for part in self.0.chunks(4000) {
            send(Reply::DATA, part);
        }
        send(end, last);
    }
}

/// Runs a client that copies, lists or archives the tree.
fn ask(key: Key, lies: &Lies, arguments: &[&str], here: &Path) -> Finished {
    let requests = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| lies.tell(&requests));
        run(client(key).args(arguments).arg("/dir").current_dir(here))
    })
}

/// A folder to write to, and files beside it that must not change.
fn copy(lies: &Lies) -> (Finished, Vec<String>) {
    let outer = public_folder();
    let here = outer.path().join("here");
    fs::create_dir(&here).unwrap();
    fs::write(outer.path().join("victim"), "mine").unwrap();
    symlink("../victim", here.join("planted-before")).unwrap();
    let outcome = ask(unique_key(), lies, &["-r", "-C", "."], &here);
    assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2, "nothing is beside it");
    let dir = fs::read_dir(here.join("dir")).into_iter().flatten();
    let mut names: Vec<_> =
        dir.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    (outcome, names)
}

#[test]
fn a_name_that_leads_out_of_the_tree_ends_the_transfer() {
    in_own_namespace(|| {
        let long = "n".repeat(256);
        for name in [
            "../victim",
            "..",
            ".",
            "",
            "/",
            "/victim",
            "a/b",
            "a/../../victim",
            "\0",
            "a\0b",
            &long,
        ] {
            for lies in [
                Lies::default().dir("").file(name).end(),
                Lies::default().dir("").dir(name).file("victim").end().end(),
                Lies::default().dir("").link(name, "x").end(),
                Lies::default().dir("").dir("sub").file(name).end().end(),
            ] {
                let (outcome, names) = copy(&lies);
                assert_eq!(outcome.code(), Some(1), "{name:?}");
                let expected = "mqfs-client: /dir: incomplete: a name that no entry can have\n";
                assert_eq!(outcome.stderr, expected, "{name:?}");
                assert!(names.is_empty() || names == ["sub"], "{name:?}: {names:?}");
            }
        }
        let (outcome, _) = copy(&Lies::default().dir("named"));
        assert_eq!(outcome.code(), Some(1), "the top has no name");
    });
}

#[test]
fn no_file_is_written_through_a_link() {
    in_own_namespace(|| {
        // A link, then an entry of the same name that would go through it: out of order.
        for then in [Lies::default().file("a"), Lies::default().dir("a").file("victim").end()] {
            let lies = Lies::default().dir("").link("a", "../..").raw(&then.0).end();
            let (outcome, names) = copy(&lies);
            let expected = "mqfs-client: /dir: incomplete: entries that are not in their order\n";
            assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected));
            assert_eq!(names, ["a"]);
        }
        // A link that an earlier request made is replaced or refused, and never followed.
        let outer = public_folder();
        let here = outer.path().join("here");
        fs::create_dir_all(here.join("dir")).unwrap();
        fs::create_dir(outer.path().join("folder")).unwrap();
        fs::write(outer.path().join("victim"), "mine").unwrap();
        symlink("../../folder", here.join("dir/a")).unwrap();
        symlink("../../victim", here.join("dir/b")).unwrap();
        let lies = Lies::default().dir("").dir("a").file("x").end().file("b").end();
        let outcome = ask(unique_key(), &lies, &["-r", "-C", "."], &here);
        let expected = "mqfs-client: /dir/a: Not a directory\n\
                        mqfs-client: /dir: incomplete: 1 entry is missing\n";
        assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected));
        assert_eq!(fs::read_dir(outer.path().join("folder")).unwrap().count(), 0);
        assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"mine");
        assert_eq!(fs::read(here.join("dir/b")).unwrap(), b"planted");
        assert!(!here.join("dir/b").is_symlink());
        // The same for the top folder, and for a single file.
        fs::rename(here.join("dir"), here.join("away")).unwrap();
        symlink("../folder", here.join("dir")).unwrap();
        let outcome = ask(unique_key(), &lies, &["-r", "-C", "."], &here);
        assert_eq!(outcome.code(), Some(1));
        assert_eq!(fs::read_dir(outer.path().join("folder")).unwrap().count(), 0);
    });
}

#[test]
fn malformed_tree_messages_end_the_transfer() {
    in_own_namespace(|| {
        let data = |bytes: &[u8]| {
            let mut packed = Vec::new();
            Packed::append(&mut packed, Reply::DATA, bytes);
            packed
        };
        let wrong = Trailer { bytes: 7, checksum: 1, changed: false }.encode();
        let mut wrong_end = Vec::new();
        Packed::append(&mut wrong_end, Reply::END, &wrong);
        let dir = || Lies::default().dir("");
        for (what, lies) in [
            ("nothing", Lies::default()),
            ("no end", dir()),
            ("an end too many", dir().end().end()),
            ("something behind the end", dir().end().file("a")),
            ("only an end", Lies::default().end()),
            ("bytes of a directory", dir().raw(&data(b"bytes"))),
            ("bytes of a link", dir().meta(Kind::Link, "a", "b").raw(&data(b"bytes"))),
            ("an entry in a file", dir().meta(Kind::Regular, "a", "").file("b")),
            ("half a message", dir().raw(&[200, 0, 0])),
            ("a message that is cut off", dir().raw(&[200, 0, 0, 0, 4, 0, 0, 0])),
            ("a huge message", dir().raw(&[255, 255, 255, 255, 4, 0, 0, 0])),
            ("a message of no type", dir().raw(&[0, 0, 0, 0, 9, 0, 0, 0])),
            ("the same name twice", dir().file("a").file("a").end()),
            (
                "a wrong checksum",
                dir().meta(Kind::Regular, "a", "").raw(&data(b"planted")).raw(&wrong_end),
            ),
            ("a tree twice", dir().dir("").end().end()),
        ] {
            let (outcome, names) = copy(&lies);
            assert_eq!(outcome.code(), Some(1), "{what}");
            assert_eq!(outcome.stderr.lines().count(), 1, "{what}: {}", outcome.stderr);
            assert!(names.is_empty() || names == ["a"], "{what}: {names:?}");
            if what == "a wrong checksum" {
                assert_eq!(names, [""; 0], "what is not verified is not there");
            }
        }
    });
}

#[test]
fn a_malicious_listing_is_escaped_or_ends_the_transfer() {
    in_own_namespace(|| {
        let here = public_folder();
        let list = |lies: &Lies, how: &[&str]| ask(unique_key(), lies, how, here.path());
        let bad = Lies::default().meta(Kind::Regular, "a\x1b[31m\r\n", "").meta(
            Kind::Link,
            "b",
            "\x1b]0;title\x07",
        );
        let listed = String::from_utf8(list(&bad, &["-l"]).success()).unwrap();
        assert!(listed.contains(r"a\u{1b}[31m\r\n"), "{listed}");
        assert!(listed.contains(r"b -> \u{1b}]0;title\u{7}"), "{listed}");
        assert_eq!(listed.lines().count(), 2);
        for how in [&["-l"][..], &["-l", "--json"], &["--tar"]] {
            for name in ["..", "a/b", "/etc/passwd", ""] {
                let lies = Lies::default().meta(Kind::Directory, name, "").dir(name);
                assert_eq!(list(&lies, how).code(), Some(1), "{how:?} {name:?}");
            }
        }
    });
}

#[test]
fn a_reported_eintr_is_not_retried_for_ever() {
    in_own_namespace(|| {
        let mut lies = Lies::default().dir("").meta(Kind::Regular, "a", "");
        Packed::append(&mut lies.0, Reply::DATA, b"part");
        let lies = lies.failure(Errno::EINTR).file("b").end();
        for arguments in [&["-r", "--tar"][..], &["-r", "-C", "."]] {
            let here = public_folder();
            let outcome = ask(unique_key(), &lies, arguments, here.path());
            let expected = "mqfs-client: /dir/a: not now\n\
                            mqfs-client: /dir: incomplete: 1 entry is missing\n";
            assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected), "{arguments:?}");
        }
        let key = unique_key();
        let requests = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
        let failure = Failure { text: b"not now".to_vec(), errno: Some(Errno::EINTR) };
        let error = thread::scope(|scope| {
            let tell = || {
                let end = (Reply::FAILURE, &failure.encode()[..]);
                Lies::default().raw(b"part").tell_of(Kind::Regular, &requests, end);
            };
            scope.spawn(tell);
            let mut transfer = mqfs::Client::new(key).open("/file").unwrap();
            io::copy(&mut transfer, &mut io::sink()).unwrap_err()
        });
        assert_eq!(error.to_string(), "not now");
    });
}

#[test]
fn a_tree_that_lacks_only_its_end_is_not_fetched_again() {
    in_own_namespace(|| {
        let tree = Lies::default().dir("").file("a").end();
        let file = Lies::default().file("");
        for (top, lies) in [(Kind::Directory, tree), (Kind::Regular, file)] {
            let (key, here) = (unique_key(), public_folder());
            let requests = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
            let outcome = thread::scope(|scope| {
                let died = Failure { text: Vec::new(), errno: Some(Errno::EOWNERDEAD) }.encode();
                let lies = &lies;
                let requests = &requests;
                scope.spawn(move || lies.tell_of(top, requests, (Reply::FAILURE, &died)));
                let mut command = client(key);
                command.args(["--timeout", "2s", "-r", "-C", "."]);
                run(command.arg("/top").current_dir(here.path()))
            });
            assert_eq!((outcome.code(), &*outcome.stderr), (Some(0), ""), "{top}");
        }
    });
}

#[test]
fn an_interrupted_listing_shows_the_entries_so_far() {
    in_own_namespace(|| {
        let lies = Lies::default().meta(Kind::Regular, "a", "").meta(Kind::Regular, "b", "");
        let lies = lies.meta(Kind::Regular, "b", "");
        let here = public_folder();
        let outcome = ask(unique_key(), &lies, &["-l"], here.path());
        let expected = "mqfs-client: /dir: incomplete: entries that are not in their order\n";
        assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected));
        let shown = String::from_utf8(outcome.stdout).unwrap();
        let names: Vec<_> = shown.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(names, ["a", "b"]);
    });
}

#[test]
fn a_false_size_does_not_make_a_file_larger() {
    in_own_namespace(|| {
        let here = public_folder();
        let arguments = ["-r", "--tar"];
        let denied = Lies::default().dir("").large("a", u64::MAX).failure(Errno::EACCES);
        let outcome = ask(unique_key(), &denied.file("b").end(), &arguments, here.path());
        let expected = "mqfs-client: /dir/a: not now\n\
                        mqfs-client: /dir: incomplete: 1 entry is missing\n";
        assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected));
        assert!(outcome.stdout.len() < 20_000, "{}", outcome.stdout.len());

        let mut broken = Lies::default().dir("").large("a", 1 << 50);
        Packed::append(&mut broken.0, Reply::DATA, b"part");
        let broken = broken.failure(Errno::EIO).file("b").end();
        let outcome = ask(unique_key(), &broken, &arguments, here.path());
        let expected = "mqfs-client: standard output: dir/a: not now: 1125899906842620 bytes are \
                        missing, so the archive ends here\n";
        assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected));
        assert!(outcome.stdout.len() < 100_000, "{}", outcome.stdout.len());
    });
}

#[test]
fn links_are_archived_as_links() {
    in_own_namespace(|| {
        let long = format!("{}//./end/", "a".repeat(99));
        let long_name = "n".repeat(200);
        let targets = ["a//b/./c/", "//abs//x/", "http://x/", &long, &long];
        let names = ["1", "2", "3", "4", &long_name];
        let links = names.iter().zip(targets);
        let lies =
            links.fold(Lies::default().dir(""), |lies, (name, target)| lies.link(name, target));
        let here = public_folder();
        let archive = ask(unique_key(), &lies.end(), &["-r", "--tar"], here.path()).success();
        fs::write(here.path().join("archive"), archive).unwrap();
        let mut tar = Command::new("tar");
        assert!(tar.args(["-xf", "archive"]).current_dir(here.path()).status().unwrap().success());
        for (name, target) in names.iter().zip(targets) {
            let found = fs::read_link(here.path().join("dir").join(name)).unwrap();
            assert_eq!(found.as_os_str(), target);
        }
    });
}

#[test]
fn repeated_bytes_do_not_earn_more_retries() {
    in_own_namespace(|| {
        let died = Failure { text: Vec::new(), errno: Some(Errno::EOWNERDEAD) }.encode();
        for option in ["--stat", "-l"] {
            let key = unique_key();
            let requests = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
            let asked = AtomicU32::new(0);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while asked.load(Ordering::Relaxed) < 3 {
                        Lies::default().raw(b"x").tell_of(
                            Kind::Directory,
                            &requests,
                            (Reply::FAILURE, &died),
                        );
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                });
                let outcome = run(client(key).args(["--retries", "2", option, "/dir"]));
                let expected =
                    "mqfs-client: /dir: incomplete: the server's child died on the way\n";
                assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected), "{option}");
            });
            assert_eq!(requests.status().unwrap().messages, 0, "it asked thrice");
        }
    });
}
