//! A malicious server: whatever it answers, and whatever it calls an entry, the client ends with an
//! error, and writes only below its folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

use mqfs::wire::{
    Cookie, Entry, Extent, Failure, FrameType, Kind, MAX_REQUEST, Operation, Question, Request,
    Stat, Trailer,
};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sysv_ipc::{MessageBuffer, Mode, OwnedQueue, Queue, Select};

use crate::support::fake_server::{Answer, ask, encoded, entry};
use crate::support::*;

/// A server of these directories, by the path of the question; the first is the top. Everything
/// else is a file.
fn tree<'a>(
    directories: &'a [(&'a str, &'a [Entry<'a>])],
) -> impl Fn(&Question<'_>) -> Answer + Sync + 'a {
    move |question| {
        let path = question.path.to_str().unwrap();
        let found = directories.iter().find(|(name, _)| *name == path);
        match question.operation {
            Operation::List => Answer::default().dir(found.unwrap_or(&directories[0]).1),
            Operation::Fetch(_) => Answer::default().file(),
            _ => Answer::default().meta(&entry(Kind::Directory, "", "")).end(b""),
        }
    }
}

const COPY: [&str; 4] = ["-r", "/dir", "-C", "."];

/// Copies a tree into a folder with a link in it, and a file beside it that must not change.
/// Returns the names of what was written.
fn copy(answer: impl Fn(&Question<'_>) -> Answer + Sync) -> (Finished, Vec<String>) {
    let outer = public_folder();
    let here = outer.path().join("here");
    fs::create_dir(&here).unwrap();
    fs::write(outer.path().join("victim"), "mine").unwrap();
    symlink("../victim", here.join("planted-before")).unwrap();
    let outcome = ask(answer, &COPY, &here);
    assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2, "nothing is beside it");
    (outcome, names_in(&here.join("dir")))
}

#[in_own_namespace]
fn a_wrong_answer_is_an_error_of_its_file_alone() {
    let (new, here) = (Answer::default, public_folder());
    let file = || new().meta(&entry(Kind::Regular, "", ""));
    let offset = Entry { offset: 1, ..entry(Kind::Regular, "", "") };
    let trailer = |bytes, checksum| Trailer { bytes, checksum, changed: false }.encode();
    let data = Extent::encode_all(&[Extent { hole: 0, data: 4 }]);
    let long = [(16_385_u32).to_ne_bytes(), [3, 0, 0, 0]].concat();
    for (answer, why) in [
        (new().data(b"data"), "incomplete: bytes that belong to no file"),
        (new().end(b""), "incomplete: bytes that belong to no file"),
        (file().meta(&entry(Kind::Regular, "", "")), "incomplete: a second beginning"),
        (file().data(b"part").frame(FrameType::End, b""), "no count and checksum at the end"),
        (file().data(b"data").end(b"dat"), "not as many bytes arrived as were sent"),
        (
            file().data(b"data").frame(FrameType::End, &trailer(4, 1)),
            "the checksum is not that of the bytes sent",
        ),
        (new().meta(&offset), "it begins at the wrong place"),
        (new().dir(&[]), "not a regular file"),
        (new().frame(FrameType::Meta, b"short"), "protocol error: too short"),
        (new().garbage(&[0, 0, 0, 0, 9, 0, 0, 0]), "protocol error: unknown message type 9"),
        (new().garbage(&long), "protocol error: too long"),
        (file().garbage(&[200, 0, 0]).last(), "timed out: nothing came for 1s"),
        (new().last(), "timed out: nothing came for 1s"),
        (Answer { question: Some(2), ..new().file() }, "an answer to another question"),
        (file().farewell(1), "a farewell with a wrong number of answers"),
        (new().farewell(7), "a farewell with a wrong number of answers"),
        (
            Answer { message: Some((FrameType::End, vec![])), ..new().last() },
            "a message that is no part of the stream",
        ),
        (new().frame(FrameType::Extents, &[0; 16]), "incomplete: bytes that belong to no file"),
        (file().frame(FrameType::Extents, &[0; 16]), "protocol error: a field out of range"),
        (file().frame(FrameType::Extents, &[1; 15]), "protocol error: too short"),
        (file().frame(FrameType::Extents, &[255; 16]), "protocol error: a field out of range"),
        (
            file().frame(FrameType::Extents, &data).frame(FrameType::Extents, &data),
            "incomplete: bytes that belong to no file",
        ),
        (new().failure(Errno::EINTR), "not now"),
        (file().data(b"part").failure(Errno::EIO), "not now"),
    ] {
        let answers = |question: &Question<'_>| match question.path.to_str() {
            Some("/bad") => answer.clone(),
            _ => new().file(),
        };
        let paths = ["/a", "/bad", "/c"];
        let outcome = ask(answers, &paths, here.path());
        let (expected, told) = ("mqfs-client: /bad: ", outcome.stderr.trim_end());
        assert!(told.starts_with(expected) && told.ends_with(why), "{told} is not {why}");
        assert_eq!((outcome.code(), told.lines().count()), (Some(1), 1), "{why}");
        let written = String::from_utf8(outcome.stdout).unwrap();
        assert_eq!(written.replace("part", "").replace("data", ""), "plantedplanted", "{why}");
        // The same in a tree: what is not verified is not there.
        let entries = ["a", "bad", "c"].map(|name| entry(Kind::Regular, name, ""));
        let (listed, answer) = ([("/dir", &entries[..])], &answer);
        let honest = tree(&listed);
        let (outcome, names) = copy(|question| match question.path.to_str() {
            Some("bad") => answer.clone(),
            _ => honest(question),
        });
        assert_eq!(outcome.code(), Some(1), "{why}");
        assert!(names == ["a"] || names == ["a", "c"], "{why}: {names:?}");
    }
}

