//! Files that shrink, grow or change while they are sent, files in /proc, and files with holes: the
//! bytes are right everywhere, and no hole takes time, memory or disk.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use crate::support::*;
use crate::tree::Site;

#[in_own_namespace]
fn files_of_size_zero_in_proc_arrive_whole() {
    let server = Server::start::<&str>(&[]);
    assert_eq!(server.fetch("/proc/version"), fs::read("/proc/version").unwrap());
    assert_eq!(server.fetch("/proc/cpuinfo").len(), fs::read("/proc/cpuinfo").unwrap().len());
    // Claims 4,096 bytes and has fewer.
    let claims = "/sys/kernel/mm/transparent_hugepage/enabled";
    if Path::new(claims).exists() {
        assert_eq!(server.fetch(claims), fs::read(claims).unwrap());
    }
}

#[in_own_namespace]
fn a_shrinking_file_is_a_failure_and_a_changing_file_a_warning() {
    let (server, folder, file) = serve_file(4 << 20, &[]);
    let path = folder.path().join("file");
    // Two files make a session.
    for (paths, status) in [(&["/file"][..], Some(0)), (&["/file", "/none"], Some(1))] {
        let changed = |change: fn(fs::File)| {
            fs::write(&path, &file).unwrap();
            let stuck = Stuck::start(server.client().args(paths));
            change(fs::File::options().append(true).open(&path).unwrap());
            stuck.client.finish()
        };
        let shrunk = changed(|file| file.set_len(1 << 19).unwrap());
        let expected = "mqfs-client: /file: the file shrank while it was read\n";
        assert_eq!(shrunk.code(), Some(1));
        assert!(shrunk.stderr.starts_with(expected), "{}", shrunk.stderr);
        let grown = changed(|mut file| file.write_all(b"more").unwrap());
        let expected = "mqfs-client: /file: warning: the file changed while it was read\n";
        assert_eq!(grown.code(), status);
        assert!(grown.stderr.starts_with(expected), "{}", grown.stderr);
        assert!(grown.stdout == file, "as much as there was");
    }
    // What changes no byte is no change.
    fs::write(&path, &file).unwrap();
    let stuck = Stuck::start(server.client().arg("/file"));
    fs::hard_link(&path, folder.path().join("link")).unwrap();
    set_mode(&path, 0o640);
    fs::rename(&path, folder.path().join("renamed")).unwrap();
    let same = stuck.client.finish();
    assert_eq!((same.code(), &*same.stderr), (Some(0), ""));
}

/// A file of this size with noise at these places, and holes elsewhere.
fn put(path: &Path, size: u64, data: &[(u64, usize)]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for &(start, length) in data {
        file.write_all_at(&noise(length), start).unwrap();
    }
}

const M: u64 = 1 << 20;

#[in_own_namespace]
fn holes_arrive_as_holes() {
    let site = Site::start();
    let many: Vec<_> = (0..2000).map(|place| (place * 8192, 4096)).collect();
    type Layout<'a> = (&'a str, u64, &'a [(u64, usize)]);
    let layouts: [Layout<'_>; 8] = [
        ("all", 30 * M, &[]),
        ("end", 30 * M, &[(0, 70_000)]),
        ("few", 400_000, &[(131_072, 5)]),
        ("many", 2000 * 8192, &many),
        ("middle", 30 * M, &[(0, 3 << 20), (12 * M, 1), (28 * M, 2 << 20)]),
        ("none", 3 * M, &[(0, 3 << 20)]),
        ("start", 30 * M, &[(30 * M - 70_000, 70_000)]),
        ("tiny", 8192, &[]),
    ];
    layouts.iter().for_each(|(name, size, data)| put(&site.at("dir").join(name), *size, data));
    site.run(&["-r", "/dir", "-C", "."]).success();
    fs::write(site.here("tar"), site.run(&["--tar", "/dir"]).success()).unwrap();
    fs::create_dir(site.here("out")).unwrap();
    run(Command::new("tar").args(["xf", "tar", "-C", "out"]).current_dir(&site.here)).success();
    let on_disk = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    let data: usize = layouts.iter().flat_map(|(_, _, data)| *data).map(|part| part.1).sum();
    assert!(fs::metadata(site.here("tar")).unwrap().len() < data as u64 + M);
    for (name, ..) in layouts {
        let (path, source) = (format!("/dir/{name}"), site.at("dir").join(name));
        let content = fs::read(&source).unwrap();
        let told = site.run(&["-v", "-o", "o", &path]).stderr;
        assert!(told.contains(&format!("{:08x}", crc32fast::hash(&content))), "{name}: {told}");
        site.run(&["-C", ".", &path]).success();
        for copy in ["o", name, &format!("dir/{name}"), &format!("out/dir/{name}")] {
            let copy = site.here(copy);
            assert!(fs::read(&copy).unwrap() == content, "{}", copy.display());
            assert!(on_disk(&copy) <= on_disk(&source) + 65_536, "{}", copy.display());
        }
        assert!(site.run(&[&path]).success() == content, "{name}");
        assert!(site.run(&["--plain", &path]).success() == content, "{name}, plain");
        let part = site.run(&["--offset", "5001", "--length", "20M", &path, &path]).success();
        let expected = &content[5001..content.len().min(5001 + (20 << 20))];
        assert!(part == [expected, expected].concat(), "a part of {name}");
        assert!(site.run(&["--offset", "1G", &path]).success().is_empty(), "behind {name}");
    }
}

