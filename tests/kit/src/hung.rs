//! A FUSE file system that never answers one of its requests: <linux/fuse.h>.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{as_root_in_own_namespace, fork_child, run};

/// What it never answers. The paths are `/file`, or `/` where it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    Lookup = LOOKUP as isize,
    Stat = GETATTR as isize,
    Open = OPEN as isize,
    Read = READ as isize,
    Close = FLUSH as isize,
    /// `/`
    List = READDIR as isize,
    /// `/`
    StatOfTop = 1000,
    /// Anything: its daemon is stopped.
    All = 1001,
    /// Anything, once a temporary name was looked up.
    New = 1002,
}

/// A file system with `/file` and `/good`, which contain their names. It goes with its handle.
#[derive(Debug)]
pub struct HungMount {
    daemon: Pid,
    folder: PathBuf,
}

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const WITHOUT_ANSWER: [u32; 4] = [2, 36, 38, 42]; // FORGET, INTERRUPT, DESTROY, BATCH_FORGET

const TOP: u64 = 1;
const NAMES: [&str; 2] = ["file", "good"]; // the nodes 2 and 3

/// Like [`as_root_in_own_namespace()`]. The test, and what it starts, may mount file systems of its
/// own. Skips it, and says so, where it may not.
pub fn as_root_with_mounts(test: impl FnOnce() + Send + 'static) {
    as_root_in_own_namespace(|| {
        let can = unshare(CloneFlags::CLONE_NEWNS).is_ok()
            && Path::new("/dev/fuse").exists()
            && run(Command::new("mount").args(["--make-rprivate", "/"])).status.success();
        if !can {
            return eprintln!("skipped: cannot mount, or no /dev/fuse");
        }
        test();
    });
}

impl HungMount {
    /// Mounts it on a new folder.
    pub fn on(folder: &Path, unanswered: Unanswered) -> Self {
        fs::create_dir(folder).unwrap();
        let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = "fd=0,rootmode=40755,user_id=0,group_id=0,allow_other";
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", options, "hung"]).arg(folder);
        let mounted = Command::spawn(mount.stdin(fuse.try_clone().unwrap())).unwrap().wait();
        assert!(mounted.unwrap().success());
        let test = mqfs::sys::getpid();
        let daemon = fork_child(|| serve(&fuse, unanswered, test)).unwrap();
        let mount = Self { daemon, folder: folder.to_owned() };
        fs::metadata(folder.join("good")).unwrap();
        if unanswered == Unanswered::All {
            kill(daemon, Signal::SIGSTOP).unwrap();
        }
        mount
    }
}

impl Drop for HungMount {
    fn drop(&mut self) {
        let _ = kill(self.daemon, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.daemon, None);
        run(Command::new("umount").args(["--force", "--lazy"]).arg(&self.folder));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Serves until the test ends, for two minutes at most: the test may wait for what is unanswered.
/// The end of its daemon ends the file system, and every wait for it.
fn serve(mut fuse: &File, unanswered: Unanswered, test: sysv_ipc::Pid) -> Infallible {
    mqfs::sys::signals::send_when_parent_dies(Signal::SIGKILL, test).unwrap();
    nix::unistd::alarm::set(120);
    let mut request = vec![0; 1 << 18];
    loop {
        let Ok(length @ 40..) = fuse.read(&mut request) else { mqfs::sys::exit_now(0) };
        let text = &request[40..length];
        let number = |at| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let long = |at| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
        let (operation, mut node) = (number(4), long(16));
        if operation == LOOKUP {
            let is_it = |name: &&str| text == [name.as_bytes(), b"\0"].concat();
            node = NAMES.iter().position(is_it).map_or(0, |at| at as u64 + 2);
        }
        let is_unanswered = match unanswered {
            Unanswered::StatOfTop => operation == GETATTR && node == TOP,
            Unanswered::List => operation == READDIR,
            other => operation == other as u32 && node == 2,
        };
        if is_unanswered || WITHOUT_ANSWER.contains(&operation) {
            continue;
        }
        let (errno, answer) = match operation {
            LOOKUP if node == 0 => (libc::ENOENT, vec![]),
            LOOKUP => (0, [longs(&[node, 0, 0, 0, 0]), attributes(node)].concat()),
            GETATTR => (0, [longs(&[0, 0]), attributes(node)].concat()),
            INIT => (0, init()),
            OPEN => (0, longs(&[0, 1])), // FOPEN_DIRECT_IO
            OPENDIR => (0, longs(&[0, 0])),
            READ if long(48) == 0 => (0, NAMES[node as usize - 2].into()),
            READDIR if long(48) == 0 => (0, entries()),
            READ | READDIR | FLUSH | RELEASE | RELEASEDIR => (0, vec![]),
            _ => (libc::ENOSYS, vec![]),
        };
        let head = [16 + answer.len() as u32, -errno as u32].map(u32::to_ne_bytes).concat();
        let _ = fuse.write(&[&head[..], &request[8..16], &answer].concat());
        if unanswered == Unanswered::New && operation == LOOKUP && text.ends_with(b".part\0") {
            let _ = nix::sys::signal::raise(Signal::SIGSTOP);
        }
    }
}

fn longs(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// `struct fuse_attr`, valid for no time.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == TOP { (0o40_755, 0) } else { (0o100_644, 4) };
    let rest = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat();
    [longs(&[node, size, 0, 0, 0, 0]), rest].concat()
}

/// `struct fuse_init_out`, of version 7.31.
fn init() -> Vec<u8> {
    let mut answer = [7_u32, 31, 65_536, 0, 0, 131_072, 1].map(u32::to_ne_bytes).concat();
    answer.resize(64, 0);
    answer
}

/// Two of `struct fuse_dirent`.
fn entries() -> Vec<u8> {
    let entry = |(at, name): (usize, &&str)| {
        let place = at as u64 + 2;
        let kind = [4, 8].map(u32::to_ne_bytes).concat(); // the name's length, DT_REG
        [longs(&[place, place]), kind, name.as_bytes().to_vec(), vec![0; 4]].concat()
    };
    NAMES.iter().enumerate().flat_map(entry).collect()
}