#[in_own_namespace]
fn more_fewer_and_lost_answers_neither_hang_nor_mix() {
    let here = public_folder();
    let fetch = |answer: Answer, options: &[&str]| {
        let asked = AtomicU32::new(0);
        let answers = |_: &Question<'_>| {
            asked.fetch_add(1, Ordering::Relaxed);
            answer.clone()
        };
        let outcome = ask(answers, &[options, &["/a", "/b"]].concat(), here.path());
        (outcome, asked.load(Ordering::Relaxed))
    };
    let file = || Answer::default().file();
    // A farewell after each answer is correct. One before any answer is not.
    let (outcome, asked) = fetch(file().farewell(1), &[]);
    assert_eq!((outcome.success(), asked), (b"plantedplanted".to_vec(), 2));
    let (outcome, _) = fetch(Answer::default().farewell(0), &[]);
    assert_eq!((outcome.code(), outcome.stderr.lines().count()), (Some(1), 2));
    // Two answers to each question: what nobody asked for is not taken for the next file.
    let (outcome, _) = fetch(file().file(), &[]);
    assert_eq!((outcome.code(), &*outcome.stdout), (Some(1), &b"planted"[..]));
    // A server that always dies is asked again, but only so often. The first bytes of a file
    // are progress, which may come with any of its three answers and earns two more.
    let part = Answer::default().meta(&entry(Kind::Regular, "", "")).data(b"part");
    for (lost, most) in [(Answer::default(), 6), (part, 10)] {
        let lost = lost.then(|queue| _ = queue.remove());
        let (outcome, asked) = fetch(lost, &["--retries", "2"]);
        assert_eq!((outcome.code(), outcome.stderr.lines().count()), (Some(1), 2));
        assert!((4..=most).contains(&asked), "{asked}");
    }
}

