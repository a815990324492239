//! The place of a soak test: programs, namespace and a folder, which it leaves as it found them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mqfs::sys::exit_now;
use mqfs_kit::{Process, Running, Server, build, children_of, clear, program, wait_for};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::report::Report;

/// How long anything may take that has no time limit of its own.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// `root` is served, and clients write to `copies`.
const FOLDERS: [&str; 4] = ["root", "copies", "errors", "spare"];

#[derive(Debug)]
pub struct Site {
    pub namespace: Namespace,
    folder: TempDir,
}

impl Site {
    /// From here on this process adopts the children of servers that died, so that it can count
    /// them.
    pub fn new() -> Result<Self> {
        let namespace = Namespace::enter()?;
        set_child_subreaper(true).context("prctl")?;
        build(&["--bins"]);
        let folder = tempfile::tempdir().context("a temporary folder")?;
        for name in FOLDERS {
            fs::create_dir(folder.path().join(name))?;
        }
        clean_up_on_signals(folder.path(), &namespace)?;
        Ok(Self { namespace, folder })
    }

    /// One of [`FOLDERS`].
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The log of all servers so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Makes a file that is served as /NAME.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        fs::write(self.folder("root").join(name), content).context("the file to be served")
    }

    /// One of the programs under our key.
    fn program(&self, name: &str) -> Command {
        park_if_interrupted();
        let mut command = program(name);
        command.args(["--key", &self.namespace.key.to_string()]);
        command
    }

    pub fn server(&self, arguments: &[&str]) -> Server {
        let mut command = self.program("mqfs-server");
        command.args(arguments).arg("--root").arg(self.folder("root"));
        Server::start_logging_to(&self.folder("log"), self.namespace.key, &mut command)
    }

    /// `mqfs-client`, without further arguments. Its standard error goes to the file.
    pub fn client(&self, errors: &Path) -> Result<Command> {
        let mut command = self.program("mqfs-client");
        command.stderr(File::create(errors).context("a file for errors")?);
        Ok(command)
    }

    /// A pass of `mqfs-reap`.
    pub fn start_reaper(&self) -> Running {
        park_if_interrupted();
        Running::start(program("mqfs-reap").stdout(Stdio::null()))
    }

    pub fn reap(&self) -> Result<()> {
        let status = self.start_reaper().wait();
        ensure!(status.success(), "mqfs-reap: {status}");
        Ok(())
    }

    /// Waits for the zombies that we adopted when their server died. `own` are our own children.
    pub fn wait_for_adopted(&self, own: &[i32]) {
        for child in children_of(own_pid()) {
            if !own.contains(&child) {
                let _ = waitpid(Pid::from_raw(child), Some(WaitPidFlag::WNOHANG));
            }
        }
    }

    /// Counts what is left once every program has ended.
    pub fn count_left(&self, report: &mut Report) -> Result<()> {
        // A client killed right after msgget leaves a queue without a lease. The reaper takes it
        // for an orphan only after ten seconds.
        const GRACE: Duration = Duration::from_secs(14);
        self.reap()?;
        wait_for(GRACE, || {
            if self.namespace.queues_left().is_empty() {
                return true;
            }
            let _ = self.reap();
            thread::sleep(Duration::from_millis(200));
            false
        });
        let queues = self.namespace.queues_left();
        report.check(queues.is_empty(), || format!("the reaper leaves {queues:?}"));
        report.none("queues left", queues.len());
        report.none("semaphores left", self.namespace.left("sem"));
        wait_for(DEADLINE / 6, || {
            self.wait_for_adopted(&[]);
            children_of(own_pid()).is_empty()
        });
        report.none("processes left", children_of(own_pid()).len());
        // A removed segment goes with the last process that has attached it.
        report.none("segments of shared memory left", self.namespace.left("shm"));
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        end_everything(self.folder.path(), &self.namespace);
    }
}

pub fn own_pid() -> i32 {
    std::process::id() as i32
}

/// Kills all our children, and removes what has our key or is in our folder. Other queues go with
/// the namespace, or are left to the reaper.
fn end_everything(folder: &Path, namespace: &Namespace) {
    wait_for(DEADLINE / 3, || {
        let children = children_of(own_pid());
        for child in children.iter().filter_map(|&child| Process::with_pid(child)) {
            child.signal(Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(child.pid), Some(WaitPidFlag::WNOHANG));
        }
        children.is_empty()
    });
    clear(namespace.key);
    let _ = fs::remove_dir_all(folder);
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// After a signal, starts and prints nothing more: the thread that handles signals ends the
/// program.
pub fn park_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// An interrupted soak test must not leave stopped clients and a server behind.
fn clean_up_on_signals(folder: &Path, namespace: &Namespace) -> Result<()> {
    static PLACE: OnceLock<(PathBuf, Namespace)> = OnceLock::new();
    let place = PLACE.get_or_init(|| (folder.to_owned(), namespace.clone()));
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        end_everything(&place.0, &place.1);
        exit_now(130)
    })
    .context("cannot handle signals")
}
