//! The programs: arguments, wording, exit codes. No work.

pub mod client;
mod findings;
mod json;
mod logging;
mod progress;
pub mod reap;
mod remedy;
pub mod server;
mod signals;
pub mod stat;
mod stdout;
mod table;

use std::env::VarError;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, CommandFactory, Parser};
use nix::errno::Errno;

use crate::escape::escape;
use crate::wire::DEFAULT_KEY;
use sysv_ipc::Key;

/// The request failed, or what arrived is incomplete.
const FAILED: u8 = 1;
/// Invalid input, or an IPC resource that is not to be had. Also what clap exits with.
const UNAVAILABLE: u8 = 2;
/// Interrupted: 128 + SIGINT, as shells count.
const INTERRUPTED: u8 = 130;
/// Nobody reads the output: 128 + SIGPIPE, as shells count.
const NOBODY_READS: u8 = 141;

/// Every program, and the section of its manual page. What a package installs beside them is made of
/// this: see tests/it/dist.rs.
pub fn programs() -> Vec<(clap::Command, u8)> {
    vec![
        (client::Opts::command(), 1),
        (stat::Opts::command(), 1),
        (reap::Opts::command(), 8),
        (server::Opts::command(), 8),
    ]
}

/// Where the server is.
#[derive(Debug, Args)]
struct KeyArgs {
    /// Key of the request queue: 0x and hexadecimal digits, or a decimal number [env: MQFS_KEY]
    /// [default: 0x1aaaaaa1]
    #[arg(short, long, value_name = "KEY")]
    key: Option<Key>,
    /// Derive the key from a file instead: ftok(PATH, 'm')
    #[arg(long, value_name = "PATH", conflicts_with = "key")]
    key_file: Option<PathBuf>,
}

impl KeyArgs {
    fn key(&self) -> Result<Key> {
        let key = match (&self.key_file, self.key) {
            (Some(path), _) => Key::from_path(path, b'm')
                .map_err(|error| anyhow!("--key-file {}: {}", escape(path), reason(&error)))?,
            (None, Some(key)) => key,
            // Read here, not by clap: a variable stands back behind either option.
            (None, None) => match std::env::var("MQFS_KEY") {
                Ok(text) => text.parse().context("MQFS_KEY")?,
                Err(VarError::NotPresent) => DEFAULT_KEY,
                Err(error) => Err(error).context("MQFS_KEY")?,
            },
        };
        ensure!(!key.is_private(), "key {key}: this is IPC_PRIVATE, which nobody can find");
        Ok(key)
    }
}

const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// `30s`, `5m`, `1h 30m`; more than zero.
fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than zero".to_owned()),
        // So that no clock overflows.
        Ok(duration) if duration > LONGEST => Err("must be at most 100 years".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; durations are written 30s, 5m, 1h")),
    }
}

/// Like watch(1), no more often than ten times a second.
fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_millis(100) => Err("must be at least 100ms".to_owned()),
        time => Ok(time),
    }
}

/// `4096`, `64K`, `1M`: bytes, in powers of 1,024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("sizes are written 4096, 64K, 1M, 2G".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "sizes are written 4096, 64K, 1M, 2G")?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// Parses the arguments, or ends the program: with help or version if they were asked for, else with
/// one line on stderr.
fn parse<T: Parser>(program: &str) -> T {
    T::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        // What is wrong comes first; then tips, usage and the way to the help.
        let text = error.to_string();
        let rest = ["\n\n  tip:", "\n\nUsage:", "\n\nFor more information"];
        let end = rest.iter().filter_map(|rest| text.find(rest)).min().unwrap_or(text.len());
        let wrong = text[..end].trim_start_matches("error: ").split_whitespace();
        let wrong = wrong.collect::<Vec<_>>().join(" ");
        complain(program, format!("{} (see {program} --help)", escape(&wrong)));
        std::process::exit(UNAVAILABLE.into())
    })
}

/// Says something on stderr, in one line and one write: others may write there too. Nobody may be
/// there to read it.
fn complain(program: &str, message: impl std::fmt::Display) {
    use std::io::Write;
    let line = format!("{program}: {message}\n");
    progress::aside(|| _ = std::io::stderr().write_all(line.as_bytes()));
}

/// An error of a system call in its own words, without the number that std puts behind them.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Maps what ended a program before its work began to its exit status.
fn exit(program: &str, outcome: Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        complain(program, format!("{error:#}"));
        ExitCode::from(UNAVAILABLE)
    })
}