#[in_own_namespace]
fn repeated_bytes_do_not_earn_more_retries() {
    let (asked, here) = (AtomicU32::new(0), public_folder());
    let died = Failure { text: Vec::new(), errno: Some(Errno::EOWNERDEAD), cookie: None }.encode();
    let dies = |question: &Question<'_>| {
        if question.operation != Operation::List {
            return tree(&[])(question);
        }
        asked.fetch_add(1, Ordering::Relaxed);
        let directory = Answer::default().meta(&entry(Kind::Directory, "", ""));
        Answer { message: Some((FrameType::Failure, died.clone())), ..directory.data(b"x") }
    };
    for arguments in [&["-l", "/dir"][..], &["-l", "/dir", "/dir"]] {
        asked.store(0, Ordering::Relaxed);
        let outcome = ask(dies, &[&["--retries", "2"], arguments].concat(), here.path());
        let expected = "mqfs-client: /dir: incomplete: the server's child died on the way\n";
        let times = arguments.iter().filter(|&&path| path == "/dir").count();
        assert_eq!((outcome.code(), outcome.stderr), (Some(1), expected.repeat(times)));
        let (asked, times) = (asked.load(Ordering::Relaxed), times as u32);
        // What a session at hand loses is asked again in a new one: no retry.
        assert!((3 * times..=4 * times).contains(&asked), "{arguments:?}: {asked}");
    }
}

#[in_own_namespace]
fn a_name_that_leads_out_of_the_tree_ends_the_transfer() {
    let long = "n".repeat(256);
    let names = "../victim .. . / /victim a/b a/../../victim \0 a\0b".split(' ');
    for name in names.chain(["", &long]) {
        let below = [entry(Kind::Directory, "sub", "")];
        for kind in [Kind::Regular, Kind::Directory, Kind::Link] {
            let bad = [entry(kind, name, "x")];
            let whole = [("/dir", &bad[..])];
            let deep = [("/dir", &below[..]), ("sub", &bad)];
            for directories in [&whole[..], &deep] {
                let (outcome, names) = copy(tree(directories));
                let expected = "mqfs-client: /dir: incomplete: a name that no entry can have\n";
                assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected), "{name:?}");
                assert_eq!(names, [""; 0], "{name:?}");
            }
            let here = public_folder();
            for how in [&["-l", "/dir"][..], &["-l", "/dir", "/dir", "--json"], &["--tar", "/"]] {
                let outcome = ask(tree(&whole), how, here.path());
                assert_eq!(outcome.code(), Some(1), "{how:?} {name:?}");
            }
        }
    }
}

#[in_own_namespace]
fn no_file_is_written_through_a_link() {
    // A link, and an entry of the same name that would go through it: there is only one.
    let twice = [entry(Kind::Link, "a", "../.."), entry(Kind::Directory, "a", "")];
    let inside = [entry(Kind::Regular, "victim", "")];
    for order in [[twice[0], twice[1]], [twice[1], twice[0]]] {
        let (outcome, names) = copy(tree(&[("/dir", &order), ("a", &inside)]));
        assert_eq!((outcome.code(), &names[..]), (Some(0), &["a".to_owned()][..]));
    }
    // A link that an earlier request made is replaced or refused, and never followed.
    let outer = public_folder();
    let here = outer.path().join("here");
    fs::create_dir_all(here.join("dir")).unwrap();
    fs::create_dir(outer.path().join("folder")).unwrap();
    fs::write(outer.path().join("victim"), "mine").unwrap();
    symlink("../../folder", here.join("dir/a")).unwrap();
    symlink("../../victim", here.join("dir/b")).unwrap();
    let entries = [entry(Kind::Directory, "a", ""), entry(Kind::Regular, "b", "")];
    let directories = [("/dir", &entries[..]), ("a", &inside)];
    let outcome = ask(tree(&directories), &COPY, &here);
    let expected = "mqfs-client: /dir/a: cannot write the copy: Not a directory\n\
                        mqfs-client: /dir: incomplete: 1 entry is missing\n";
    assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected));
    assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"mine");
    assert_eq!(fs::read(here.join("dir/b")).unwrap(), b"planted");
    assert!(!here.join("dir/b").is_symlink());
    // The same for the top folder.
    fs::rename(here.join("dir"), here.join("away")).unwrap();
    symlink("../folder", here.join("dir")).unwrap();
    assert_eq!(ask(tree(&directories), &COPY, &here).code(), Some(1));
    assert_eq!(fs::read_dir(outer.path().join("folder")).unwrap().count(), 0);
}