#[in_own_namespace]
fn a_hole_of_8_eib_costs_nobody_anything() {
    const SIZE: u64 = i64::MAX as u64;
    // Its files may be so long.
    let [folder, here] = [(); 2].map(|()| tempfile::tempdir_in("/dev/shm").unwrap());
    put(&folder.path().join("t/hole"), SIZE, &[(SIZE - 5000, 5)]);
    let server = Server::start(&["--root", folder.path().to_str().unwrap()]);
    let command = |arguments: &[&str]| {
        let mut command = server.client();
        command.args(arguments).current_dir(&here);
        command
    };
    for (arguments, copy) in [(["-o", "o", "/t/hole"], "o"), (["-r", "-C.", "/t"], "t/hole")] {
        run(&mut command(&arguments)).success();
        assert_eq!(fs::metadata(here.path().join(copy)).unwrap().len(), SIZE);
    }
    assert!(run(&mut command(&["--tar", "/t"])).success().len() < 65_536);
    let part = run(&mut command(&["--offset", &(SIZE - 5001).to_string(), "/t/hole"])).success();
    assert!(part.len() == 5001 && part[..7].iter().filter(|&&byte| byte == 0).count() >= 2);
    let twice = run(&mut command(&["-o", "twice", "/t/hole", "/t/hole"]));
    let told = (twice.code(), &*twice.stderr);
    assert_eq!(told, (Some(1), "mqfs-client: cannot write twice: File too large\n"));
    // Standard output gets zeros for as long as somebody reads them; the child ends long before.
    let mut endless = Running::piped(&mut command(&["/t/hole"]));
    let mut zeros = vec![1; 1 << 20];
    endless.child().stdout.as_mut().unwrap().read_exact(&mut zeros).unwrap();
    assert!(zeros.iter().all(|&byte| byte == 0));
    server.wait_until_idle();
    endless.child().stdout = None;
    assert_eq!(endless.finish().code(), Some(141));
}

#[in_own_namespace]
fn holes_may_change_while_a_file_is_sent() {
    let site = Site::start();
    let path = site.at("dir/file");
    // What is read again: zeros in place of a hole, or other bytes; or less of the last hole.
    let fill = |file: &File, byte: u8| file.write_all_at(&vec![byte; 1 << 20], 25 * M).unwrap();
    for (arguments, change, status) in [
        (["/dir/file", "-v"], 0, 0),
        (["/dir", "--tar"], 0, 0),
        (["/dir", "--tar"], 1, 1),
        (["/dir/file", "-q"], 2, 1),
    ] {
        put(&path, 30 * M, &[(12 * M, 8 << 20)]);
        let stuck = Stuck::start(&mut site.command(&arguments));
        let file = File::options().write(true).open(&path).unwrap();
        match change {
            2 => file.set_len(22 * M).unwrap(),
            byte => fill(&file, byte),
        }
        if change < 2 {
            site.server.kill_children();
        }
        let outcome = stuck.client.finish();
        let told = &*outcome.stderr;
        assert_eq!(outcome.code(), Some(status), "{arguments:?} {change}: {told}");
        match (arguments[1], change) {
            ("-v", _) => {
                assert!(told.contains("31457280 bytes, in 2 parts, verified"), "{told}");
                assert!(outcome.stdout == fs::read(&path).unwrap());
            }
            ("--tar", 0) => {
                let mut archive = tar::Archive::new(&outcome.stdout[..]);
                archive.unpack(&site.here).unwrap();
                assert!(fs::read(site.here("dir/file")).unwrap() == fs::read(&path).unwrap());
            }
            ("--tar", _) => assert!(told.contains("data in place of a hole"), "{told}"),
            _ => {}
        }
    }
}
