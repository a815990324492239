//! Parts of files, and the rest of one of which the beginning is there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{
    Finished, Running, SOMEBODY, Server, as_root_in_own_namespace, in_own_namespace, noise,
    reply_queues, run, unique_key, wait_until,
};

/// A server of `/file`, of 4 MiB, and a folder to write to.
struct Site {
    server: Server,
    folder: TempDir,
    here: TempDir,
    file: Vec<u8>,
}

impl Site {
    fn start() -> Self {
        let (folder, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = noise(4 << 20);
        fs::write(folder.path().join("file"), &file).unwrap();
        let server = Server::start(&["--root".as_ref(), folder.path()]);
        Self { server, folder, here, file }
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        run(self.server.client().args(arguments).current_dir(self.here.path()))
    }

    fn here(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.here.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn a_part_of_a_file_is_what_head_and_tail_would_show() {
    in_own_namespace(|| {
        let site = Site::start();
        let whole = site.file.len();
        for (offset, length, begin, end) in [
            ("0", Some("0"), 0, 0),
            ("0", Some("1"), 0, 1),
            ("1", None, 1, whole),
            ("8136", Some("8136"), 8136, 2 * 8136),
            ("1M", Some("1M"), 1 << 20, 2 << 20),
            ("4095K", Some("9G"), 4095 << 10, whole),
            ("4M", None, whole, whole),
            ("17T", Some("5"), whole, whole),
        ] {
            let length = length.map(|length| ["--length", length]).into_iter().flatten();
            let arguments: Vec<_> =
                ["/file", "--offset", offset].into_iter().chain(length).collect();
            assert!(site.run(&arguments).success() == site.file[begin..end], "{arguments:?}");
        }
        let twice = site.run(&["--offset", "2", "--length", "3", "/file", "/file"]).success();
        assert_eq!(twice, [&site.file[2..5], &site.file[2..5]].concat());
        site.server.stop();
    });
}

#[test]
fn sizes_that_are_none_and_options_that_exclude_each_other_are_exit_2() {
    in_own_namespace(|| {
        let key = unique_key();
        for bad in [
            &["--offset", "-1"][..],
            &["--offset", "1X"],
            &["--length", "K"],
            &["--length", "99999999999T"],
            &["--plain", "--length", "1"],
            &["--plain", "--offset", "1"],
            &["--continue"],
            &["--keep-partial"],
            &["-c", "-o", "copy", "--offset", "1"],
            &["-c", "-o", "copy", "/other"],
        ] {
            let bad = run(crate::support::client(key).args(bad).arg("/file"));
            assert_eq!((bad.code(), bad.stderr.lines().count()), (Some(2), 1), "{}", bad.stderr);
        }
    });
}

#[test]
fn a_transfer_of_a_part_goes_on_where_it_was() {
    in_own_namespace(|| {
        let site = Site::start();
        let mut command = site.server.client();
        command.args(["--offset", "1000", "--length", "3M", "/file"]).stderr(Stdio::piped());
        let stuck = crate::support::Stuck::start(command.stdout(Stdio::piped()));
        for child in site.server.children() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL);
        }
        assert!(stuck.finish() == site.file[1000..1000 + (3 << 20)]);
        site.server.stop();
    });
}

#[test]
fn what_is_left_of_an_interrupted_download_is_finished() {
    in_own_namespace(|| {
        let site = Site::start();
        // Large enough that it can be interrupted on its way.
        fs::File::create(site.folder.path().join("sparse")).unwrap().set_len(1 << 34).unwrap();
        let mut command = site.server.client();
        command.args(["--keep-partial", "-o", "copy", "/sparse"]).current_dir(site.here.path());
        let client = Running::start(command.stderr(Stdio::piped()));
        let part = site.here("copy.part");
        let has_begun = || fs::metadata(&part).is_ok_and(|part| part.len() > 0);
        wait_until("something arrived", has_begun);
        client.freeze();
        let arrived = fs::metadata(&part).unwrap().len();
        for option in ["--continue", "--keep-partial"] {
            let refused = site.run(&[option, "--output", "copy", "/file"]);
            assert_eq!(refused.code(), Some(2));
            let said = refused.stderr;
            assert!(said.starts_with("mqfs-client: copy: another process is writing "), "{said}");
        }
        assert_eq!(fs::metadata(&part).unwrap().len(), arrived, "it is left alone");
        client.signal(Signal::SIGKILL);
        client.finish();
        for queue in reply_queues() {
            let _ = queue.remove(); // what nobody can keep a killed client from leaving
        }
        assert_eq!(site.names(), ["copy.part"]);
        let arrived = fs::metadata(&part).unwrap().len();
        let short = fs::File::options().write(true).open(site.folder.path().join("sparse"));
        short.unwrap().set_len(arrived + 100_000).unwrap();

        let finished = site.run(&["-v", "-c", "-o", "copy", "/sparse"]);
        assert!(finished.stderr.contains(": 100000 bytes, verified"), "{}", finished.stderr);
        finished.success();
        assert_eq!(fs::metadata(site.here("copy")).unwrap().len(), arrived + 100_000);
        assert_eq!(site.names(), ["copy"]);
        site.server.stop();
    });
}

#[test]
fn going_on_takes_the_beginning_of_the_same_file() {
    in_own_namespace(|| {
        let site = Site::start();
        let part = site.here("copy.part");
        let go_on = || site.run(&["-c", "-o", "copy", "/file"]);
        for length in [0, 1, 4096, 300_000, site.file.len()] {
            fs::write(&part, &site.file[..length]).unwrap();
            go_on().success();
            assert!(fs::read(site.here("copy")).unwrap() == site.file, "{length} bytes were there");
            assert_eq!(site.names(), ["copy"]);
            fs::remove_file(site.here("copy")).unwrap();
        }
        go_on().success(); // there is nothing to go on with
        assert!(fs::read(site.here("copy")).unwrap() == site.file);

        let mut other = site.file[..300_000].to_vec();
        other[299_999] ^= 1;
        let longer = [&site.file[..], b"!"].concat();
        for wrong in [other, longer] {
            fs::write(&part, &wrong).unwrap();
            let refused = go_on();
            assert_eq!(refused.code(), Some(1));
            let expected = "mqfs-client: copy.part: not the beginning of /file (remove it, or leave \
                            out --continue, to begin anew)\n";
            assert_eq!(refused.stderr, expected);
            assert!(fs::read(&part).unwrap() == wrong, "it is left as it was");
        }
        site.run(&["--keep-partial", "-o", "copy", "/file"]).success();
        assert_eq!(site.names(), ["copy"], "it begins anew");
        site.server.stop();
    });
}

#[test]
fn what_arrived_is_kept_only_when_asked_and_replaces_no_file() {
    in_own_namespace(|| {
        let site = Site::start();
        fs::write(site.here("copy"), "old").unwrap();
        let missing = site.run(&["--keep-partial", "-o", "copy", "/missing"]);
        assert_eq!(missing.code(), Some(1));
        assert_eq!(site.names(), ["copy"], "nothing arrived, so nothing is kept");
        let both = site.run(&["--keep-partial", "-o", "copy", "/file", "/missing"]);
        assert_eq!(both.code(), Some(1));
        assert_eq!(fs::read(site.here("copy")).unwrap(), b"old");
        assert!(fs::read(site.here("copy.part")).unwrap() == site.file);
        site.run(&["-c", "-o", "copy", "/file"]).success();
        assert!(fs::read(site.here("copy")).unwrap() == site.file);

        symlink("elsewhere", site.here("link.part")).unwrap();
        let refused = site.run(&["-c", "-o", "link", "/file"]);
        assert_eq!(refused.code(), Some(2), "{}", refused.stderr);
        assert!(!site.here("elsewhere").exists());
        site.server.stop();
    });
}

#[test]
fn the_library_opens_parts_and_rests() {
    in_own_namespace(|| {
        use std::io::Read;
        let site = Site::start();
        let client = mqfs::Client::connect(site.server.key).unwrap();
        let read = |mut transfer: mqfs::Transfer| {
            let mut bytes = Vec::new();
            transfer.read_to_end(&mut bytes).map(|_| bytes)
        };
        let file = &site.file;
        assert!(read(client.open_range("/file", ..).unwrap()).unwrap() == *file);
        assert!(read(client.open_range("/file", 5..9).unwrap()).unwrap() == file[5..9]);
        assert!(read(client.open_range("/file", ..=9).unwrap()).unwrap() == file[..=9]);
        let checksum = crc32fast::hash(&file[..1000]);
        let rest = client.open_rest("/file", 1000, checksum).unwrap();
        assert!(read(rest).unwrap() == file[1000..]);
        let other = client.open_rest("/file", 1001, checksum).unwrap();
        let error = read(other).unwrap_err().downcast::<mqfs::Error>().unwrap();
        assert!(matches!(error, mqfs::Error::OtherFile), "{error:?}");
        let served = fs::File::options().write(true).open(site.folder.path().join("file"));
        served.unwrap().write_all_at(b"changed", 0).unwrap();
        let changed = client.open_rest("/file", 1000, checksum).unwrap();
        assert!(read(changed).is_err());
        site.server.stop();
    });
}

#[test]
fn what_is_kept_is_private_until_it_is_complete_and_then_runs_as_nobody() {
    in_own_namespace(|| {
        let site = Site::start();
        fs::write(site.here("copy"), "old").unwrap();
        let mode = |name| fs::metadata(site.here(name)).unwrap().mode() & 0o7777;
        fs::set_permissions(site.here("copy"), Permissions::from_mode(0o4710)).unwrap();
        let both = site.run(&["--keep-partial", "-o", "copy", "/file", "/missing"]);
        assert_eq!(both.code(), Some(1));
        assert_eq!((mode("copy.part"), mode("copy")), (0o600, 0o4710));
        site.run(&["-c", "-o", "copy", "/file"]).success();
        assert_eq!(mode("copy"), 0o710);
        let new = "umask 027; exec \"$0\" \"$@\"";
        let client = site.server.client();
        let mut shell = Command::new("sh");
        shell.args(["-c", new]).arg(client.get_program()).args(client.get_args());
        shell.args(["--keep-partial", "-o", "new", "/file"]).current_dir(site.here.path());
        run(&mut shell).success();
        assert_eq!(mode("new"), 0o640);
        site.server.stop();
    });
}

#[test]
fn what_others_made_or_can_reach_is_not_gone_on_with() {
    as_root_in_own_namespace(|| {
        let site = Site::start();
        let part = site.here("copy.part");
        let refused = |why: &str| {
            for option in ["--keep-partial", "-c"] {
                let refused = site.run(&[option, "-o", "copy", "/file"]);
                let expected = format!("mqfs-client: copy: what is to be gone on with {why}\n");
                assert_eq!((refused.code(), &*refused.stderr), (Some(2), &*expected));
            }
            assert_eq!(fs::read(&part).unwrap(), b"theirs");
            assert!(!site.here("copy").exists());
        };
        fs::write(&part, "theirs").unwrap();
        chown(&part, Some(SOMEBODY), None).unwrap();
        refused("is another user's");
        chown(&part, Some(0), None).unwrap();
        fs::hard_link(&part, site.here("other name")).unwrap();
        refused("has another name too");
        site.server.stop();
    });
}

#[test]
fn links_that_others_made_where_everybody_may_lead_nobody() {
    as_root_in_own_namespace(|| {
        let site = Site::start();
        let shared = site.here("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
        symlink("../victim", shared.join("link")).unwrap();
        lchown(shared.join("link"), Some(SOMEBODY), None).unwrap();
        for option in [&[][..], &["--keep-partial"]] {
            let refused = site.run(&[&["-o", "shared/link", "/file"], option].concat());
            let expected = "mqfs-client: shared/link: Permission denied\n";
            assert_eq!((refused.code(), &*refused.stderr), (Some(2), expected));
            assert!(!site.here("victim").exists());
        }
        // One's own, and those of whoever owns the folder, lead where they lead.
        lchown(shared.join("link"), Some(0), None).unwrap();
        site.run(&["-o", "shared/link", "/file"]).success();
        assert!(fs::read(site.here("victim")).unwrap() == site.file);
        // What is replaced was another's, who opened it wide.
        fs::set_permissions(site.here("victim"), Permissions::from_mode(0o666)).unwrap();
        chown(site.here("victim"), Some(SOMEBODY), None).unwrap();
        site.run(&["-o", "victim", "/file"]).success();
        let metadata = fs::metadata(site.here("victim")).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777 & 0o022), (0, 0));
        site.server.stop();
    });
}
