//! The client's end of a window: bytes in shared memory that the server fills.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use sysv_ipc::{AttachedReadOnly, SharedMemory, SharedMemoryId, Uid};

use super::error::{Cause, Error};
use crate::sys::credentials::is_unknown_uid;
use crate::sys::geteuid;
use crate::wire::{MAX_WINDOW, WindowPart};

/// Bytes of one message that are in shared memory and that the reader has not taken.
#[derive(Debug)]
pub(super) struct Window {
    attached: Option<(SharedMemoryId, AttachedReadOnly)>,
    /// The owner of the server's request queue. None: the request did not allow shared memory.
    server: Option<Uid>,
    part: Range<usize>,
    /// A private copy of the first bytes of `part`: another process may change the segment while
    /// the reader looks. `taken` of it were taken.
    copy: Vec<u8>,
    taken: usize,
}

impl Window {
    /// How much to copy at once, so that a reader with a slow output gets its first bytes soon.
    const COPY: usize = 64 << 10;

    pub(super) fn new(server: Option<Uid>) -> Self {
        Self { attached: None, server, part: 0..0, copy: Vec::new(), taken: 0 }
    }

    /// Takes over the bytes that a message names. All earlier ones must have been taken.
    pub(super) fn open(&mut self, text: &[u8]) -> Result<(), Error> {
        let part = WindowPart::decode(text)?;
        let memory = match self.attached.take() {
            Some((segment, memory)) if segment == part.segment => memory,
            _ => self.attach(part.segment)?,
        };
        let (start, length) = (part.offset as usize, part.length as usize);
        if memory.len().checked_sub(start) < Some(length) {
            return Err(Error::corrupt("bytes beyond the end of the shared memory"));
        }
        self.attached = Some((part.segment, memory));
        self.part = start..start + length;
        Ok(())
    }

    fn attach(&self, segment: SharedMemoryId) -> Result<AttachedReadOnly, Error> {
        let Some(server) = self.server else {
            return Err(Error::corrupt("shared memory that was not asked for"));
        };
        let failed = |error: sysv_ipc::Error| {
            if error.is_gone() { Cause::ChildDied } else { Cause::NoWindow }
        };
        let segment = SharedMemory::from_id(segment);
        let memory = segment.attach_read_only().map_err(failed)?;
        let status = segment.status().map_err(failed)?;
        let creator = status.permissions.cuid;
        // Only the creator's uid tells whose segment it is: another user's may have its id by now.
        if is_unknown_uid(creator) {
            return Err(Cause::NoWindow.into());
        }
        // Only a child of root's server makes it as this user. From any other server, a segment of
        // this user may be one that root's server is sending at the same time.
        let of_user = server.is_root() && creator == geteuid();
        if !of_user && creator != server {
            return Err(Error::corrupt("the shared memory is another user's"));
        }
        if status.size > MAX_WINDOW {
            return Err(Error::corrupt("the shared memory is too large"));
        }
        if !status.is_removed {
            return Err(Error::corrupt("the shared memory would stay for ever"));
        }
        Ok(memory)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    pub(super) fn bytes(&mut self) -> &[u8] {
        if self.taken == self.copy.len()
            && let Some((_, memory)) = &self.attached
        {
            self.copy.resize(self.part.len().min(Self::COPY), 0);
            self.taken = 0;
            memory.copy_to(self.part.start, &mut self.copy);
        }
        &self.copy[self.taken..]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.taken += count;
        self.part.start += count;
    }

    /// Writes some of the bytes to a file, straight out of the segment. Shows each of them.
    pub(super) fn write_to(
        &mut self,
        file: BorrowedFd<'_>,
        show: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        let Some((_, memory)) = &self.attached else { return Ok(0) };
        let start = self.part.start;
        let count = memory.write_to(file, start..self.part.end.min(start + Self::COPY))?;
        memory.for_each_copy(start..start + count, show);
        self.part.start += count;
        (self.taken, self.copy) = (0, Vec::new());
        Ok(count)
    }

    pub(super) fn detach(&mut self) {
        *self = Self::new(self.server);
    }
}
