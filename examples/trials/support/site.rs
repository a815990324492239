//! The place of a trial: programs, namespace and a folder, all of which it leaves as it found them.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mqfs::sys::exit_now;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use sysv_ipc::{Lock, Queue, SharedMemory};
use tempfile::TempDir;

use super::{DEADLINE, Namespace, Process, Programs, Report, Server, children_of, wait_for};

/// Where a trial takes place. Below its folder, `root` is served, `copies` is written to.
#[derive(Debug)]
pub struct Site {
    pub namespace: Namespace,
    programs: Programs,
    folder: TempDir,
}

impl Site {
    /// From here on the process adopts what its servers leave behind, so that it can be counted.
    pub fn new() -> Result<Self> {
        let namespace = Namespace::enter()?;
        set_child_subreaper(true).context("prctl")?;
        let programs = Programs::find()?;
        let folder = tempfile::tempdir().context("a temporary folder")?;
        for name in ["root", "copies", "errors"] {
            fs::create_dir(folder.path().join(name))?;
        }
        clean_up_on_signals(folder.path(), &namespace)?;
        Ok(Self { namespace, programs, folder })
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub fn copies(&self) -> PathBuf {
        self.folder.path().join("copies")
    }

    pub fn errors(&self) -> PathBuf {
        self.folder.path().join("errors")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What all servers said.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Puts a file where it is served as /NAME.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        fs::write(self.root().join(name), content).context("the file to be served")
    }

    pub fn server(&self, arguments: &[&str]) -> Result<Server> {
        go_on();
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = self.programs.command("mqfs-server");
        command.args(["--key", &self.namespace.key.to_string()]).args(arguments);
        Server::start(command.arg("--root").arg(self.root()), log)
    }

    /// `mqfs-client`, to be told more; what it says goes to the file.
    pub fn client(&self, errors: &Path) -> Result<Command> {
        go_on();
        let mut command = self.programs.command("mqfs-client");
        command.args(["--key", &self.namespace.key.to_string()]);
        command.stderr(File::create(errors).context("a file for errors")?);
        Ok(command)
    }

    /// A pass of `mqfs-reap`.
    pub fn start_reaper(&self) -> Result<Child> {
        go_on();
        let mut command = self.programs.command("mqfs-reap");
        command.stdout(Stdio::null()).spawn().context("mqfs-reap")
    }

    pub fn reap(&self) -> Result<()> {
        let mut reaper = self.start_reaper()?;
        let status = end_of(&mut reaper, DEADLINE).context("mqfs-reap does not end")?;
        ensure!(status.success(), "mqfs-reap: {status}");
        Ok(())
    }

    /// Waits for processes that came to us when their server died, and are no child's of ours.
    pub fn bury(&self, own: &[i32]) {
        for child in children_of(std::process::id() as i32) {
            if !own.contains(&child.pid) {
                let _ = waitpid(Pid::from_raw(child.pid), Some(WaitPidFlag::WNOHANG));
            }
        }
    }

    /// Counts what is left when every program has ended that was to end.
    pub fn count_left(&self, report: &mut Report) -> Result<()> {
        // A queue that its owner never used, because it was killed right after msgget, is an orphan
        // only after ten seconds.
        const GRACE: Duration = Duration::from_secs(14);
        self.reap()?;
        let gone = wait_for(GRACE, || {
            self.namespace.left().is_empty() || (self.reap().is_ok() && self.pause())
        });
        let queues = self.namespace.left();
        if !gone {
            report.wrong(format!("the reaper leaves {queues:?}"));
        }
        report.none("queues left", queues.len());
        report.none("semaphores left", self.namespace.semaphores_left());
        wait_for(DEADLINE / 6, || {
            self.bury(&[]);
            self.processes_left().is_empty()
        });
        report.none("processes left", self.processes_left().len());
        // It goes with the last process that has it.
        report.none("segments of shared memory left", self.namespace.segments_left());
        Ok(())
    }

    fn pause(&self) -> bool {
        thread::sleep(Duration::from_millis(200));
        false
    }

    fn processes_left(&self) -> Vec<Process> {
        children_of(std::process::id() as i32)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        abandon(self.folder.path(), &self.namespace);
    }
}

/// Waits for a program's end; None if it does not come in time.
pub fn end_of(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let mut status = None;
    wait_for(timeout, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    status
}

/// Ends every process that is ours, however it stands, and takes away what has our key or is in our
/// folder. Other queues go with the namespace, or are for the reaper.
fn abandon(folder: &Path, namespace: &Namespace) {
    wait_for(DEADLINE / 3, || {
        let children = children_of(std::process::id() as i32);
        for child in &children {
            child.signal(Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(child.pid), Some(WaitPidFlag::WNOHANG));
        }
        children.is_empty()
    });
    if let Ok(queue) = Queue::open(namespace.key) {
        let _ = queue.remove();
    }
    if let Ok(semaphore) = Lock::open(namespace.key) {
        let _ = semaphore.remove();
    }
    if let Ok(memory) = SharedMemory::open(namespace.key) {
        let _ = memory.remove();
    }
    let _ = fs::remove_dir_all(folder);
}

static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Starts nothing more, and says nothing more, once the trial was given up: leaves the end to the
/// thread that handles the signal.
pub fn go_on() {
    while GIVEN_UP.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// Whoever grows impatient must not leave stopped clients and a server behind.
fn clean_up_on_signals(folder: &Path, namespace: &Namespace) -> Result<()> {
    static PLACE: OnceLock<(PathBuf, Namespace)> = OnceLock::new();
    let place = PLACE.get_or_init(|| (folder.to_owned(), namespace.clone()));
    ctrlc::set_handler(|| {
        GIVEN_UP.store(true, Ordering::SeqCst);
        abandon(&place.0, &place.1);
        exit_now(130)
    })
    .context("cannot handle signals")
}
