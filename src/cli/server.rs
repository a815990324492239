//! `mqfs-server`.

use std::error::Error as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::{Parser, ValueEnum};
use nix::sys::signal::Signal;
use sd_notify::NotifyState;
use tracing::Level;

use super::logging::{self, LogFormat};
use super::signals::EndingSignals;
use super::{KeyArgs, duration};
use crate::server::{Config, Error, PlainPolicy, Server};
use crate::sys::{self, errno_of};
use sysv_ipc::Mode;

const PROGRAM: &str = "mqfs-server";

const EXIT_STATUS: &str = "\
Exit status: 0 stopped by a signal; 2 invalid input or an unavailable IPC resource, such as a key in
use.";

/// Serve files over System V message queues
///
/// Owns the request queue under its key and forks a child for every request. Started by root, each
/// user gets the files that they could open themselves; started by another user, everybody who may
/// write requests gets what that user can open below --root.
#[derive(Debug, Parser)]
#[command(name = "mqfs-server", version, after_help = EXIT_STATUS)]
pub(super) struct Opts {
    #[command(flatten)]
    key: KeyArgs,
    /// Serve what lies below this folder [default: /, unless others may ask a server that is not
    /// root's]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Who may ask: 0600, 0620 (group), 0602 or 0622 (everybody)
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = mode)]
    mode: Mode,
    /// Most children at once; further requests wait in the queue
    #[arg(long, value_name = "N", default_value = "64", value_parser = positive)]
    max_children: u16,
    /// Most children at once for one user; further requests are told to try again [default: 16
    /// where others may ask]
    #[arg(long, value_name = "N", value_parser = positive)]
    max_per_user: Option<u16>,
    /// How long a child waits for a client that does not read
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    stall_timeout: Duration,
    /// How long children may go on when the server stops
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    drain_timeout: Duration,
    /// How often to remove the queues of dead clients
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    reap_interval: Duration,
    /// Which plain requests to answer: those of other programs, which prove nothing
    #[arg(long, value_name = "WHICH", default_value = "owner")]
    plain: Plain,
    /// Log more
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Log only what is wrong
    #[arg(short, long)]
    quiet: bool,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// Which plain requests to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Plain {
    /// None
    Never,
    /// All, while --mode lets nobody but the owner ask
    Owner,
    /// All, though whoever may ask can then name anybody's queue
    Any,
}

fn mode(text: &str) -> Result<Mode, String> {
    match u16::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o777 => Ok(Mode::new(bits)),
        _ => Err("not a mode: octal digits are expected, such as 0622".to_owned()),
    }
}

fn positive(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a number from 1 to 65535 is expected".to_owned()),
    }
}

impl Opts {
    fn config(&self) -> Result<Config> {
        Ok(Config {
            key: self.key.key()?,
            mode: self.mode,
            root: self.root.clone(),
            max_children: self.max_children,
            max_per_user: self.max_per_user,
            stall_timeout: self.stall_timeout,
            drain_timeout: self.drain_timeout,
            plain: match self.plain {
                Plain::Never => PlainPolicy::Never,
                Plain::Owner => PlainPolicy::Owner,
                Plain::Any => PlainPolicy::Any,
            },
            reap_interval: Some(self.reap_interval),
        })
    }

    fn level(&self) -> Level {
        match (self.quiet, self.verbose) {
            (true, _) => Level::WARN,
            (_, true) => Level::DEBUG,
            _ => Level::INFO,
        }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    super::exit(PROGRAM, run(&super::parse(PROGRAM)))
}

fn run(opts: &Opts) -> Result<ExitCode> {
    sys::share_one_arena();
    sys::keep_heap_at_hand();
    logging::init(opts.log_format, opts.level());
    // SIGALRM is the server's own tick.
    let signals = EndingSignals::block()?.without(Signal::SIGALRM)?;
    let server = Server::start(opts.config()?).map_err(explain)?;
    let (stopper, drain_timeout) = (server.stopper(), opts.drain_timeout);
    signals.handle(move || {
        stopper.stop();
        tell_manager(&stopping(drain_timeout));
    })?;
    // A parent that went away, or closed its end, is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "mqfs-server: {server}");
    tell_manager(&[NotifyState::Ready, NotifyState::Status(&server.to_string())]);
    server.run().map_err(explain)?;
    Ok(ExitCode::SUCCESS)
}

/// Puts what the user can do about an error behind it.
fn explain(error: Error) -> anyhow::Error {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let cause = cause.map_or_else(String::new, |cause| format!(": {}", errno_of(cause)));
    let remedy = match &error {
        Error::ForeignLock { key, .. } => format!(" (as root: ipcrm -S {key})"),
        Error::ForeignQueue { key, .. } => {
            format!("; if nothing needs it, remove it: ipcrm -Q {key}")
        }
        Error::RootNotGiven { .. } => {
            ": say with --root what that is (--root / for everything)".to_owned()
        }
        Error::NoProc => ": mount -t proc proc /proc".to_owned(),
        Error::NoQueueLeft(_) => {
            " (mqfs-reap removes orphaned queues; raising kernel.msgmni makes room)".to_owned()
        }
        _ => String::new(),
    };
    anyhow!("{error}{cause}{remedy}")
}

/// What a service manager should know while children finish: that it takes so long, and no less.
fn stopping(drain_timeout: Duration) -> [NotifyState<'static>; 3] {
    const MARGIN: Duration = Duration::from_secs(5);
    let micros = (drain_timeout + MARGIN).as_micros().try_into().unwrap_or(u32::MAX);
    [
        NotifyState::Stopping,
        NotifyState::Status("stopping: transfers under way may finish"),
        NotifyState::ExtendTimeoutUsec(micros),
    ]
}

/// Tells the service manager, if one started us and wants to know: sd_notify(3).
fn tell_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
