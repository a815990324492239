//! Interrupted transfers of files and trees: servers and children that die, interrupted clients;
//! ranges of files; and trees that are very deep or very wide.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, posix_fallocate};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::Site;
use crate::recovery::Place;
use crate::support::*;

/// Two large files, and many small ones between them, in folders.
fn site() -> Site {
    let site = Site::start();
    for folder in 0..20 {
        for file in 0..20 {
            let content = format!("{folder} {file}").repeat(file * 30);
            site.put(&format!("dir/m{folder:02}/f{file:02}"), content);
        }
    }
    site.put("dir/a", noise(20 << 20));
    site.put("dir/z/z", noise(20 << 20));
    site.server.fetch("/dir/m00/f01"); // it removes orphans first
    site
}

/// Kills the server with its children, and starts another one.
fn replace_server(site: &mut Site) {
    let key = site.server.key;
    site.server.kill_with_children();
    let root = site.folder.path().to_str().unwrap();
    let next = Server::start_on(key, &["--reap-interval", "1h", "--root", root]);
    std::mem::replace(&mut site.server, next).make_way();
}

/// A client that is stopped in the middle of the first file.
fn frozen_client(site: &Site) -> Running {
    let client = Running::piped(&mut site.command(&["-r", "/dir", "-C", "."]));
    wait_until("it is in the first file", || {
        client.incomplete_file().is_some_and(|file| file.len() > 1 << 20)
    });
    client.freeze();
    assert!(!site.here("dir/z").exists(), "it was too fast");
    client
}

#[in_own_namespace]
fn a_tree_whose_child_or_server_is_killed_again_and_again_arrives_whole() {
    let mut site = site();
    let arguments = ["--retries", "100", "-r", "/dir", "-C", "."];
    let mut client = Running::piped(&mut site.command(&arguments));
    let mut kills = 0;
    while !client.has_ended() && kills < 20 {
        if kills == 7 {
            replace_server(&mut site);
        }
        kills += site.server.kill_children();
        thread::sleep(Duration::from_millis(15)); // what comes meanwhile differs each time
    }
    client.finish().success();
    assert!(kills > 0, "it was too fast");
    site.assert_same();
    assert_eq!(reply_queues(), []);
}

#[in_own_namespace]
fn a_replaced_file_is_fetched_again_and_a_removed_one_is_named() {
    for replaces in [true, false] {
        let site = site();
        let client = frozen_client(&site);
        fs::remove_file(site.at("dir/a")).unwrap();
        if replaces {
            site.put("dir/a", noise(5 << 20));
        }
        fs::remove_dir_all(site.at("dir/m07")).unwrap(); // which is no error
        site.server.kill_children();
        client.signal(Signal::SIGCONT);
        let outcome = client.finish();
        let expected = "mqfs-client: /dir/a: No such file or directory\n\
                            mqfs-client: /dir: incomplete: 1 entry is missing\n";
        let expected = if replaces { (Some(0), "") } else { (Some(1), expected) };
        assert_eq!((outcome.code(), &*outcome.stderr), expected);
        let mtime = fs::metadata(site.at("dir")).unwrap().modified().unwrap();
        fs::File::open(site.here("dir")).unwrap().set_modified(mtime).unwrap();
        site.assert_same();
    }
}