#[in_own_namespace]
fn wrong_listings_end_the_transfer() {
    let directory = entry(Kind::Directory, "", "");
    let files = [entry(Kind::Regular, "a", ""), entry(Kind::Regular, "b", "")];
    let mut half = encoded(&files[..1]);
    half.pop();
    for (why, listing) in [
        ("within an entry", Answer::default().meta(&directory).data(&half).end(&half)),
        ("no magic", Answer::default().meta(&directory).data(&[b'x'; 300]).end(b"")),
        ("a listing of what is no directory", Answer::default().file()),
        ("checksum", Answer::default().meta(&directory).data(&half).end(&[0; 104])),
    ] {
        let (outcome, _) = copy(|question| match question.operation {
            Operation::List => listing.clone(),
            _ => tree(&[])(question),
        });
        assert_eq!(outcome.code(), Some(1), "{why}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{why}: {}", outcome.stderr);
    }
    // In the next session, the top is another directory.
    let directories = [("/dir", &files[..])];
    let (honest, entered) = (tree(&directories), AtomicU32::new(0));
    let (outcome, names) = copy(|question| match question.operation {
        Operation::Enter => {
            let inode = entered.fetch_add(1, Ordering::Relaxed).into();
            let stat = Stat { inode, ..directory.stat };
            Answer::default().meta(&Entry { stat, ..directory }).end(b"")
        }
        Operation::Fetch(_) if entered.load(Ordering::Relaxed) == 1 => {
            Answer::default().then(|queue| _ = queue.remove())
        }
        _ => honest(question),
    });
    let expected = "mqfs-client: /dir: incomplete: the file changed while the server was away\n";
    assert_eq!((outcome.code(), &*outcome.stderr), (Some(1), expected));
    assert!(names.len() <= 1, "{names:?}");
}

/// The rest of a very long listing. Fails the test if its client keeps all of it in memory.
fn flood(reply: Queue) {
    for number in 0..200_000 {
        // Each is the first of all so far.
        let name = format!("{:0200}", u32::MAX - number);
        let bytes = encoded(&[entry(Kind::Directory, &name, "")]);
        Answer::default().data(&bytes).send(reply, 1, Some(Cookie::new([0; 16])));
    }
    let client = reply.status().unwrap().last_receiver.unwrap().as_raw();
    let memory = number(client, "status", "RssAnon").unwrap();
    assert!((8 << 10..24 << 10).contains(&memory), "{memory} KiB");
    kill(Pid::from_raw(client), Signal::SIGTERM).unwrap();
}

#[in_own_namespace]
fn an_endless_listing_takes_little_memory() {
    let (outcome, _) = copy(|question| match question.operation {
        Operation::List => {
            Answer::default().meta(&entry(Kind::Directory, "", "")).last().then(flood)
        }
        _ => tree(&[])(question),
    });
    assert_eq!(outcome.code(), Some(130), "{}", outcome.stderr);
}

