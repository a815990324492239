//! Links, special files, and paths that another user swaps meanwhile: the server serves only
//! regular files below the root that the caller may read, and no child blocks.

use std::fs::{self};
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::TempDir;

use crate::support::session::{RawSession, fetch};
use crate::support::*;

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
    let theirs = Running::start(&mut as_uid(VICTIM, Command::new("sleep").arg("1000")));
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
}

#[as_root_in_own_namespace]
fn unreadable_and_special_files_are_refused() {
    let site = Site::start(&[]);
    site.put("write-only", 0o222, (VICTIM, VICTIM), SECRET);
    site.put("nobodys", 0o000, (VICTIM, VICTIM), SECRET);
    site.put("group-only", 0o640, (0, 0), SECRET);
    fs::create_dir(site.at("closed")).unwrap();
    site.put("closed/file", 0o644, (0, 0), SECRET);
    set_mode(site.at("closed"), 0o744);
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
fn make_special(path: &Path, kind: &str) {
    let all = Mode::from_bits_truncate(0o666);
    match kind {
        "FIFO" => mknod(path, SFlag::S_IFIFO, all, 0).unwrap(),
        "socket" => drop(UnixListener::bind(path).unwrap()),
        "character device" => mknod(path, SFlag::S_IFCHR, all, makedev(1, 5)).unwrap(), // zero
        "block device" => mknod(path, SFlag::S_IFBLK, all, makedev(7, 0)).unwrap(),     // loop0
        _ => fs::create_dir(path).unwrap(),
    }
    set_mode(path, 0o777);
}

/// A server, and below its root a folder in which the attacker may rename.
fn site() -> Site {
    let site = Site::start(&[]);
    fs::create_dir(site.at("moving")).unwrap();
    chown(site.at("moving"), Some(ATTACKER), Some(ATTACKER)).unwrap();
    site.put("moving/file", 0o644, (ATTACKER, ATTACKER), INSIDE);
    site
}

/// The attacker renames over and over.
fn over_and_over(rename: impl Fn() -> Result<(), Errno>) -> Attack {
    Attack::start(ATTACKER, || {
        loop {
            rename()?;
        }
    })
}

fn exchange(one: &Path, other: &Path) -> Result<(), Errno> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
}

/// Requests a path many times, until it was both served and refused. Refusals must have this
/// reason.
#[track_caller]
fn fetch_meanwhile(site: &Site, attack: &mut Attack, path: &str, reason: &str) {
    // A rename also counts as a change.
    let warning = format!("mqfs-client: {path}: warning: the file changed while it was read");
    let refusal = format!("mqfs-client: {path}: {reason}");
    // In a session, and in requests of their own.
    for at_once in [40, 1] {
        let (mut fetched, mut refused) = (0, 0);
        wait_until("it was there, and it was not, many times", || {
            let outcome = run(site.client(VICTIM).args(vec![path; at_once]));
            let served = outcome.stdout.len() / INSIDE.len();
            assert_eq!(String::from_utf8_lossy(&outcome.stdout), INSIDE.repeat(served), "{path}");
            let lines = outcome.stderr.lines().filter_map(|line| line.split(" (").next());
            let complaints: Vec<_> = lines.filter(|&line| line != warning).collect();
            assert_eq!(complaints, vec![&refusal; at_once - served]);
            fetched += served;
            refused += at_once - served;
            fetched + refused >= 40 + 4 * at_once && fetched > 0 && refused > 0
        });
    }
    attack.stop();
}

#[as_root_in_own_namespace]
fn swapping_a_folder_with_a_link_does_not_lead_out_of_the_root() {
    let (site, outside) = (site(), outside());
    let (folder, link) = (site.at("moving/folder"), site.at("moving/link"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), INSIDE).unwrap();
    let up = format!("{}{}", "../".repeat(20), outside.path().display());
    for target in [outside.path(), Path::new(&up), Path::new("/proc/self/cwd")] {
        symlink(target, &link).unwrap();
        let mut swapping = over_and_over(|| exchange(&folder, &link));
        fetch_meanwhile(&site, &mut swapping, "/moving/folder/file", NOT_FOUND);
        // The attacker may have stopped in either state.
        let link = if link.is_symlink() { &link } else { &folder };
        fs::remove_file(link).unwrap();
        if link.file_name() == folder.file_name() {
            fs::rename(site.at("moving/link"), &folder).unwrap();
        }
    }
    site.stop();
}

/// A process that waits for a reader of a FIFO.
fn writer(fifo: &PathBuf) -> Running {
    Running::start(Command::new("sh").args(["-c", r#"echo content > "$1""#, "sh"]).arg(fifo))
}

#[as_root_in_own_namespace]
fn a_special_file_swapped_in_is_not_opened_and_blocks_nobody() {
    let site = site();
    for kind in ["FIFO", "socket", "character device", "block device", "folder"] {
        let (file, other, itself) =
            (site.at("moving/file"), site.at("moving/other"), site.at("itself"));
        make_special(&other, kind);
        let waiting = (kind == "FIFO").then(|| {
            fs::hard_link(&other, &itself).unwrap();
            writer(&itself)
        });
        let refusal = match kind {
            "folder" => "Is a directory".to_owned(),
            kind => format!("Is a {kind}, not a regular file"),
        };
        let mut swapping = over_and_over(|| exchange(&file, &other));
        fetch_meanwhile(&site, &mut swapping, "/moving/file", &refusal);
        if let Some(mut waiting) = waiting {
            assert!(!waiting.has_ended(), "its writer was disturbed");
            assert_eq!(fs::read(&itself).unwrap(), b"content\n");
            waiting.wait();
        }
        if !file.is_file() {
            exchange(&file, &other).unwrap();
        }
        fs::remove_file(&other).or_else(|_| fs::remove_dir(&other)).unwrap();
    }
    site.stop();
}

#[as_root_in_own_namespace]
fn a_file_that_is_exchanged_with_one_outside_is_never_denied() {
    let (site, outside) = (Site::start(&[]), public_folder());
    let other = outside.path().join("file");
    fs::write(&other, "another").unwrap();
    fs::write(site.at("small"), "small").unwrap();
    let _exchanges = Attack::start(0, || {
        loop {
            exchange(&site.at("small"), &other)?;
            thread::sleep(Duration::from_micros(500));
        }
    });
    let mut session = RawSession::start(site.requests(), &fetch("/small"));
    session.answer().unwrap();
    for _ in 0..5_000 {
        session.answer_to(&fetch("/small")).unwrap();
    }
}
