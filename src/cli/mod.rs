//! The programs: argument definitions, wording and exit codes. The work is done in the library.
//!
//! `MQFS_WRITE_DIST=1 cargo test --test it dist::` makes the manual pages and completions from the
//! options. What takes more than their help to explain goes into docs/operations.md.

pub mod client;
mod findings;
mod logging;
mod progress;
pub mod reap;
mod remedy;
pub mod server;
mod signals;
pub mod stat;
mod stdout;
mod table;

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use clap::{Args, CommandFactory, Parser};
use nix::unistd::User;

use crate::escape::escape;
use crate::wire::DEFAULT_KEY;
use sysv_ipc::{Key, Uid};

/// A request failed, or a file is incomplete.
const FAILED: u8 = 1;
/// Invalid input, or an unavailable IPC resource. clap uses the same status.
const UNAVAILABLE: u8 = 2;
/// A signal ended the program: 128 + SIGINT, as in shells.
const INTERRUPTED: u8 = 130;
/// Nobody reads the output any more: 128 + SIGPIPE, as of a filter that the signal kills.
const NOBODY_READS: u8 = 141;

/// Every program, and the section of its manual page. tests/it/dist.rs makes manual pages and
/// completions from them.
pub fn programs() -> Vec<(clap::Command, u8)> {
    vec![
        (client::Opts::command(), 1),
        (stat::Opts::command(), 1),
        (reap::Opts::command(), 8),
        (server::Opts::command(), 8),
    ]
}

#[derive(Debug, Args)]
struct KeyArgs {
    /// Key of the request queue: 0x and hexadecimal digits, 0 and octal ones, or a decimal number
    /// [env: MQFS_KEY] [default: 0x1aaaaaa1]
    #[arg(short, long, value_name = "KEY", value_parser = key, allow_negative_numbers = true)]
    key: Option<Key>,
    /// Derive the key from an existing file: ftok(PATH, 'm')
    #[arg(long, value_name = "PATH", conflicts_with = "key")]
    key_file: Option<PathBuf>,
}

impl KeyArgs {
    fn key(&self) -> Result<Key> {
        match (&self.key_file, self.key) {
            (Some(path), _) => Key::from_path(path, b'm')
                .map_err(|error| anyhow!("--key-file {}: {}", escape(path), reason(&error))),
            (None, Some(key)) => Ok(key),
            // Not by clap's `env`: the variable would then conflict with --key-file.
            (None, None) => std::env::var_os("MQFS_KEY").map_or(Ok(DEFAULT_KEY), |text| {
                key(&text.to_string_lossy()).map_err(|why| anyhow!("MQFS_KEY: {why}"))
            }),
        }
    }
}

fn key(text: &str) -> Result<Key, String> {
    match text.parse::<Key>() {
        Ok(key) if key.is_private() => {
            Err("that is IPC_PRIVATE, which finds no queue (mqfs-stat --id takes an id)".to_owned())
        }
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

/// A name or a number.
fn user(text: &str) -> Result<Uid, String> {
    // System calls take the last number for "no user": chown(2).
    match text.parse() {
        Ok(u32::MAX) => Err("not a user".to_owned()),
        Ok(number) => Ok(Uid::from_raw(number)),
        Err(_) => match User::from_name(text) {
            Ok(Some(user)) => Ok(Uid::from_raw(user.uid.as_raw())),
            _ => Err("no such user".to_owned()),
        },
    }
}

const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// `30s`, `5m`, `1h 30m`, or a number of seconds; more than zero.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    match duration {
        None => Err("durations are written 30s, 5m, 1h, or as a number of seconds".to_owned()),
        Some(Duration::ZERO) => Err("must be more than zero".to_owned()),
        // A longer time could overflow a clock.
        Some(duration) if duration > LONGEST => Err("must be at most 100 years".to_owned()),
        Some(duration) => Ok(duration),
    }
}

/// At least a tenth of a second, as of watch(1).
fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_millis(100) => Err("must be at least 100ms".to_owned()),
        time => Ok(time),
    }
}

/// `4096`, `64K`, `1M`: bytes, with units of powers of 1,024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let shift = match &*text[digits.len()..].to_ascii_lowercase() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("sizes are written 4096, 64K, 1M, 2G".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "sizes are written 4096, 64K, 1M, 2G")?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// Parses the arguments, or ends the program: with the help, the version or one line on stderr.
fn parse<T: Parser>(program: &str) -> T {
    signals::let_through();
    T::try_parse().unwrap_or_else(|error| {
        // clap says what is wrong first, then gives tips, and then the usage.
        let text = error.to_string();
        let wrong = text.split("\n\nUsage:").flat_map(|text| text.split("\n\nFor more")).next();
        let wrong = wrong.unwrap_or_default().trim_start_matches("error: ").split_whitespace();
        let wrong = wrong.collect::<Vec<_>>().join(" ").replace(" tip: ", "; ");
        let outcome = match error.use_stderr() {
            true => Err(anyhow!("{} (see {program} --help)", escape(&wrong))),
            false => stdout::print(&text).map(|()| 0),
        };
        std::process::exit(exit_status(program, false, outcome).into())
    })
}

/// Prints a message to stderr, if anybody reads it, and in one write, so that lines do not mix.
fn complain(program: &str, message: impl Display) {
    use std::io::Write;
    let line = format!("{program}: {message}\n");
    progress::aside(|| _ = std::io::stderr().write_all(line.as_bytes()));
}

/// Runs `action` on a thread of its own, and gives up waiting for it after a while. False: there
/// is no thread, and nothing was run.
fn run_for_at_most(longest: Duration, action: impl FnOnce() + Send + 'static) -> bool {
    let (done, is_done) = mpsc::channel::<()>();
    let run = move || {
        action();
        drop(done);
    };
    let has_begun = thread::Builder::new().spawn(run).is_ok();
    let _ = is_done.recv_timeout(longest); // at once without a thread, which drops `done`
    has_begun
}

/// An error in the words of the system, without the number that std adds.
fn reason(error: impl Display) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The exit status of a program. If it failed, prints why. An [`io::Error`] is one of its output.
fn exit_status(program: &str, quiet: bool, outcome: Result<u8>) -> u8 {
    outcome.unwrap_or_else(|error| {
        if is_closed_pipe(&error) {
            return NOBODY_READS;
        }
        if !quiet {
            complain(program, reason(format!("{error:#}")));
        }
        if error.is::<io::Error>() { FAILED } else { UNAVAILABLE }
    })
}

/// Whether the reader of the output has left, which is no failure.
fn is_closed_pipe(error: &Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
