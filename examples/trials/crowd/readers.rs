//! Clients whose output is read here, all at once.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::READING;
use crate::support::{DEADLINE, Process, Report, end_of};

/// An `mqfs-client` that writes into a pipe.
#[derive(Debug)]
pub struct Client {
    child: Child,
    pub process: Process,
    stdout: ChildStdout,
    /// The file with what it says.
    pub errors: PathBuf,
    /// How much was read, all of it right.
    at: usize,
}

impl Client {
    /// Of a command that is to be told only what to fetch.
    pub fn start(command: &mut Command, errors: PathBuf) -> Result<Self> {
        command.args(["--verbose", "--timeout", "2m", "/file"]).stdout(Stdio::piped());
        let mut child = command.spawn().context("mqfs-client")?;
        let stdout = child.stdout.take().context("its output")?;
        let process = Process::with_pid(child.id() as i32).context("/proc")?;
        Ok(Self { child, process, stdout, errors, at: 0 })
    }

    /// `kill -9`, dead and buried.
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        end_of(&mut self.child, DEADLINE);
    }

    /// Reads some more. None at the end; an error if it is not what it should be.
    fn read(&mut self, content: &[u8], buffer: &mut [u8]) -> Result<Option<()>, String> {
        let read = self.stdout.read(buffer).map_err(|error| error.to_string())?;
        if content.get(self.at..self.at + read) != Some(&buffer[..read]) {
            return Err(format!("WRONG BYTES behind {}", self.at));
        }
        self.at += read;
        Ok((read > 0).then_some(()))
    }

    /// Its exit status and length, once its output has ended.
    fn finish(mut self, content: &[u8]) -> Result<(), String> {
        let status = end_of(&mut self.child, DEADLINE).ok_or("it hung")?;
        match self.at == content.len() {
            true if status.success() => Ok(()),
            _ => {
                let said = fs::read_to_string(&self.errors).unwrap_or_default();
                Err(format!("{status} after {} bytes: {said:?}", self.at))
            }
        }
    }
}

/// Reads what they write, to the end of each. How many completed, and right.
pub fn read_all(mut clients: Vec<Client>, content: &[u8], report: &mut Report) -> usize {
    let mut completed = 0;
    let mut buffer = vec![0; 64 << 10];
    let start = Instant::now();
    while !clients.is_empty() && start.elapsed() < READING {
        for at in readable(&clients).into_iter().rev() {
            let outcome = match clients[at].read(content, &mut buffer) {
                Ok(Some(())) => continue,
                Ok(None) => clients.swap_remove(at).finish(content),
                Err(wrong) => {
                    clients.swap_remove(at).kill();
                    Err(wrong)
                }
            };
            match outcome {
                Ok(()) => completed += 1,
                Err(wrong) => report.wrong(format!("a client: {wrong}")),
            }
        }
    }
    for mut late in clients {
        report.wrong(format!("a client hung after {} bytes", late.at));
        late.kill();
    }
    completed
}

/// Which of them have something to read, or have ended.
fn readable(clients: &[Client]) -> Vec<usize> {
    let mut polled: Vec<_> = clients
        .iter()
        .map(|client| PollFd::new(client.stdout.as_fd(), PollFlags::POLLIN))
        .collect();
    let _ = poll(&mut polled, PollTimeout::from(1000_u16));
    let ready = |(at, polled): (usize, &PollFd<'_>)| polled.any().unwrap_or(true).then_some(at);
    polled.iter().enumerate().filter_map(ready).collect()
}