#[in_own_namespace]
fn endless_nesting_ends_and_long_paths_are_shown_in_part() {
    let long = "n".repeat(255);
    let (below, files) = ([entry(Kind::Directory, &long, "")], ["a", "b", "c"]);
    let files = files.map(|name| entry(Kind::Regular, name, ""));
    for (levels, lines, expected) in
        [(1000, 4, ": not now\n"), (u32::MAX, 1, ": its directories are nested too deeply\n")]
    {
        for how in [&COPY[..], &["--tar", "/dir"]] {
            let (here, listed) = (public_folder(), AtomicU32::new(0));
            let answers = |question: &Question<'_>| match question.operation {
                Operation::List if listed.fetch_add(1, Ordering::Relaxed) < levels => {
                    Answer::default().dir(&below)
                }
                Operation::List => Answer::default().dir(&files),
                Operation::Fetch(_) => Answer::default().failure(Errno::EACCES),
                _ => tree(&[])(question),
            };
            let told = ask(answers, how, here.path());
            assert_eq!((told.code(), told.stderr.lines().count()), (Some(1), lines));
            assert!(told.stderr.contains(expected), "{}", told.stderr);
            assert!(told.stderr.lines().all(|line| line.len() < 4500));
        }
    }
}

#[in_own_namespace]
fn a_false_size_does_not_make_a_file_larger() {
    let here = public_folder();
    let archive = |size: u64, answer: Answer| {
        let mut large = entry(Kind::Regular, "a", "");
        large.stat.size = size;
        let entries = [large, entry(Kind::Regular, "b", "")];
        let directories = [("/dir", &entries[..])];
        let honest = tree(&directories);
        let answers = |question: &Question<'_>| match question.path.to_str() {
            Some("a") => answer.clone(),
            _ => honest(question),
        };
        ask(answers, &["-r", "--tar", "/dir"], here.path())
    };
    let denied = archive(u64::MAX, Answer::default().failure(Errno::EACCES));
    let expected = "mqfs-client: /dir/a: not now\n\
                        mqfs-client: /dir: incomplete: 1 entry is missing\n";
    assert_eq!((denied.code(), &*denied.stderr), (Some(1), expected));
    assert!(denied.stdout.len() < 20_000, "{}", denied.stdout.len());
    let mut large = entry(Kind::Regular, "", "");
    large.stat.size = 1 << 50;
    let broken = Answer::default().meta(&large).data(b"part").failure(Errno::EIO);
    let broken = archive(1 << 50, broken);
    let expected = "mqfs-client: standard output: dir/a: not now: 1125899906842620 bytes are \
                        missing, so the archive ends here\n";
    assert_eq!((broken.code(), &*broken.stderr), (Some(1), expected));
    assert!(broken.stdout.len() < 100_000, "{}", broken.stdout.len());
}

/// A child of an earlier request, for a queue that had this id, may be caught before it sends.
#[in_own_namespace]
fn an_answer_to_another_request_is_not_taken() {
    let (key, other) = (unique_key(), Cookie::new([1; 16]));
    let text = Failure { text: vec![], errno: Some(Errno::EOWNERDEAD), cookie: None }.encode();
    let died = Answer { message: Some((FrameType::Failure, text)), ..Answer::default() };
    let requests = OwnedQueue::create(key, Mode::new(0o711)).unwrap();
    let client = Running::piped(client(key).arg("/file"));
    let mut message = MessageBuffer::with_capacity(MAX_REQUEST);
    requests.receive(&mut message, Select::Any).unwrap();
    let request = Request::decode(message.text()).unwrap();
    let reply = Queue::from_id(request.reply_queue);
    let answer = |cookie| Answer::default().file().send(reply, 0, Some(cookie));
    // A plain one. Of several messages, the client would take that of the lowest type first.
    reply.send(&MessageBuffer::with_text(FrameType::End.mtype(), b"")).unwrap();
    wait_until("the client has it", || reply.status().map_or(0, |status| status.messages) < 2);
    died.send(reply, 1, Some(other));
    answer(other);
    died.send(reply, 1, Some(other));
    let cookie = request.extension.unwrap().cookie;
    let right = Answer::default().meta(&entry(Kind::Regular, "", "")).data(b"right").end(b"right");
    right.send(reply, 0, Some(cookie));
    assert_eq!(client.finish().success(), b"right");
}
