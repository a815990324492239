//! The server under test.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sysv_ipc::Key;
use tempfile::TempDir;

use crate::{
    DEADLINE, Process, Running, children_of, clear, client, run, server_of, unique_key, wait_for,
    wait_until,
};

/// A server under a key of its own, ready for requests.
#[derive(Debug)]
pub struct Server {
    pub key: Key,
    running: Running,
    log: PathBuf,
    folder: Option<TempDir>,
    has_successor: bool,
}

impl Server {
    /// `mqfs-server` with these arguments, on a key that no other test has.
    pub fn start<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        Self::start_on(unique_key(), arguments)
    }

    pub fn start_on<S: AsRef<OsStr>>(key: Key, arguments: &[S]) -> Self {
        Self::start_as(key, server_of(key).args(arguments))
    }

    /// Any command that ends up as a server under this key.
    pub fn start_as(key: Key, command: &mut Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::start_logging_to(&folder.path().join("log"), key, command);
        server.folder = Some(folder);
        server
    }

    /// Any command that ends up as a server under this key, whose log is added to this file.
    pub fn start_logging_to(log: &Path, key: Key, command: &mut Command) -> Self {
        let stderr = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let running = Running::start(command.stdout(Stdio::piped()).stderr(stderr));
        let log = log.to_owned();
        let mut server = Self { key, running, log, folder: None, has_successor: false };
        let line = server.running.first_line();
        assert!(line.starts_with("mqfs-server: ready: key "), "{line:?}\n{}", server.log());
        server
    }

    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    pub fn process(&self) -> Process {
        Process::with_pid(self.pid()).expect("the server was not waited for")
    }

    /// The children that answer requests, and the one that removes orphans while it does.
    pub fn children(&self) -> Vec<i32> {
        children_of(self.pid())
    }

    /// The only child, once the one that removes orphans has ended.
    #[track_caller]
    pub fn only_child(&self) -> Process {
        let mut child = None;
        wait_until("there is one child", || {
            child = <[Process; 1]>::try_from(self.process().children()).ok();
            child.is_some()
        });
        child.unwrap()[0]
    }

    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    #[track_caller]
    pub fn freeze(&self) {
        self.running.freeze();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn client(&self) -> Command {
        client(self.key)
    }

    #[track_caller]
    pub fn fetch(&self, path: impl AsRef<OsStr>) -> Vec<u8> {
        run(self.client().arg(path)).success()
    }

    /// Leaves the queue under its key to the next server there, when this handle goes.
    pub fn leave_key(&mut self) {
        self.has_successor = true;
    }

    /// Ends this server, but leaves the queue under its key to the next server there.
    pub fn make_way(mut self) {
        self.leave_key();
    }

    /// `kill -9` of all its children. Returns how many there were.
    pub fn kill_children(&self) -> usize {
        let children = self.process().children();
        children.iter().filter(|child| child.signal(Signal::SIGKILL)).count()
    }

    /// `kill -9` of the server and all its children at one moment.
    pub fn kill_with_children(&mut self) {
        self.process().freeze(); // so that it forks no more
        self.kill_children();
        self.running.kill();
    }

    #[track_caller]
    pub fn wait_until_idle(&self) {
        assert!(self.settles(), "children stay");
    }

    /// Waits until no request is under way; false if that takes too long.
    pub fn settles(&self) -> bool {
        wait_for(DEADLINE, || self.children().is_empty())
    }

    /// Stops a server below `unshare --fork`, and fails the test unless it ends well.
    #[track_caller]
    pub fn stop_inner(mut self) {
        self.process().children().iter().for_each(|inner| _ = inner.signal(Signal::SIGTERM));
        let status = self.running.wait();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Stops it now, rather than when its handle goes. Returns its log.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.end();
        self.log()
    }

    /// Stops it as a service manager would, and fails the test unless it ends well. A server whose
    /// end the test has seen is not judged again.
    #[track_caller]
    fn end(&mut self) {
        let is_judged = self.running.is_judged;
        // Once somebody has waited for it, its pid may belong to another process.
        if !is_judged {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGCONT);
            // Not SIGKILL, so that it ends its children too.
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        }
        wait_for(DEADLINE, || self.running.has_ended());
        if !self.has_successor {
            clear(self.key);
        }
        if !is_judged && !std::thread::panicking() {
            let status = self.running.ended();
            assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", self.log());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Running {
    /// The first line of its standard output, which must be piped. Reads no more than that.
    #[track_caller]
    pub fn first_line(&mut self) -> String {
        let stdout = self.child().stdout.take().unwrap();
        let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(DEADLINE).unwrap();
        assert_eq!(poll(&mut ready, timeout), Ok(1), "the program does not say that it is ready");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        line
    }
}
