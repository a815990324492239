//! Log lines on stderr, each in one write.

use std::fmt::{Debug, Write as _};
use std::io;
use std::time::SystemTime;

use clap::ValueEnum;
use humantime::format_rfc3339_micros;
use nix::errno::Errno;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

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
    let _ = tracing::subscriber::set_global_default(Log { format, level });
}

/// Writes events, and knows no spans. tracing-subscriber keeps 32 KiB for them, which the server
/// would carry along at every fork.
struct Log {
    format: LogFormat,
    level: Level,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.into())
    }

    fn event(&self, event: &Event<'_>) {
        let (time, level) = (format_rfc3339_micros(SystemTime::now()), event.metadata().level());
        let mut line = match self.format {
            LogFormat::Text => Line::Text(format!("{time} {level:>5}")),
            LogFormat::Json => {
                Line::Json(format!("{{\"timestamp\":\"{time}\",\"level\":\"{level}\""))
            }
        };
        event.record(&mut line);
        write_stderr(&match line {
            Line::Text(line) => line + "\n",
            Line::Json(line) => escape_json(&line) + "}\n",
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A line without its end.
enum Line {
    Text(String),
    Json(String),
}

impl Line {
    fn add(&mut self, field: &Field, value: Value) {
        let name = field.name();
        let _ = match (self, value) {
            (Self::Json(line), value) => write!(line, ",\"{name}\":{value}"),
            (Self::Text(line), Value::String(text)) => {
                let text = text.replace('\\', r"\\").replace('"', r#"\""#);
                write!(line, " {name}=\"{}\"", escape(&text))
            }
            (Self::Text(line), value) => write!(line, " {name}={value}"),
        };
    }
}

/// Each kind of value keeps its own type in JSON.
macro_rules! record {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(&mut self, field: &Field, value: $type) {
            self.add(field, value.into());
        })*
    };
}

impl Visit for Line {
    record!(record_f64: f64, record_i64: i64, record_u64: u64, record_bool: bool, record_str: &str);

    /// The message, and what is logged by `Debug` or `Display`: in text, without quotes.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        let _ = match self {
            Self::Text(line) if field.name() == "message" => write!(line, " {}", escape(&text)),
            Self::Text(line) => write!(line, " {}={}", field.name(), escape(&text)),
            Self::Json(_) => return self.add(field, text.into()),
        };
    }
}

/// Writes to descriptor 2 without the lock of [`io::stderr`]: a forked child could find it locked
/// for ever. It drops what would block, so that the reader of a log cannot hold up the server.
pub(super) fn write_stderr(line: &str) {
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match nonblocking_write::write(io::stderr(), rest) {
            Err(Errno::EINTR) => {}
            Ok(0) | Err(_) => break,
            Ok(written) => rest = &rest[written..],
        }
    }
}
