//! Log lines on stderr, each in one write.

use std::fmt::{self, Debug};
use std::io::{self, Write};

use clap::ValueEnum;
use nix::errno::Errno;
use tracing::Level;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

use crate::escape::{escape, escape_json};
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
        LogFormat::Text => builder.fmt_fields(TextFields).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Fields as `name=value`. It escapes text like every other message, while `Debug` of a `str` also
/// escapes combining characters.
struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct TextVisitor<'w>(DefaultVisitor<'w>);

impl Visit for TextVisitor<'_> {
    fn record_str(&mut self, field: &Field, text: &str) {
        let text = text.replace('\\', r"\\").replace('"', r#"\""#);
        self.0.record_debug(field, &format_args!("\"{}\"", escape(&text)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.record_debug(field, value);
    }
}

/// Descriptor 2 without the lock of [`io::stderr`]: a forked child could find it locked for ever.
/// It drops what would block, so that the reader of a log cannot hold up the server. Each write is
/// one line. The formatter has escaped ASCII control characters; here the other harmful ones are.
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
