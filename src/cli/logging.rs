//! Log lines on stderr, each in one write.

use std::io::{self, Write};

use clap::ValueEnum;
use nix::errno::Errno;
use tracing::Level;

use super::json::escape_json;
use crate::sys::nonblocking_write;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Time, level, message and fields as name=value
    Text,
    /// One JSON object to a line
    Json,
}

/// Logs events of this level and above to stderr.
pub(super) fn init(format: LogFormat, level: Level) {
    let builder = tracing_subscriber::fmt()
        .with_writer(|| Stderr)
        .with_max_level(level)
        .with_target(false)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_ansi(false);
            builder.with_writer(|| Printable(Stderr)).init();
        }
    }
}

/// Escapes JSON that could command a terminal. Each write is one line.
struct Printable(Stderr);

impl Write for Printable {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match str::from_utf8(line) {
            Ok(json) => self.0.write_all(escape_json(json).as_bytes())?,
            Err(_) => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Descriptor 2 without the lock of [`io::stderr`]: a forked child could find it locked for ever. A
/// line that would block is dropped, so that the reader of a log cannot hold up the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match nonblocking_write::write(io::stderr(), bytes) {
            Err(Errno::EAGAIN) => Ok(bytes.len()),
            outcome => Ok(outcome?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
