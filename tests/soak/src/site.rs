//! The place of a soak test: its programs, its folder, and what must not be left there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use mqfs_kit::{DEADLINE, Running, Server, children_of, listed, program, server_of, wait_for};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use sysv_ipc::Key;

use crate::report::Report;

pub const KEY: Key = Key::new(0x5100_0001);

/// `root` is served, and clients write to `copies`.
const FOLDERS: [&str; 4] = ["root", "copies", "errors", "spare"];

#[derive(Debug)]
pub struct Site {
    folder: PathBuf,
}

impl Site {
    pub fn new(folder: PathBuf) -> Result<Self> {
        for name in FOLDERS {
            fs::create_dir(folder.join(name)).context("the folders")?;
        }
        Ok(Self { folder })
    }

    /// One of [`FOLDERS`].
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The log of all servers so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder("log")).unwrap_or_default()).into_owned()
    }

    pub fn server(&self, arguments: &[&str]) -> Server {
        let mut command = server_of(KEY);
        command.args(arguments).arg("--root").arg(self.folder("root"));
        Server::start_logging_to(&self.folder("log"), KEY, &mut command)
    }

    /// `mqfs-client`, without further arguments. Its standard error goes to the file.
    pub fn client(&self, errors: &Path) -> Result<Command> {
        let mut command = mqfs_kit::client(KEY);
        command.stderr(File::create(errors).context("a file for errors")?);
        Ok(command)
    }

    /// Waits for the zombies that we adopted when their server died. `own` are our own children.
    pub fn wait_for_adopted(&self, own: &[i32]) {
        for child in adopted(own) {
            let _ = waitpid(Pid::from_raw(child), Some(WaitPidFlag::WNOHANG));
        }
    }

    /// Counts what is left once every program has ended.
    pub fn count_left(&self, report: &mut Report) {
        // A client killed right after msgget leaves a queue without a lease. The reaper takes it
        // for an orphan only after ten seconds.
        wait_for(Duration::from_secs(14), || {
            let reaped = start_reaper().wait();
            report.check(reaped.success(), || format!("mqfs-reap: {reaped}"));
            listed("msg") == 0
        });
        wait_for(DEADLINE / 12, || {
            self.wait_for_adopted(&[]);
            adopted(&[]).is_empty()
        });
        report.none("processes left", adopted(&[]).len());
        // A removed segment goes with the last process that has attached it.
        for (kind, name) in [("msg", "queues"), ("sem", "semaphores"), ("shm", "segments")] {
            report.none(&format!("{name} left"), listed(kind));
        }
    }
}

/// Our children apart from `own`.
pub fn adopted(own: &[i32]) -> Vec<i32> {
    let mut children = children_of(std::process::id() as i32);
    children.retain(|child| !own.contains(child));
    children
}

/// A pass of `mqfs-reap`.
pub fn start_reaper() -> Running {
    Running::start(program("mqfs-reap").stdout(Stdio::null()))
}