#[in_own_namespace]
fn an_archive_reports_changed_and_grown_files_and_holds_a_refetched_one() {
    let mut site = site();
    let stuck = |site: &Site| {
        let mut stuck = Stuck::start(&mut site.command(&["-r", "--tar", "/dir"]));
        stuck.wait_for_its_output();
        stuck
    };
    let change = |time: u64| {
        let file = fs::File::options().write(true).open(site.at("dir/a")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(time)).unwrap();
        file
    };
    let client = stuck(&site);
    change(1);
    let outcome = client.client.finish();
    let expected = "mqfs-client: /dir/a: warning: the file changed while it was read\n";
    assert_eq!((outcome.code(), &*outcome.stderr), (Some(0), expected));

    let client = stuck(&site);
    change(2).write_all_at(b"another beginning", 0).unwrap();
    replace_server(&mut site);
    let outcome = client.client.finish();
    assert_eq!((outcome.code(), &*outcome.stderr), (Some(0), ""));
    fs::write(site.here("archive"), outcome.stdout).unwrap();
    run(Command::new("tar").args(["-xf", "archive"]).current_dir(&site.here)).success();
    assert!(fs::read(site.here("dir/a")).unwrap() == fs::read(site.at("dir/a")).unwrap());

    // A file that grows is in the archive with the size that was announced.
    let client = stuck(&site);
    let mut grows = fs::File::options().append(true).open(site.at("dir/a")).unwrap();
    grows.write_all(b"more").unwrap();
    replace_server(&mut site);
    let outcome = client.client.finish();
    assert_eq!((outcome.code(), &*outcome.stderr), (Some(0), expected));
    let mut archive = tar::Archive::new(&outcome.stdout[..]);
    let sizes = archive.entries().unwrap().map(|entry| entry.unwrap().size());
    assert_eq!(sizes.filter(|&size| size == 20 << 20).count(), 2);
}

#[in_own_namespace]
fn folders_of_an_interrupted_tree_have_their_final_modes() {
    let site = site();
    set_mode(site.at("dir"), 0o751);
    // More than the client can write before it is stopped.
    allocate(site.at("dir/z/z"), 1 << 30);
    let client = Running::piped(&mut site.command(&["--retries", "0", "-r", "/dir", "-C", "."]));
    wait_until("it is in the last file", || counters(site.server.key).bytes_sent > 64 << 20);
    client.freeze();
    site.server.kill_children();
    client.signal(Signal::SIGCONT);
    let outcome = client.finish();
    assert_eq!(outcome.code(), Some(1), "{}", outcome.stderr);
    for folder in ["dir", "dir/z"] {
        let metadata = |path: PathBuf| fs::metadata(path).unwrap();
        let (there, here) = (metadata(site.at(folder)), metadata(site.here(folder)));
        assert_eq!(here.permissions(), there.permissions(), "{folder}");
        assert_eq!(here.modified().unwrap(), there.modified().unwrap(), "{folder}");
    }
}

/// Opens a folder at this depth, and makes it if necessary.
fn deep(top: OwnedFd, name: &str, levels: usize, make: bool) -> Result<OwnedFd, Errno> {
    (0..levels).try_fold(top, |at, _| {
        if make {
            mkdirat(&at, name, Mode::S_IRWXU)?;
        }
        openat(&at, name, OFlag::O_DIRECTORY, Mode::empty())
    })
}

