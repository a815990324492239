//! Servers and children that die during the transfer of a tree, and interrupted clients.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use mqfs::counters::{Lookup, read};
use nix::sys::signal::Signal;

use super::Site;
use crate::support::{
    Running, Server, Stuck, allocate, in_own_namespace, noise, reply_queues, wait_until,
};

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
    let client = Running::start(&mut site.command(&["-r", "/dir", "-C", "."]));
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
    let mut client = Running::start(&mut site.command(&arguments));
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
    site.server.stop();
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
        site.server.stop();
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
    let mut tar = Command::new("tar");
    assert!(tar.args(["-xf", "archive"]).current_dir(site.here.path()).status().unwrap().success());
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
    site.server.stop();
}

#[in_own_namespace]
fn folders_of_an_interrupted_tree_have_their_final_modes() {
    let site = site();
    fs::set_permissions(site.at("dir"), Permissions::from_mode(0o751)).unwrap();
    // More than the client can write before it is stopped.
    allocate(site.at("dir/z/z"), 1 << 30);
    let client = Running::start(&mut site.command(&["--retries", "0", "-r", "/dir", "-C", "."]));
    wait_until("it is in the last file", || {
        let counters = read(site.server.key, None).unwrap();
        matches!(counters, Lookup::Found(counters) if counters.bytes_sent > 64 << 20)
    });
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
    site.server.stop();
}
