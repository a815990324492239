//! Files one after the other, to standard output or into one file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow};

use super::{Failure, Opts, PROGRAM};
use crate::cli::progress::Progress;
use crate::cli::{complain, reason};
use crate::client::save::{CleanupGuard, OutputFile};
use crate::client::{Client, Error, ErrorKind, Transfer};
use crate::escape::escape;

enum Sink {
    Stdout(File),
    File(OutputFile),
}

pub(super) fn run(opts: &Opts, client: &Client, cleanup: &CleanupGuard) -> Result<u8> {
    let sink = match &opts.output {
        // Not io::stdout(), which searches for line ends.
        None => Sink::Stdout(
            io::stdout().as_fd().try_clone_to_owned().context("standard output")?.into(),
        ),
        Some(path) => Sink::File(
            OutputFile::create(path, cleanup)
                .map_err(|error| anyhow!("{}: {}", escape(path), reason(&error)))?,
        ),
    };
    let into_terminal = opts.output.is_none() && io::stdout().is_terminal();
    let progress = Progress::start(opts.progress(), into_terminal);
    let mut concatenation = Concatenation { opts, client, progress: &progress, sink };
    let status = opts.fetch_each(|path| {
        let transfer = concatenation.append(path)?;
        progress.count_file();
        opts.report(path, &transfer);
        Ok(true)
    })?;
    if let (Sink::File(file), 0) = (concatenation.sink, status) {
        file.commit().map_err(|error| opts.sink_failed(error))?;
    }
    opts.print_summary(&progress);
    Ok(status)
}

struct Concatenation<'a> {
    opts: &'a Opts,
    client: &'a Client,
    progress: &'a Progress,
    sink: Sink,
}

impl Concatenation<'_> {
    /// Appends a file. If the file changes while its server is away, starts it again, at most
    /// `--retries` times; but not on standard output, which cannot take back what was written.
    fn append(&mut self, path: &OsStr) -> Result<Transfer, Failure> {
        let start = match &self.sink {
            Sink::Stdout(_) => None,
            Sink::File(file) => file.position(),
        };
        let mut tries = self.opts.retries;
        loop {
            let outcome = self.fetch(path);
            match (&outcome, start, &mut self.sink) {
                (Err(Failure::Source(error)), Some(start), Sink::File(file))
                    if error.kind() == ErrorKind::FileChanged && tries > 0 =>
                {
                    tries -= 1;
                    file.rewind(start).map_err(Failure::Sink)?;
                }
                _ => return outcome,
            }
        }
    }

    fn fetch(&mut self, path: &OsStr) -> Result<Transfer, Failure> {
        let Opts { offset, length, .. } = *self.opts;
        let end = length.map_or(Unbounded, |length| Excluded(offset.saturating_add(length)));
        let mut transfer = self.client.open_range(path, (Included(offset), end))?;
        self.progress.begin(path, transfer.expected());
        loop {
            let bytes = transfer.fill_buf().map_err(Error::from_read)?;
            if bytes.is_empty() {
                return Ok(transfer);
            }
            match &mut self.sink {
                Sink::Stdout(stdout) => stdout.write_all(bytes),
                Sink::File(file) => file.write_all(bytes),
            }
            .map_err(Failure::Sink)?;
            let written = bytes.len();
            self.progress.advance(written);
            transfer.consume(written);
        }
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