#[in_own_namespace]
fn trees_deeper_than_path_max_arrive_despite_interruptions() {
    for (name, levels) in [("d".repeat(40), 400), ("d".to_owned(), 4000)] {
        let site = Site::start();
        fs::create_dir(site.at("dir")).unwrap();
        let folder = |path| open(&path, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let bottom = deep(folder(site.at("dir")), &name, levels, true).unwrap();
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        let file = openat(&bottom, "file", flags, Mode::S_IRWXU).unwrap();
        posix_fallocate(file, 0, 16 << 20).unwrap();
        let arguments = ["--retries", "100", "-r", "/dir", "-C", "."];
        let mut client = Running::piped(&mut site.command(&arguments));
        let mut kills = 0;
        while kills < 20 && !client.has_ended() {
            kills += site.server.kill_children();
            std::thread::sleep(Duration::from_millis(10));
        }
        client.finish().success();
        let bottom = deep(folder(site.here("dir")), &name, levels, false).unwrap();
        let file = openat(&bottom, "file", OFlag::O_RDONLY, Mode::empty()).unwrap();
        assert_eq!(File::from(file).metadata().unwrap().len(), 16 << 20);
        for top in [site.at("dir"), site.here("dir")] {
            run(Command::new("rm").arg("-rf").arg(top)).success();
        }
    }
}

#[in_own_namespace]
fn folders_too_deep_for_the_descriptor_limit_are_named_and_the_rest_arrives() {
    let site = Site::start();
    fs::create_dir(site.at("dir")).unwrap();
    let top = open(&site.at("dir"), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    deep(top, "d", 120, true).unwrap();
    site.put("dir/z", "behind");
    let client = site.command(&["-r", "/dir", "-C", "."]);
    let outcome = run(by(&["prlimit", "--nofile=100"], &client).current_dir(site.here.path()));
    assert_eq!(outcome.code(), Some(1));
    let told = outcome.stderr;
    assert!(told.contains("d/d/d: cannot write the copy: Too many open files\n"), "{told}");
    assert!(told.ends_with("incomplete: 1 entry is missing\n"), "{told}");
    assert_eq!(fs::read(site.here("dir/z")).unwrap(), b"behind");
}

/// In KiB; 0 if the process has ended.
fn anonymous_memory(pid: i32) -> u64 {
    number(pid, "status", "RssAnon").unwrap_or(0)
}

#[in_own_namespace]
fn nested_large_directories_take_little_memory() {
    const LEVELS: usize = 45; // of half a megabyte of names
    let (site, long) = (Site::start(), "n".repeat(240));
    let mut folder = site.at("dir");
    for _ in 0..LEVELS {
        fs::create_dir(&folder).unwrap();
        let first = folder.join(&long);
        fs::write(&first, "x").unwrap();
        for n in 1..2000 {
            fs::hard_link(&first, folder.join(format!("{long}{n:04}"))).unwrap();
        }
        folder = folder.join("a"); // which comes first
    }
    let mut stuck = Stuck::start(&mut site.command(&["-r", "--tar", "/dir"]));
    stuck.wait_for_its_output();
    let most = anonymous_memory(stuck.client.pid());
    assert!((12 << 10..26 << 10).contains(&most), "{most} KiB");
    assert!(anonymous_memory(site.server.children()[0]) < 2 << 10);
    // Names that were forgotten on the way are listed again.
    let archive = stuck.finish();
    let mut archive = tar::Archive::new(&archive[..]);
    assert_eq!(archive.entries().unwrap().count(), LEVELS * 2001);
}

#[in_own_namespace]
fn a_directory_of_a_hundred_thousand_entries_takes_little_memory() {
    let site = Site::start();
    fs::create_dir(site.at("dir")).unwrap();
    // Names that do not all fit into the memory for one directory.
    let name = |n: usize| format!("{n:0100}");
    let first = site.at("dir").join(name(0));
    fs::write(&first, "x").unwrap();
    for n in 1..100_000 {
        fs::hard_link(&first, site.at("dir").join(name(n))).unwrap();
        if n % 30_000 == 0 {
            fs::remove_file(&first).unwrap(); // a file has at most 65,000 names
            fs::write(&first, "x").unwrap();
        }
    }
    let mut client = Running::start(
        site.command(&["-v", "-r", "--tar", "/dir"]).stdout(Stdio::null()).stderr(Stdio::piped()),
    );
    let mut most = 0;
    wait_until("it is done", || {
        most = most.max(anonymous_memory(client.pid()));
        client.has_ended()
    });
    let told = client.finish();
    assert!(told.stderr.contains("100000 files"), "{}", told.stderr);
    assert!(most < 16 << 10, "{most} KiB");
    let listed = text(&mut site.command(&["-l", "/dir", "--json"]));
    assert_eq!(listed.lines().count(), 100_000);
    assert!(listed.lines().enumerate().all(|(n, line)| line.contains(&name(n))), "in order");
}

fn kill_all(mut server: Server) {
    server.kill_with_children();
    server.make_way(); // its queue is for the next one
}

#[in_own_namespace]
fn a_replaced_file_is_fetched_again_or_is_an_error() {
    let place = Place::new();
    let server = place.serve(&[]);
    let copy = place.folder.path().join("copy");
    let to_stdout = Stuck::start(&mut place.client());
    // Large enough to be stopped in the middle.
    allocate(place.folder.path().join("large"), 1 << 32);
    let to_file = Running::piped(client(place.key).arg("-o").arg(&copy).arg("/large"));
    wait_until("it writes", || to_file.incomplete_file().is_some_and(|file| file.len() > 0));
    to_file.freeze();
    assert_eq!(reply_queues().len(), 2, "it was too fast");
    // One changes in its place and keeps its time, and one is replaced.
    let path = place.folder.path().join("file");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let mtime = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"other", 0).unwrap();
    file.set_modified(mtime).unwrap();
    let other = noise((4 << 20) + 1);
    let new = place.folder.path().join("new");
    fs::write(&new, &other).unwrap();
    fs::rename(&new, place.folder.path().join("large")).unwrap();
    server.kill_children();
    let broken = to_stdout.client.finish();
    assert_eq!(broken.code(), Some(1));
    let expected = "mqfs-client: /file: incomplete: the file changed while the server was away\n";
    assert_eq!(broken.stderr, expected);
    to_file.signal(Signal::SIGCONT);
    to_file.finish().success();
    assert!(fs::read(copy).unwrap() == other);
}

#[in_own_namespace]
fn when_no_server_comes_back_the_transfer_fails_at_its_timeout() {
    let place = Place::new();
    let server = place.serve(&[]);
    let stuck = Stuck::start(place.client().args(["--timeout", "1s", "--progress", "always"]));
    kill_all(server);
    let failed = stuck.client.finish();
    assert_eq!(failed.code(), Some(1));
    assert!(failed.stderr.contains("waiting for the server"), "{}", failed.stderr);
    let expected = "mqfs-client: /file: incomplete: the server's child died on the way\n";
    assert!(failed.stderr.contains(expected), "{}", failed.stderr);
    place.serve(&[]).stop();
}

#[as_root_in_own_pid_namespace]
fn a_dead_child_is_not_confused_with_a_process_that_reuses_its_pid() {
    let place = Place::new();
    let server = place.serve(&[]);
    let mut stuck = Stuck::start(&mut place.client());
    stuck.wait_for_its_output(); // by then it has looked at who sends
    let child = server.children()[0];
    let born = owner_of(child).start_time;
    // All at once, so that nobody informs the client.
    kill_all(server);
    waitpid(Pid::from_raw(child), None).unwrap(); // we are process 1 here
    let mut other = None;
    wait_until("the pid is another's", || {
        fs::write("/proc/sys/kernel/ns_last_pid", (child - 1).to_string()).unwrap();
        let process = sleeper();
        // Start times count hundredths of a second; let one pass.
        let found = process.pid() == child && owner_of(child).start_time != born;
        other = Some(process);
        found
    });
    let next = place.serve(&[]);
    assert!(stuck.finish() == place.file);
    next.stop();
}

#[in_own_namespace]
fn a_range_matches_head_and_tail() {
    let (server, _folder, file) = serve_file(4 << 20, &[]);
    let get = |arguments: &[&str]| run(server.client().args(arguments)).success();
    let whole = file.len();
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
        let arguments: Vec<_> = ["/file", "--offset", offset].into_iter().chain(length).collect();
        assert!(get(&arguments) == file[begin..end], "{arguments:?}");
    }
    let twice = get(&["--offset", "2", "--length", "3", "/file", "/file"]);
    assert_eq!(twice, file[2..5].repeat(2));
}

#[in_own_namespace]
fn a_range_resumes_where_it_broke_off() {
    let (server, _folder, file) = serve_file(4 << 20, &[]);
    let arguments = ["-v", "--offset", "1000", "--length", "3M", "/file"];
    let mut stuck = Stuck::start(server.client().args(arguments));
    stuck.wait_for_its_output(); // otherwise there may be no first part
    server.kill_children();
    let finished = stuck.client.finish();
    let range = &file[1000..1000 + (3 << 20)];
    let checksum = crc32fast::hash(range);
    let how = format!("{} bytes, in 2 parts, verified (CRC-32 {checksum:08x})", range.len());
    assert!(finished.stderr.contains(&how), "{}", finished.stderr);
    assert!(finished.stderr.contains("waiting for the server"), "{}", finished.stderr);
    assert!(finished.success() == range);
}
