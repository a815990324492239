//! Receives files: answers become bytes, which are verified at the end.

use std::io::{self, BufRead, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::error::Error;
use super::metadata::Metadata;
use super::pipeline::Pipeline;
use super::planned::PlannedQuestion;
use super::requester::Requester;
use super::session::Step;
use crate::wire::{Extent, Operation, Range, Trailer};

/// A file, or a part of one, that is being received. Reading yields its bytes, and then the end of
/// file once all bytes have arrived and were verified.
///
/// If the server dies on the way, the transfer asks again, compares the beginning with what arrived
/// before, and continues if it is the same. An error in place of the end means that the bytes are
/// incomplete. Dropping a transfer before its end tells the server to stop.
#[derive(Debug)]
pub struct Transfer {
    pub(super) pipeline: Pipeline,
    metadata: Option<Metadata>,
    expected: Option<u64>,
    /// How the file ended, without a trailer from a plain server. None while it is being received.
    pub(super) end: Option<Result<Option<Trailer>, Error>>,
}

impl Transfer {
    pub(super) fn open(requester: Requester, path: &Path, range: Range) -> Result<Self, Error> {
        let mut transfer = Self::new(Pipeline::new(requester));
        transfer.pipeline.push(PlannedQuestion::new(path, Operation::Fetch(range)));
        transfer.begin()?;
        Ok(transfer)
    }

    pub(super) fn new(pipeline: Pipeline) -> Self {
        Self { pipeline, metadata: None, expected: None, end: Some(Ok(None)) }
    }

    pub(super) fn begin(&mut self) -> Result<(), Error> {
        self.end = None;
        self.step()
    }

    pub(super) fn is_in_file(&self) -> bool {
        self.end.is_none()
    }

    /// The file's metadata. None from a plain server.
    pub fn metadata(&self) -> Option<Metadata> {
        self.metadata
    }

    /// How many bytes the server announced. None if it does not know the file's size.
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// How many bytes were read.
    pub fn received(&self) -> u64 {
        self.pipeline.tally().bytes
    }

    /// The CRC-32 of the bytes that were read, that of zlib and gzip.
    pub fn checksum(&self) -> u32 {
        self.pipeline.tally().checksum
    }

    /// Whether the end arrived, and length and checksum were right. Never with a plain server.
    pub fn is_verified(&self) -> bool {
        matches!(self.end, Some(Ok(Some(_))))
    }

    /// Whether the file changed while the server read it, so that the bytes may be a mixture of old
    /// and new. Known at the end; a plain server does not say.
    pub fn has_changed(&self) -> bool {
        matches!(self.end, Some(Ok(Some(Trailer { changed: true, .. }))))
    }

    /// In how many parts the bytes arrived: more than one if servers died on the way.
    pub fn parts(&self) -> u32 {
        self.pipeline.parts
    }

    fn step(&mut self) -> Result<(), Error> {
        match self.pipeline.next() {
            Ok(Step::Begun) => {
                let entry = self.pipeline.entry();
                self.metadata = entry.map(|entry| Metadata(entry.stat));
                self.expected = entry.and_then(|entry| entry.length);
            }
            Ok(Step::Bytes) => {}
            Ok(Step::Ended(trailer)) => self.end = Some(Ok(trailer)),
            Err(error) => {
                self.end = Some(Err(error.clone()));
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn fill(&mut self) -> Result<(), Error> {
        while self.is_in_file() && !self.pipeline.readable().is_some_and(|it| it.has_bytes()) {
            self.step()?;
        }
        match &self.end {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Waits until there are bytes. False: the file has ended.
    pub(crate) fn wait(&mut self) -> Result<bool, Error> {
        self.fill()?;
        if !self.is_in_file() {
            self.pipeline.release();
        }
        Ok(self.is_in_file())
    }

    /// The holes that come next, as far as the server has named them, and the data behind them.
    pub(crate) fn extents(&self) -> impl Iterator<Item = Extent> {
        self.pipeline.extents()
    }

    /// Takes bytes and writes them to a file, with fewer copies than a reader: `Session::write_to`.
    pub(crate) fn write_to(&mut self, file: BorrowedFd<'_>, sparse: bool) -> io::Result<usize> {
        self.pipeline.readable().map_or(Ok(0), |session| session.write_to(file, sparse))
    }
}

impl BufRead for Transfer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.wait()?;
        Ok(self.pipeline.bytes())
    }

    fn consume(&mut self, amount: usize) {
        self.pipeline.consume(amount);
    }
}

impl Read for Transfer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// Files that are received one after the other. They are asked for ahead, so that small ones arrive
/// many times as fast as with [`Client::open`](super::Client::open) for each.
///
/// ```no_run
/// use std::io::Read;
///
/// let client = mqfs::Client::new(mqfs::DEFAULT_KEY);
/// let mut files = client.open_all(["/etc/hostname", "/etc/hosts"]);
/// while let Some(file) = files.next_file() {
///     let mut content = Vec::new();
///     file?.read_to_end(&mut content)?;
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Files {
    transfer: Transfer,
    range: Range,
}

impl Files {
    pub(super) fn new<P: AsRef<Path>>(
        requester: Requester,
        paths: impl IntoIterator<Item = P>,
        range: Range,
    ) -> Self {
        let mut transfer = Transfer::new(Pipeline::new(requester));
        for path in paths {
            transfer.pipeline.push(PlannedQuestion::new(path.as_ref(), Operation::Fetch(range)));
        }
        Self { transfer, range }
    }

    /// Waits until the next file begins. None: there was one for each path. What was not read of
    /// the file before is left out. An error is that of one file; the others may still arrive.
    pub fn next_file(&mut self) -> Option<Result<&mut Transfer, Error>> {
        self.leave_out_rest();
        if self.transfer.pipeline.questions.is_empty() {
            return None;
        }
        Some(self.transfer.begin().map(|()| &mut self.transfer))
    }

    fn leave_out_rest(&mut self) {
        while self.transfer.is_in_file() {
            let _ = self.transfer.fill();
            self.transfer.consume(usize::MAX);
        }
    }

    /// Asks for a file before the others, such as one that changed while it came in parts. What was
    /// not read of the current file is left out.
    pub fn ask_next(&mut self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        self.leave_out_rest();
        self.transfer.pipeline.push_front(PlannedQuestion::new(path, Operation::Fetch(self.range)));
    }
}
