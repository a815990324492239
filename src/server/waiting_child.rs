//! A child that was forked ahead, so that the next client need not wait for a fork.
//!
//! It waits for the bytes of a request, answers that one, and ends, like any other child. A server
//! has one only while requests follow each other closely.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{Read, Write, pipe};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use sysv_ipc::Pid;

use crate::sys::{self, exit_now};

/// A child that waits for its request. When this is dropped, or the server dies, its end of the
/// pipe is closed, and the child ends.
#[derive(Debug)]
pub(super) struct WaitingChild {
    pid: Pid,
    requests: std::io::PipeWriter,
    since: Instant,
}

impl WaitingChild {
    /// How long after the last request another one is likely to follow.
    pub(super) const SOON: Duration = Duration::from_millis(100);

    /// The most bytes of a request that it answers: longer ones are rare, and each page of the stack
    /// costs a page fault.
    const LONGEST: usize = 1024;

    /// Forks the child, in a process that has only one thread.
    pub(super) fn fork(answer: impl FnOnce(&[u8]) -> Infallible) -> Result<Self, Errno> {
        let (mut request, requests) = pipe().map_err(|error| sys::errno_of(&error))?;
        let requests = Cell::new(Some(requests));
        let pid = sys::fork_quickly(|| {
            drop(requests.take()); // or the pipe would never end
            let mut text = [0; Self::LONGEST];
            let mut length = 0;
            // The parent writes all of it, and closes the pipe.
            while let Ok(count @ 1..) = request.read(&mut text[length..]) {
                length += count;
            }
            if length == 0 { exit_now(0) } else { answer(&text[..length]) }
        })?;
        let requests = requests.take().ok_or(Errno::EPIPE)?;
        Ok(Self { pid, requests, since: Instant::now() })
    }

    /// Lets the child answer this request. None: it has ended, or the request is too long.
    pub(super) fn answer(mut self, request: &[u8]) -> Option<Pid> {
        let fits = request.len() <= Self::LONGEST;
        (fits && self.requests.write_all(request).is_ok()).then_some(self.pid)
    }

    /// Whether it has waited for so long that it is not worth its memory.
    pub(super) fn is_idle(&self) -> bool {
        self.since.elapsed() > Self::SOON
    }
}
