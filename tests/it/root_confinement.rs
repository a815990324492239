//! Links and special files: the server serves only regular files below the root that the caller may
//! read.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::TempDir;

use crate::support::{
    ForEverybody, Running, Server, Site, VICTIM, as_root_in_own_namespace, public_folder, run,
    sleeper,
};

const INSIDE: &str = "inside";
const SECRET: &str = "secret";

const NOT_FOUND: &str = "No such file or directory";
const DENIED: &str = "Permission denied";
const NO_LINKS: &str = "Too many symbolic links encountered";
const FOLDER: &str = "Is a directory";
const NOT_A_FOLDER: &str = "Not a directory";

/// A folder beside the root, which everybody may read, so that only the root protects it.
fn outside() -> TempDir {
    let outside = public_folder();
    fs::write(outside.path().join("file"), SECRET).unwrap();
    outside
}

#[as_root_in_own_namespace]
fn links_and_dots_do_not_lead_out_of_the_root() {
    let (site, outside) = (Site::start(&[]), outside());
    fs::create_dir_all(site.at("a/b/c")).unwrap();
    site.put("inside", 0o644, (0, 0), INSIDE);
    let secret = outside.path().join("file");
    let up = "../".repeat(40);
    let link = |target: &Path, name: &str| symlink(target, site.at(name)).unwrap();
    link(&secret, "absolute");
    link(Path::new(&format!("{up}{}", secret.display())), "a/b/relative");
    link(outside.path(), "folder");
    link(Path::new("/"), "a/root");
    link(Path::new(&up), "a/b/up");
    link(Path::new("/proc/self/root"), "magic");
    link(Path::new("loop"), "loop");
    let below = secret.strip_prefix("/").unwrap().display();
    for path in [
        "/absolute".to_owned(),
        "absolute".to_owned(),
        "/a/b/relative".to_owned(),
        "/folder/file".to_owned(),
        format!("/a/root/{below}"),
        format!("/a/b/up/{below}"),
        format!("/magic/{below}"),
        secret.display().to_string(),
        format!("{up}{below}"),
        format!("/a/b/c/{up}{below}"),
    ] {
        assert_eq!(site.denied(VICTIM, &path), NOT_FOUND, "{path}");
        assert_eq!(site.denied(0, &path), NOT_FOUND, "{path}");
    }
    assert_eq!(site.denied(VICTIM, "/loop"), NO_LINKS);
    for path in ["/a/root/inside", "/a/b/up/inside", "/a/b/c/../../../../inside", "//inside"] {
        let fetched = run(site.client(VICTIM).arg(path)).success();
        assert_eq!(fetched, INSIDE.as_bytes(), "{path}");
    }
    site.stop();
}

#[as_root_in_own_namespace]
fn links_in_proc_are_not_followed() {
    let server = Server::start(&["--mode", "0622", "--root", "/"]);
    let (programs, process) = (ForEverybody::new(), sleeper());
    let mut theirs = Command::new("setpriv");
    let uid = VICTIM.to_string();
    theirs.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "sleep", "1000"]);
    let theirs = Running::start(&mut theirs);
    let folders = [server.pid(), process.pid(), theirs.pid(), 1].map(|pid| pid.to_string());
    for folder in folders.iter().map(String::as_str).chain(["self", "thread-self"]) {
        for link in ["root/etc/passwd", "cwd", "exe", "fd/0", "fd/1", "fd/2", "fd/3", "ns/ipc"] {
            let path = format!("/proc/{folder}/{link}");
            for uid in [VICTIM, 0] {
                let refused = run(programs.client(server.key, uid).arg(&path));
                assert_eq!(refused.code(), Some(1), "{path}");
                assert_eq!(refused.stdout, b"", "{path}");
                let why = [NO_LINKS, DENIED, NOT_FOUND];
                assert!(why.iter().any(|why| refused.stderr.contains(why)));
            }
        }
    }
    for path in ["/dev/stdin", "/dev/fd/0", "/proc/self/maps", "/proc/thread-self/smaps"] {
        let refused = run(programs.client(server.key, VICTIM).arg(path));
        assert_eq!((refused.code(), &refused.stdout[..]), (Some(1), &b""[..]), "{path}");
    }
    assert!(!run(programs.client(server.key, VICTIM).arg("/proc/version")).success().is_empty());
    server.stop();
}

#[as_root_in_own_namespace]
fn unreadable_and_special_files_are_refused() {
    let site = Site::start(&[]);
    site.put("write-only", 0o222, (VICTIM, VICTIM), SECRET);
    site.put("nobodys", 0o000, (VICTIM, VICTIM), SECRET);
    site.put("group-only", 0o640, (0, 0), SECRET);
    fs::create_dir(site.at("closed")).unwrap();
    site.put("closed/file", 0o644, (0, 0), SECRET);
    fs::set_permissions(site.at("closed"), Permissions::from_mode(0o744)).unwrap();
    symlink("closed/file", site.at("through")).unwrap();
    for path in ["/write-only", "/nobodys", "/group-only", "/closed/file", "/through"] {
        assert_eq!(site.denied(VICTIM, path), DENIED, "{path}");
    }
    const SPECIAL: [&str; 4] = ["FIFO", "socket", "character device", "block device"];
    SPECIAL.iter().for_each(|kind| make_special(&site.at(kind), kind));
    for uid in [VICTIM, 0] {
        for kind in SPECIAL {
            assert_eq!(site.denied(uid, kind), format!("Is a {kind}, not a regular file"));
        }
        assert_eq!(site.denied(uid, "/file/../closed/."), NOT_A_FOLDER);
        assert_eq!(site.denied(uid, "/closed/."), if uid == 0 { FOLDER } else { DENIED });
        assert_eq!(site.denied(uid, "/closed"), FOLDER);
        assert_eq!(site.denied(uid, "/.."), FOLDER);
    }
    site.stop();
}

/// A file that is not regular, with permissions for everybody.
pub fn make_special(path: &Path, kind: &str) {
    let all = Mode::from_bits_truncate(0o666);
    match kind {
        "FIFO" => mknod(path, SFlag::S_IFIFO, all, 0).unwrap(),
        "socket" => drop(UnixListener::bind(path).unwrap()),
        "character device" => mknod(path, SFlag::S_IFCHR, all, makedev(1, 5)).unwrap(), // zero
        "block device" => mknod(path, SFlag::S_IFBLK, all, makedev(7, 0)).unwrap(),     // loop0
        _ => fs::create_dir(path).unwrap(),
    }
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
}
