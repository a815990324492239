//! Clients whose output one thread reads, all at once.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mqfs_kit::{Process, Running};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::report::Report;
use crate::site::Site;

/// How long it may take to read from all clients.
const READING: Duration = Duration::from_secs(120);

/// An `mqfs-client` that writes into a pipe.
#[derive(Debug)]
pub struct Client {
    running: Running,
    pub process: Process,
    stdout: ChildStdout,
    errors: PathBuf,
    /// How many times it fetches the file: more than once is a session.
    files: usize,
    /// How many bytes were read, all of them right.
    at: usize,
}

impl Client {
    pub fn start(site: &Site, name: &str, path: &str, files: usize) -> Result<Self> {
        let errors = site.folder("errors").join(name);
        let mut command = site.client(&errors)?;
        command.args(["--verbose", "--timeout", "2m", "--retries", "100"]);
        let mut running = Running::start(command.args(vec![path; files]).stdout(Stdio::piped()));
        let stdout = running.child().stdout.take().context("its output")?;
        let process = Process::with_pid(running.pid()).context("/proc")?;
        Ok(Self { running, process, stdout, errors, files, at: 0 })
    }

    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// Reads some more. None at the end; an error if a byte is wrong.
    fn read(&mut self, content: &[u8], buffer: &mut [u8]) -> Result<Option<()>, String> {
        let rest = &content[self.at % content.len()..];
        let most = rest.len().min(buffer.len());
        let read = self.stdout.read(&mut buffer[..most]).map_err(|error| error.to_string())?;
        if rest[..read] != buffer[..read] {
            return Err(format!("WRONG BYTES behind {}", self.at));
        }
        self.at += read;
        Ok((read > 0).then_some(()))
    }

    /// Checks its exit status and length, once its output has ended. Returns whether a file came in
    /// parts.
    fn finish(mut self, content: &[u8]) -> Result<bool, String> {
        let status = self.running.wait();
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        match self.at == content.len() * self.files && status.success() {
            true => Ok(said.contains(" parts, ")),
            false => Err(format!("{status} after {} bytes: {said:?}", self.at)),
        }
    }
}

/// Reads the output of all clients to its end. Returns how many completed with the right bytes, and
/// how many of these in parts.
pub fn read_all(mut clients: Vec<Client>, content: &[u8], report: &mut Report) -> (usize, usize) {
    let (mut completed, mut resumed) = (0, 0);
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
                Ok(in_parts) => {
                    (completed, resumed) = (completed + 1, resumed + usize::from(in_parts))
                }
                Err(wrong) => report.wrong(format!("a client: {wrong}")),
            }
        }
    }
    for mut late in clients {
        report.wrong(format!("a client hung after {} bytes", late.at));
        late.kill();
    }
    (completed, resumed)
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
