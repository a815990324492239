//! Clients whose output one thread reads, all at once.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use mqfs_kit::{Process, Running};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::READING;
use crate::report::Report;

/// An `mqfs-client` that writes into a pipe.
#[derive(Debug)]
pub struct Client {
    running: Running,
    pub process: Process,
    stdout: ChildStdout,
    /// The file with its standard error.
    pub errors: PathBuf,
    /// How many bytes were read, all of them right.
    at: usize,
}

impl Client {
    /// Starts a client; the command lacks only the path.
    pub fn start(command: &mut Command, errors: PathBuf) -> Result<Self> {
        command.args(["--verbose", "--timeout", "2m", "/file"]).stdout(Stdio::piped());
        let mut running = Running::start(command);
        let stdout = running.child().stdout.take().context("its output")?;
        let process = Process::with_pid(running.pid()).context("/proc")?;
        Ok(Self { running, process, stdout, errors, at: 0 })
    }

    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// Reads some more. None at the end; an error if a byte is wrong.
    fn read(&mut self, content: &[u8], buffer: &mut [u8]) -> Result<Option<()>, String> {
        let read = self.stdout.read(buffer).map_err(|error| error.to_string())?;
        if content.get(self.at..self.at + read) != Some(&buffer[..read]) {
            return Err(format!("WRONG BYTES behind {}", self.at));
        }
        self.at += read;
        Ok((read > 0).then_some(()))
    }

    /// Checks its exit status and length, once its output has ended.
    fn finish(mut self, content: &[u8]) -> Result<(), String> {
        let status = self.running.wait();
        match self.at == content.len() {
            true if status.success() => Ok(()),
            _ => {
                let said = fs::read_to_string(&self.errors).unwrap_or_default();
                Err(format!("{status} after {} bytes: {said:?}", self.at))
            }
        }
    }
}

/// Reads the output of all clients to its end. Returns how many completed with the right bytes.
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

/// The indices of the clients that have written something or have ended.
fn readable(clients: &[Client]) -> Vec<usize> {
    let mut polled: Vec<_> = clients
        .iter()
        .map(|client| PollFd::new(client.stdout.as_fd(), PollFlags::POLLIN))
        .collect();
    let _ = poll(&mut polled, PollTimeout::from(1000_u16));
    let ready = |(at, polled): (usize, &PollFd<'_>)| polled.any().unwrap_or(true).then_some(at);
    polled.iter().enumerate().filter_map(ready).collect()
}
