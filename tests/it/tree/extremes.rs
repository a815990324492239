//! Trees that are very deep, very wide, or change all the time.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, posix_fallocate};
use nix::sys::stat::{Mode, mkdirat};

use super::Site;
use crate::support::{Running, Stuck, by, in_own_namespace, number, run, text, wait_until};

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
        let mut client = Running::start(&mut site.command(&arguments));
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
            run(std::process::Command::new("rm").arg("-rf").arg(top)).success();
        }
        site.server.stop();
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
    assert!(told.contains("d/d/d: cannot write: Too many open files\n"), "{told}");
    assert!(told.ends_with("incomplete: 1 entry is missing\n"), "{told}");
    assert_eq!(fs::read(site.here("dir/z")).unwrap(), b"behind");
    site.server.stop();
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
    site.server.stop();
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
    let mut client =
        Running::start(site.command(&["-v", "-r", "--tar", "/dir"]).stdout(Stdio::null()));
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
    site.server.stop();
}
