//! The place of all measurements: a folder on tmpfs with programs and files, a user without
//! privileges, and an IPC namespace.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use mqfs_kit::{SOMEBODY, build, build_folder, enter_own_namespace, write_noise};
use nix::sys::statvfs::statvfs;
use nix::unistd::{geteuid, getpid};
use sysv_ipc::{Key, QueueLimits};
use tempfile::TempDir;

use crate::options::Options;

/// The bytes of the small file.
pub(crate) const SMALL: u64 = 100;

#[derive(Debug)]
pub(crate) struct Stage {
    folder: TempDir,
    /// A folder on a disk, unless the system keeps temporary files elsewhere.
    disk: TempDir,
    /// The user of the programs, if it is not the user of this one.
    uid: Option<u32>,
    own_namespace: bool,
    keys: Cell<i32>,
}

static STOPPED: AtomicBool = AtomicBool::new(false);

impl Stage {
    pub(crate) fn set(options: &Options) -> Self {
        ctrlc::set_handler(|| STOPPED.store(true, Ordering::Relaxed)).expect("a signal handler");
        let uid = geteuid().is_root().then_some(SOMEBODY);
        let own_namespace = enter_own_namespace();
        if uid.is_some() && !own_namespace {
            eprintln!("speed: no IPC namespace of its own");
        }
        let folder = folder_for(options.size);
        let disk = TempDir::with_prefix_in("mqfs-speed.", "/var/tmp").expect("a folder");
        let stage = Self { folder, disk, uid, own_namespace, keys: Cell::new(0) };
        stage.open_to_somebody(stage.folder.path());
        stage.open_to_somebody(stage.disk());
        build(&["--example", "textbook_server", "--example", "textbook_client"]);
        stage.fill(options.size).expect("the programs, examples too, and room for the files");
        stage
    }

    /// Copies the programs, so that the user may run them, and makes the files.
    fn fill(&self, size: u64) -> io::Result<()> {
        for name in ["bin", "data", "out"] {
            fs::create_dir(self.path(name))?;
            self.open_to_somebody(&self.path(name));
        }
        if let Some(uid) = self.uid {
            std::os::unix::fs::chown(self.path("out"), Some(uid), Some(uid))?;
        }
        let built = build_folder();
        for name in
            ["mqfs-server", "mqfs-client", "examples/textbook_server", "examples/textbook_client"]
        {
            let name_alone = Path::new(name).file_name().expect("a name");
            fs::copy(built.join(name), self.path("bin").join(name_alone))?;
        }
        fs::copy(std::env::current_exe()?, self.path("bin/speed"))?;
        if let Some(before) = std::env::var_os("MQFS_BEFORE").map(PathBuf::from) {
            fs::create_dir(self.path("bin/before"))?;
            self.open_to_somebody(&self.path("bin/before"));
            for name in ["mqfs-server", "mqfs-client", "speed"] {
                fs::copy(before.join(name), self.path("bin/before").join(name))?;
            }
        }
        self.make_file("big", size)?;
        self.make_file("small", SMALL)
    }

    /// Makes a file to be served.
    pub(crate) fn make_file(&self, name: &str, size: u64) -> io::Result<()> {
        write_noise(&self.file(name), size)
    }

    fn open_to_somebody(&self, folder: &Path) {
        if self.uid.is_some() {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("our own folder");
        }
    }

    /// The user of the programs, if it is not the user of this one.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// The path of something on this stage.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of a file to be served.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path("data").join(name)
    }

    /// The folder of the files to be served.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The folder of files that are on a disk.
    pub(crate) fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// Whether there are older programs, in `bin/before`: those of the folder `MQFS_BEFORE`.
    pub(crate) fn has_before(&self) -> bool {
        self.path("bin/before").exists()
    }

    /// A key that no other server here has.
    pub(crate) fn key(&self) -> Key {
        self.keys.set(self.keys.get() + 1);
        Key::new(0x5300_0000 | ((getpid().as_raw() * 32 + self.keys.get()) & 0xff_ffff))
    }

    /// A program, to be run as the user: one of mqfs's, an example, or any other. Its standard
    /// output is thrown away.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        if STOPPED.load(Ordering::Relaxed) {
            eprintln!("speed: stopped");
            resume_unwind(Box::new("stopped")); // destructors end servers and remove the folder
        }
        let own = self.path("bin").join(program.as_ref());
        let mut command = if own.exists() { Command::new(own) } else { Command::new(program) };
        // A process group of its own: a signal from the terminal reaches only this process, which
        // ends the others in order.
        command.env_remove("MQFS_KEY").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// A program and its arguments, separated by blanks, which they must not contain.
    pub(crate) fn line(&self, line: &str) -> Command {
        let mut words = line.split(' ');
        let mut command = self.command(words.next().expect("a program"));
        command.args(words);
        command
    }

    /// One of this program's workers.
    pub(crate) fn worker(&self, role: &str) -> Command {
        self.worker_of("speed", role)
    }

    /// The same of another build of this program.
    pub(crate) fn worker_of(&self, program: &str, role: &str) -> Command {
        let mut command = self.command(program);
        command.args(["worker", role]);
        command
    }

    /// Runs a worker, and returns its output.
    ///
    /// # Panics
    /// If it fails.
    pub(crate) fn output_of(&self, worker: &mut Command) -> String {
        let output =
            worker.stdout(Stdio::piped()).spawn().and_then(|child| child.wait_with_output());
        let output = output.expect("the worker starts");
        assert!(output.status.success(), "{worker:?}: {}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// Who runs the programs, and where.
    pub(crate) fn description(&self) -> String {
        let limits = QueueLimits::current().expect("limits");
        let who = match self.uid {
            Some(uid) => format!("as uid {uid} without privileges, started by root"),
            None => format!("as uid {}", geteuid()),
        };
        let namespace = match self.own_namespace {
            true => "in an IPC namespace of their own",
            false => "in the IPC namespace of all others",
        };
        let QueueLimits { msgmnb, msgmax, .. } = limits;
        format!("{who}, {namespace}, with msgmnb {msgmnb} and msgmax {msgmax}")
    }
}

/// A folder on tmpfs, if there is one with room for three large files.
fn folder_for(size: u64) -> TempDir {
    let shm = Path::new("/dev/shm");
    let room = statvfs(shm).map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
    if room > 3 * size + (64 << 20)
        && let Ok(folder) = TempDir::with_prefix_in("mqfs-speed.", shm)
    {
        return folder;
    }
    eprintln!("speed: not on tmpfs, for want of room in {}", shm.display());
    TempDir::with_prefix("mqfs-speed.").expect("a folder")
}

/// The path of an installed program, also of a daemon in sbin.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
