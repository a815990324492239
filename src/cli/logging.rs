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
        .with_ansi(false)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Descriptor 2 without the lock of [`io::stderr`]: a forked child could find it locked for ever.
/// It drops what would block, so that the reader of a log cannot hold up the server. Each write is
/// one line, in which control characters are escaped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = escape_json(&text);
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match nonblocking_write::write(io::stderr(), rest) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                written => rest = &rest[written?..],
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
