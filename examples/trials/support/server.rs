//! A server on trial.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::{DEADLINE, Process, children_of, end_of, wait_for};

/// A server that can be asked, ended with what holds it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub process: Process,
}

impl Server {
    /// Starts it, and waits until it is ready.
    pub fn start(command: &mut Command, log: File) -> Result<Self> {
        let mut child =
            command.stdout(Stdio::piped()).stderr(log).spawn().context("mqfs-server")?;
        let stdout = child.stdout.take().context("its standard output")?;
        let process = Process::with_pid(child.id() as i32).context("/proc is needed")?;
        let server = Self { child, process };
        let line = first_line(stdout)?;
        ensure!(line.starts_with("mqfs-server: ready: "), "mqfs-server did not start: {line:?}");
        Ok(server)
    }

    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    pub fn children(&self) -> Vec<Process> {
        children_of(self.pid())
    }

    /// Waits for its end; None if it does not come in time.
    pub fn end(&mut self, timeout: Duration) -> Option<ExitStatus> {
        end_of(&mut self.child, timeout)
    }

    /// `kill -9` of it alone.
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.end(DEADLINE);
    }

    /// `kill -9` of it and all its children at one moment, as of a whole service.
    pub fn kill_all(&mut self) {
        self.process.freeze(); // it forks no more
        for child in self.children() {
            child.signal(Signal::SIGKILL);
        }
        self.kill();
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self, timeout: Duration) -> Result<()> {
        self.process.signal(Signal::SIGTERM);
        match self.end(timeout) {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the server ended with {status}"),
            None => bail!("the server did not stop"),
        }
    }

    /// Waits until no request is under way.
    pub fn settles(&self) -> bool {
        wait_for(DEADLINE, || self.children().is_empty())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill_all();
        }
    }
}

fn first_line(stdout: ChildStdout) -> Result<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line);
    });
    receiver.recv_timeout(DEADLINE).context("mqfs-server is not ready in time")
}
