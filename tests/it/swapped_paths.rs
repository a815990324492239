//! Another user swaps, moves and replaces folders and files as fast as possible while the server
//! resolves a path. A client gets the file's bytes or a refusal, and no child blocks.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::root_confinement::make_special;
use crate::support::session::{RawSession, fetch};
use crate::support::{
    ATTACKER, Attack, Running, Site, VICTIM, as_root_in_own_namespace, public_folder, run,
    wait_until,
};

const INSIDE: &str = "inside";
const SECRET: &str = "secret";

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

/// Requests a path hundreds of times, until it was both served and refused. Refusals must have this
/// reason.
#[track_caller]
fn fetch_meanwhile(site: &Site, attack: &mut Attack, path: &str, reason: &str) {
    const AT_ONCE: usize = 40;
    // A rename also counts as a change.
    let warning = format!("mqfs-client: {path}: warning: the file changed while it was read");
    let refusal = format!("mqfs-client: {path}: {reason}");
    let (mut fetched, mut refused) = (0, 0);
    wait_until("it was there, and it was not, hundreds of times", || {
        let outcome = run(site.client(VICTIM).args([path; AT_ONCE]));
        let served = outcome.stdout.len() / INSIDE.len();
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), INSIDE.repeat(served), "{path}");
        let lines = outcome.stderr.lines().filter_map(|line| line.split(" (").next());
        let complaints: Vec<_> = lines.filter(|&line| line != warning).collect();
        assert_eq!(complaints, vec![&refusal; AT_ONCE - served]);
        fetched += served;
        refused += AT_ONCE - served;
        fetched + refused >= 5 * AT_ONCE && fetched > 0 && refused > 0
    });
    attack.stop();
}

const NOT_FOUND: &str = "No such file or directory";

#[as_root_in_own_namespace]
fn swapping_a_folder_with_a_link_does_not_lead_out_of_the_root() {
    let (site, outside) = (site(), public_folder());
    fs::write(outside.path().join("file"), SECRET).unwrap();
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
        let removed = fs::remove_file(&other).or_else(|_| fs::remove_dir(&other));
        removed.unwrap();
    }
    site.stop();
}

#[as_root_in_own_namespace]
fn a_file_that_is_exchanged_with_one_outside_is_never_denied() {
    let (site, outside) = (Site::start(&[]), public_folder());
    let other = outside.path().join("file");
    fs::write(&other, "another").unwrap();
    fs::write(site.at("small"), "small").unwrap();
    let exchanges = Attack::start(0, || {
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
    drop(exchanges);
    site.server.stop();
}
