//! Where copies go, and what they let others do.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::*;
use crate::tree::{Site, tree_of};

/// Sets the rights of owner, SOMEBODY, group, mask and others: acl(5).
#[allow(unsafe_code)]
fn set_acl(path: &Path, name: &str, rights: [u32; 5]) {
    let mut acl = vec![2];
    for (tag, rights) in [1, 2, 4, 16, 32].into_iter().zip(rights) {
        acl.extend([tag | rights << 16, if tag == 2 { SOMEBODY } else { u32::MAX }]);
    }
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = CString::new(format!("system.posix_acl_{name}")).unwrap();
    // SAFETY: C strings, and a buffer as long as said; setxattr(2).
    let done = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), acl.as_ptr().cast(), 4 * acl.len(), 0)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[in_own_namespace]
fn no_copy_replaces_another_of_the_same_command() {
    let site = Site::start();
    for file in ["a/f", "b/f", "a/d/f", "b/d/g"] {
        site.put(file, file);
    }
    for arguments in [
        "-C . /a/f /b/f",
        "-C . a/f ./b//f/",
        "-C . -r /a/d b/d",
        "-C . -r /a/d/. /b/d",
        "--tar /a/d /b/d",
        "-C . -r /a /",
        "--tar a/.. b/..",
    ] {
        let refused = site.run(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!((refused.code(), refused.stderr.lines().count()), (Some(2), 1), "{arguments}");
        assert!(refused.stdout.is_empty() && tree_of(site.here.path()).is_empty(), "{arguments}");
    }
    let twice = site.run(&["-C", ".", "a/f", "/a//./f"]);
    let expected = "mqfs-client: /a//./f: warning: given more than once\n";
    assert_eq!((twice.code(), &*twice.stderr), (Some(0), expected));
    assert_eq!(fs::read(site.here("f")).unwrap(), b"a/f");
}

#[in_own_namespace]
fn a_tree_is_not_copied_into_itself() {
    let site = Site::start();
    site.put("t/app", "app");
    site.put("t/backups/old", "old");
    symlink("t/backups", site.at("elsewhere")).unwrap();
    for (target, path, copy, left_out) in [
        ("t/backups", "/t", "t/backups/t", "/t/backups/t"),
        ("elsewhere", "/t", "t/backups/t", "/t/backups/t"),
        ("t/backups/new", "/", "t/backups/new/t", "/t/backups/new"),
    ] {
        let (target, copy) = (site.at(target), site.at(copy));
        fs::create_dir_all(&target).unwrap();
        for _ in 0..2 {
            let told = run(site.server.client().arg("-rC").arg(&target).arg(path));
            let line = format!("mqfs-client: {left_out}: Is the copy, which is left out\n");
            assert!(told.code() == Some(1) && told.stderr.starts_with(&line), "{}", told.stderr);
        }
        let names: Vec<_> = tree_of(&copy).into_keys().collect();
        assert_eq!(names, ["app", "backups", "backups/old"].map(Path::new));
        fs::remove_dir_all(if path == "/" { target } else { copy }).unwrap();
    }
    // A tree onto itself stays as it is, with the inodes that it has.
    set_mode(site.at("t"), 0o555);
    let state = || (fs::metadata(site.at("t/app")).unwrap().ino(), mode_of(site.at("t")));
    let before = state();
    let told = run(site.server.client().arg("-rC").arg(site.folder.path()).arg("/t"));
    assert!(told.stderr.starts_with("mqfs-client: /t: Is the copy"), "{}", told.stderr);
    assert_eq!((told.code(), state()), (Some(1), before));
    set_mode(site.at("t"), 0o755);
    // An archive of itself, and a file appended to itself.
    let append_to = |name: &str, arguments: &[&str]| {
        let file = File::options().append(true).create(true).open(site.at(name)).unwrap();
        let mut client = site.server.client();
        Running::start(client.args(arguments).stdout(file).stderr(Stdio::piped())).finish()
    };
    let told = append_to("t/t.tar", &["--tar", "/t"]);
    let expected = "mqfs-client: /t/t.tar: is the archive, which is left out\n";
    assert_eq!((told.code(), &*told.stderr), (Some(0), expected));
    let mut archive = tar::Archive::new(File::open(site.at("t/t.tar")).unwrap());
    assert_eq!(archive.entries().unwrap().count(), 4);
    let told = append_to("t/app", &["/t/backups/old", "/t/app"]);
    assert_eq!((told.code(), told.stderr.lines().count()), (Some(1), 1), "{}", told.stderr);
    assert_eq!(fs::read(site.at("t/app")).unwrap(), b"appold");
}

#[as_root_in_own_namespace]
fn what_cannot_be_written_is_said_with_a_remedy() {
    let site = Site::start();
    site.put("file", "content");
    fs::create_dir_all(site.here("dir/file")).unwrap();
    fs::write(site.here("old"), "old").unwrap();
    symlink("nowhere/", site.here("link")).unwrap();
    let use_c = " (-C DIR writes files into a directory that exists, under their own names)";
    for (option, path, why, remedy) in [
        ("-o", "missing/", "No such file or directory", use_c),
        ("-o", "dir/", "Is a directory", use_c),
        ("-o", "dir/.", "Is a directory", use_c),
        ("-o", "dir", "Is a directory", use_c),
        ("-o", "old/", "Not a directory", use_c),
        ("-o", "link", "No such file or directory", " (mkdir -p makes directories)"),
        ("-C", "missing", "No such file or directory", " (mkdir -p makes directories)"),
    ] {
        let expected = format!("mqfs-client: cannot write {path}: {why}{remedy}\n");
        fails(&mut site.command(&[option, path, "/file"]), 2, &expected);
    }
    assert_eq!(site.run(&["-o", "-", "/file"]).success(), b"content");
    assert_eq!(fs::read_dir(site.here.path()).unwrap().count(), 3);
    // What is local is told apart from what is the server's.
    let told = site.run(&["-C", "dir", "/file"]);
    assert_eq!(told.stderr, "mqfs-client: /file: cannot write the copy: Is a directory\n");
    // A mount point keeps its name; on a read-only file system nothing can be written.
    let client = site.command(&["-o", "old", "/file"]);
    for (options, expected) in [
        (
            "rw",
            "Device or resource busy \
             (the file cannot be replaced by a new one; > FILE writes into it)",
        ),
        ("ro", "Device or resource busy"),
    ] {
        let mut mounted = after_mounting(&format!("mount -o bind,{options} old old"), &client);
        let expected = format!("mqfs-client: cannot write old: {expected}\n");
        fails(mounted.current_dir(site.here.path()), 1, &expected);
    }
}

#[as_root_in_own_namespace]
fn a_copy_lets_nobody_do_more_than_the_original() {
    let site = Site::start();
    // Another user's folder, with an ACL for what others make in it.
    let folder = site.here("folder");
    fs::create_dir(&folder).unwrap();
    set_acl(&folder, "default", [7; 5]);
    for (number, (mode, gid, acl, expected)) in [
        (0o640, 0, None, 0o600),
        (0o640, SOMEBODY, None, 0o600),
        (0o775, SOMEBODY, None, 0o755),
        (0o604, SOMEBODY, None, 0o600),
        (0o660, 0, Some([6, 6, 0, 6, 0]), 0o600), // a user may more than the group,
        (0o664, 0, Some([6, 0, 4, 6, 4]), 0o600), // less than others,
        (0o664, 0, Some([6, 6, 4, 6, 4]), 0o644), // or as much as all
    ]
    .into_iter()
    .enumerate()
    {
        let dir = format!("t/d{number}");
        site.put(&format!("{dir}/f"), "content");
        for path in [site.at(&dir), site.at(&dir).join("f")] {
            chown(&path, None, Some(gid)).unwrap();
            set_mode(&path, mode);
            acl.inspect(|&acl| set_acl(&path, "access", acl));
            assert_eq!(mode_of(path), mode);
        }
        site.run(&["-r", &dir, "-C", "folder"]).success();
        site.run(&["-o", "folder/f", &format!("{dir}/f")]).success();
        let (copy, file) = (folder.join(format!("d{number}")), folder.join("f"));
        let modes = [&copy, &copy.join("f"), &file].map(mode_of);
        assert_eq!(modes, [expected, expected, expected & 0o666], "{number}");
        let mut reader = Command::new("setpriv");
        reader.args(["--clear-groups", "--regid=1", &format!("--reuid={SOMEBODY}"), "cat"]);
        assert_eq!(run(reader.arg(&file)).code() == Some(0), expected & 4 != 0, "{number}");
        fs::remove_file(file).unwrap();
    }
    // A file that is replaced keeps its group; it had an ACL, or a mode that another user chose.
    fs::write(site.here("f"), "").unwrap();
    chown(site.here("f"), None, Some(SOMEBODY)).unwrap();
    set_mode(site.here("f"), 0o640);
    site.run(&["-o", "f", "/t/d6/f"]).success();
    let gid = fs::metadata(site.here("f")).unwrap().gid();
    assert_eq!((mode_of(site.here("f")), gid), (0o640, SOMEBODY));
    chown(site.here("f"), None, Some(0)).unwrap();
    fs::write(site.here("f"), "").unwrap();
    set_acl(&site.here("f"), "access", [6, 6, 0, 6, 0]);
    site.run(&["-o", "f", "/t/d6/f"]).success();
    assert_eq!(mode_of(site.here("f")), 0o600);
    set_mode(site.here("f"), 0o666);
    chown(site.here("f"), Some(SOMEBODY), None).unwrap();
    site.run(&["-o", "f", "/t/d6/f"]).success();
    assert_eq!(mode_of(site.here("f")) & 0o022, 0);
    // Folders in a set-group-id one stay such.
    chown(site.here.path(), None, Some(SOMEBODY)).unwrap();
    set_mode(site.here.path(), 0o2755);
    site.run(&["-r", "/t/d2", "-C", "."]).success();
    assert_eq!((mode_of(site.here("d2")), mode_of(site.here("d2/f"))), (0o2775, 0o775));
    // A folder of the tree that another user has made before is named.
    chown(site.here("d2"), Some(SOMEBODY), None).unwrap();
    let told = site.run(&["-r", "/t/d2", "-C", "."]);
    let why = format!("uid {SOMEBODY} made this directory, and may change it");
    assert_eq!((told.code(), told.stderr), (Some(0), format!("mqfs-client: /t/d2: {why}\n")));
}

#[as_root_in_own_namespace]
fn nobody_can_open_a_file_by_its_temporary_name() {
    let site = Site::start();
    site.put("file", "content");
    site.server.freeze();
    // Without /proc, no file can be without a name.
    let copy = site.here("f");
    let client = site.command(&["-o", copy.to_str().unwrap(), "/file"]);
    let mut client = after_mounting("mount -t tmpfs none /proc", &client);
    let client = Running::piped(&mut client);
    let names = || names_in(site.here.path()).into_iter();
    let part = || names().find(|name| name.ends_with(".part"));
    wait_until("it is begun", || part().is_some());
    assert_eq!(mode_of(site.here(&part().unwrap())), 0o600);
    site.server.signal(Signal::SIGCONT);
    client.finish().success();
    assert_eq!(mode_of(copy), 0o644, "the usual mode");
    // What a folder's default ACL leaves out stays out.
    let closed = site.here("closed");
    fs::create_dir(&closed).unwrap();
    set_acl(&closed, "default", [7, 7, 7, 7, 0]);
    let client = site.command(&["-o", closed.join("f").to_str().unwrap(), "/file"]);
    run(&mut after_mounting("mount -t tmpfs none /proc", &client)).success();
    assert_eq!(mode_of(closed.join("f")) & 0o007, 0);
    let names: Vec<_> = tree_of(&closed).into_keys().collect();
    assert_eq!(names, [Path::new("f")]);
}

#[as_root_in_own_namespace]
fn nothing_goes_where_others_could_lead_it() {
    let site = Site::start();
    site.put("file", "secret");
    let (folder, victim) = (site.here("folder"), site.here("victim"));
    let (link, fifo) = (folder.join("link"), folder.join("fifo"));
    fs::create_dir(&folder).unwrap();
    symlink("../victim", &link).unwrap();
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let mut reader = File::options().read(true).write(true).open(&fifo).unwrap(); // never waits
    for (mode, owner, link_is_followed, fifo_is_written_to) in [
        (0o755, 0, true, true),
        (0o1777, 0, true, true),
        (0o777, 0, false, true), // anybody can move a link of ours
        (0o777, SOMEBODY, false, false),
        (0o1777, SOMEBODY, false, false),
        (0o775, SOMEBODY, false, false),
    ] {
        set_mode(&folder, mode);
        for path in [&link, &fifo] {
            lchown(path, Some(owner), None).unwrap();
        }
        fs::write(&victim, "mine").unwrap();
        let told = ["link", "fifo"].map(|name| {
            let told = site.run(&["-o", &format!("folder/{name}"), "/file"]);
            assert_eq!(told.stderr.is_empty(), told.code() == Some(0));
            told.code() == Some(0)
        });
        assert_eq!(told, [link_is_followed, fifo_is_written_to], "{mode:o} {owner}");
        assert_eq!(fs::read(&victim).unwrap() == b"secret", link_is_followed, "{mode:o} {owner}");
        let mut arrived = [0; 6];
        if fifo_is_written_to {
            reader.read_exact(&mut arrived).unwrap();
            assert_eq!(&arrived, b"secret");
        }
    }
    // Where everybody may write, they can also put a file of theirs, or of ours, in the way.
    set_mode(site.at("file"), 0o600);
    for (dir, owner) in [(0o777, 0), (0o777, SOMEBODY), (0o1777, 0)] {
        set_mode(&folder, dir);
        fs::write(folder.join("planted"), "").unwrap();
        set_mode(folder.join("planted"), 0o666);
        chown(folder.join("planted"), Some(owner), None).unwrap();
        site.run(&["-o", "folder/planted", "/file"]).success();
        assert_eq!(mode_of(folder.join("planted")), 0o600, "{dir:o} {owner}");
    }
}
