use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use clap::{Parser, ValueHint, value_parser};
use nix::sys::signal::Signal;
use sd_notify::NotifyState;
use sysv_ipc::Mode;
use tracing::Level;

use super::logging::{self, LogFormat};
use super::remedy::explain_server;
use super::{KeyArgs, duration, signals, size, stdout};
use crate::server::{Config, PlainPolicy, Server};
use crate::sys;
use crate::wire::MAX_WINDOW;

const PROGRAM: &str = "mqfs-server";

const EXIT_STATUS: &str = "\
Exit status: 0 stopped by a signal; 2 invalid input or an unavailable IPC resource, such as a key \
in use.";

const LIMITS: &str = "Limits and times";
const LOG: &str = "What to log";

/// Serve files over System V message queues
///
/// Owns the request queue under its key and forks a child for every request. If root starts it,
/// every user gets the files that they could open themselves. If another user starts it, everybody
/// who may send requests gets what that user can open below --root.
#[derive(Debug, Parser)]
#[command(name = "mqfs-server", version, after_help = EXIT_STATUS, args_override_self = true)]
#[command(next_help_heading = "What to serve, and to whom")]
pub(super) struct Opts {
    #[command(flatten)]
    key: KeyArgs,
    /// As root: remove a queue that another user made under the key, whatever program uses it
    #[arg(long)]
    claim_key: bool,
    /// Serve the files below this directory [default: /, but none if others may send requests and
    /// the server is not root's]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    root: Option<PathBuf>,
    /// Who may send requests: 0600 (owner), 0620 (group), 0602 or 0622 (everybody)
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = mode)]
    mode: Mode,
    /// Which plain requests to answer: those of other programs, which do not prove who sent them
    #[arg(long, value_name = "WHICH", default_value = "owner")]
    plain: PlainPolicy,
    /// Most children at once; more requests wait in the queue
    #[arg(long, value_name = "N", default_value = "64")]
    #[arg(value_parser = value_parser!(u16).range(1..), help_heading = LIMITS)]
    max_children: u16,
    /// Most children at once for one user, whose further requests are told to try again later
    /// [default: 16 if others may send requests]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    #[arg(help_heading = LIMITS)]
    max_per_user: Option<u16>,
    /// How long a child waits for a client that does not read, or for a hung file system
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    #[arg(help_heading = LIMITS)]
    stall_timeout: Duration,
    /// How long a session waits for its client's next question
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    #[arg(help_heading = LIMITS)]
    idle_timeout: Duration,
    /// How long children may continue after the server stops
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    #[arg(help_heading = LIMITS)]
    drain_timeout: Duration,
    /// How often to remove the queues of dead clients
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    #[arg(help_heading = LIMITS)]
    reap_interval: Duration,
    /// Most shared memory for each large file on its way, at most 64M; 0: none
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = window)]
    #[arg(help_heading = LIMITS)]
    window: usize,
    /// Log more
    #[arg(short, long, conflicts_with = "quiet", help_heading = LOG)]
    verbose: bool,
    /// Log only warnings and errors
    #[arg(short, long, help_heading = LOG)]
    quiet: bool,
    /// The form of log lines
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = LOG)]
    log_format: LogFormat,
}

fn mode(text: &str) -> Result<Mode, String> {
    match u16::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o777 => Ok(Mode::new(bits)),
        _ => Err("not a mode: octal digits are expected, such as 0622".to_owned()),
    }
}

fn window(text: &str) -> Result<usize, String> {
    let bytes = usize::try_from(size(text)?).ok().filter(|&bytes| bytes <= MAX_WINDOW);
    bytes.ok_or_else(|| "more than 64M".to_owned())
}

impl Opts {
    fn config(&self) -> Result<Config> {
        ensure!(!self.claim_key || sys::geteuid().is_root(), "--claim-key is for root");
        Ok(Config {
            key: self.key.key()?,
            claim_key: self.claim_key,
            mode: self.mode,
            root: self.root.clone(),
            max_children: self.max_children,
            max_per_user: self.max_per_user,
            stall_timeout: self.stall_timeout,
            idle_timeout: self.idle_timeout,
            drain_timeout: self.drain_timeout,
            window: self.window,
            plain: self.plain,
            reap_interval: Some(self.reap_interval),
        })
    }
}

pub fn main() -> ExitCode {
    super::exit_status(PROGRAM, false, run(&super::parse(PROGRAM))).into()
}

fn run(opts: &Opts) -> Result<u8> {
    let level = match (opts.quiet, opts.verbose) {
        (true, _) => Level::WARN,
        (_, true) => Level::DEBUG,
        _ => Level::INFO,
    };
    logging::init(opts.log_format, level);
    let config = opts.config()?;
    // If the root's file system hangs, so does this call. No signal is blocked yet, so one still
    // ends the program.
    let _ = config.root.as_ref().map(fs::metadata);
    let ending = signals::block(Some(Signal::SIGALRM))?;
    let server = Server::start(config).map_err(|error| anyhow!(explain_server(&error)))?;
    server.stop_on_signals(ending.iter().map(|signal| signal as i32))?;
    sys::keep_heap_at_hand();
    // Not fatal: the server serves all the same. If stdout was closed, nobody waits for the line.
    if let Err(error) = stdout::print(&format!("{PROGRAM}: {server}\n"))
        && !sys::was_closed(libc::STDOUT_FILENO)
    {
        tracing::warn!("cannot say that the server is ready: {error:#}");
    }
    notify_manager(&[NotifyState::Ready, NotifyState::Status(&server.to_string())]);
    sys::leave_less_to_fork();
    let stopping = || {
        const MARGIN: Duration = Duration::from_secs(5);
        let micros = (opts.drain_timeout + MARGIN).as_micros().try_into().unwrap_or(u32::MAX);
        notify_manager(&[
            NotifyState::Stopping,
            NotifyState::Status("stopping: transfers under way may finish"),
            NotifyState::ExtendTimeoutUsec(micros),
        ]);
    };
    server.run_with_notice(stopping).map_err(|error| anyhow!(explain_server(&error)))?;
    Ok(0)
}

/// Tells the service manager, if there is one: sd_notify(3).
fn notify_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
