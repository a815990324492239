//! Files one after the other, to standard output or into one file.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use anyhow::{Result, anyhow};

use super::{Failure, Opts, PROGRAM};
use crate::cli::complain;
use crate::cli::progress;
use crate::cli::remedy::explain_output;
use crate::client::save::{CleanupGuard, OutputFile};
use crate::client::{Client, ErrorKind, Files, Transfer};
use crate::escape::escape;
use crate::wire::Range;

pub(super) fn run(opts: &Opts, client: &Client, cleanup: &CleanupGuard) -> Result<u8> {
    let sink = match &opts.output {
        // Not io::stdout(), which searches for line ends.
        None => OutputFile::stdout()?,
        Some(path) => OutputFile::create(path, cleanup)
            .map_err(|error| anyhow!(explain_output(path, &error)))?,
    };
    let into_terminal = opts.output.is_none() && io::stdout().is_terminal();
    progress::start(opts.progress(), into_terminal);
    let range = Range { offset: opts.offset, length: opts.length };
    let files = client.fetch_all(&opts.paths, range);
    let mut concatenation = Concatenation { opts, files, sink };
    let status = opts.fetch_each(&opts.paths, |path| concatenation.append(path).map(|()| true))?;
    if status == 0 {
        concatenation.sink.commit()?;
    }
    Ok(status)
}

struct Concatenation<'a> {
    opts: &'a Opts,
    files: Files,
    sink: OutputFile,
}

impl Concatenation<'_> {
    /// Appends the next file. If it changes while its server is away, starts it again, at most
    /// `--retries` times; but not on standard output, which cannot take back what was written.
    fn append(&mut self, path: &OsStr) -> Result<(), Failure> {
        let start = self.sink.position();
        let mut tries = self.opts.retries;
        loop {
            match (self.fetch(path, start.is_some()), start) {
                (Err(Failure::Source(error)), Some(start))
                    if error.kind() == ErrorKind::FileChanged && tries > 0 =>
                {
                    tries -= 1;
                    self.sink.rewind(start)?;
                    self.files.ask_next(path);
                }
                (outcome, _) => return outcome,
            }
        }
    }

    fn fetch(&mut self, path: &OsStr, sparse: bool) -> Result<(), Failure> {
        let Some(transfer) = self.files.next_file() else { return Ok(()) };
        let transfer = transfer?;
        if let Some(original) = transfer.metadata() {
            if self.sink.is(&original) {
                let why = format!("it is {} itself, which is to be read", escape(path));
                return Err(io::Error::other(why).into());
            }
            self.sink.limit_rights(&original)?;
        }
        progress::begin(path, transfer.expected());
        while transfer.wait()? {
            let written = transfer.write_to(self.sink.as_fd(), sparse)?;
            progress::advance(written);
        }
        progress::count_file();
        self.opts.report(path, transfer);
        Ok(())
    }
}

impl Opts {
    /// Reports whether a file changed that arrived, and with `--verbose` how much arrived.
    pub(super) fn report(&self, path: &OsStr, transfer: &Transfer) {
        if transfer.has_changed() {
            self.warn_of_change(path);
        }
        if !self.verbose {
            return;
        }
        let (path, bytes) = (escape(path), transfer.received());
        let how = if !transfer.is_verified() {
            "unverified (the plain protocol has no checksum)".to_owned()
        } else {
            let parts = match transfer.parts() {
                1 => String::new(),
                parts => format!("in {parts} parts, "),
            };
            format!("{parts}verified (CRC-32 {:08x})", transfer.checksum())
        };
        complain(PROGRAM, format!("{path}: {bytes} bytes, {how}"));
    }
}
