//! Files one after the other, to standard output or into one file.

use std::ffi::OsStr;
use std::io::BufRead;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::process::ExitCode;

use anyhow::Result;

use super::sink::Sink;
use super::{Failure, Opts, PROGRAM};
use crate::cli::progress::Progress;
use crate::cli::{FAILED, complain, reason};
use crate::client::save::CleanupGuard;
use crate::client::{Client, Error, ErrorKind, Transfer};
use crate::escape::escape;

pub(super) fn run(opts: &Opts, client: &Client, cleanup: &CleanupGuard) -> Result<ExitCode> {
    let mut sink = Sink::create(opts, cleanup)?;
    let progress = Progress::start(opts.progress(), sink.is_terminal());
    let fetched = opts.fetch_each(|path| {
        let transfer = fetch_whole(client, opts, path, &mut sink, &progress)?;
        opts.report(path, &transfer);
        Ok(true)
    });
    let mut status = match fetched {
        Ok(status) => status,
        Err(exit) => return Ok(exit),
    };
    if status == 0
        && let Err(error) = sink.commit()
    {
        opts.complain_of(opts.output_name(), reason(&error));
        status = FAILED;
    }
    opts.print_summary(&progress);
    Ok(ExitCode::from(status))
}

/// Fetches a file. If the file changes while its server is away, starts it again, at most
/// `--retries` times; but not on standard output, which cannot take back what was written.
fn fetch_whole(
    client: &Client,
    opts: &Opts,
    path: &OsStr,
    sink: &mut Sink,
    progress: &Progress,
) -> Result<Transfer, Failure> {
    let (start, mut tries) = (sink.position(), opts.retries);
    loop {
        match (fetch(client, opts, path, sink, progress), start) {
            (Err(Failure::Source(error)), Some(start))
                if error.kind() == ErrorKind::FileChanged && tries > 0 =>
            {
                tries -= 1;
                sink.rewind(start).map_err(Failure::Sink)?;
            }
            (outcome, _) => return outcome,
        }
    }
}

fn fetch(
    client: &Client,
    opts: &Opts,
    path: &OsStr,
    sink: &mut Sink,
    progress: &Progress,
) -> Result<Transfer, Failure> {
    let end = opts.length.map(|length| opts.offset.saturating_add(length));
    let range = (Included(opts.offset), end.map_or(Unbounded, Excluded));
    let mut transfer = client.open_range(path, range)?;
    progress.begin(path, transfer.expected());
    loop {
        let bytes = transfer.fill_buf().map_err(Error::from_read)?;
        if bytes.is_empty() {
            progress.finish();
            return Ok(transfer);
        }
        sink.write_all(bytes).map_err(Failure::Sink)?;
        let written = bytes.len();
        progress.advance(written);
        transfer.consume(written);
    }
}

impl Opts {
    /// Says of a file that arrived whether it changed, and with `--verbose` how much arrived.
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
