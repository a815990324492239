mod json;
mod prometheus;
mod state;
mod tables;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use self::state::{KeyState, Target};
use super::{FAILED, KeyArgs, UNAVAILABLE, complain, interval, stdout};
use sysv_ipc::{Key, QueueId};

const PROGRAM: &str = "mqfs-stat";

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 the server of the queue or of the counters is dead, or the output failed; \
2 invalid input, or no such queue; 130 interrupted (--watch); 141 nobody reads the \
output any more.";

const SHOW: &str = "How to show it";

/// Show the state of mqfs-server, or of any message queue
///
/// Shows the queue under a key and how much of the kernel's limit on queues is used. If mqfs-server
/// made the queue, also shows the server's counters, and every reply queue with its owner and
/// whether the owner is alive.
#[derive(Debug, Parser)]
#[command(name = "mqfs-stat", version, after_help = EXIT_STATUS, args_override_self = true)]
pub(super) struct Opts {
    /// The same as --key; the queue may be any program's
    #[arg(value_name = "KEY", id = "queue", value_parser = super::key)]
    #[arg(conflicts_with_all = ["key", "key_file"])]
    queue: Option<Key>,
    #[command(flatten, next_help_heading = "Which queue")]
    key: KeyArgs,
    /// The queue with this id, as ipcs prints it: any program's, also one without a key
    #[arg(long, value_name = "MSQID", value_parser = clap::value_parser!(i32).range(0..))]
    #[arg(conflicts_with_all = ["key", "key_file", "queue", "prometheus"])]
    id: Option<i32>,
    /// Print JSON, one object to a line, instead of tables
    #[arg(long, help_heading = SHOW)]
    json: bool,
    /// Print metrics in the text format of Prometheus
    #[arg(long, conflicts_with_all = ["json", "watch"], help_heading = SHOW)]
    prometheus: bool,
    /// Repeat every TIME, with rates, until a signal; redraw in place on a terminal
    #[arg(long, value_name = "TIME", value_parser = interval, help_heading = SHOW)]
    watch: Option<Duration>,
}

pub fn main() -> ExitCode {
    super::exit_status(PROGRAM, false, run(&super::parse(PROGRAM))).into()
}

fn run(opts: &Opts) -> Result<u8> {
    let target = match (opts.id, opts.queue) {
        (Some(id), _) => Target::Id(QueueId::new(id)),
        (None, Some(key)) => Target::Key(key),
        (None, None) => Target::Key(opts.key.key()?),
    };
    if let Some(every) = opts.watch {
        return watch::watch(target, every, opts.json);
    }
    let state = KeyState::read(target, !opts.prometheus)?;
    // Prometheus wants `mqfs_up 0` where nothing exists.
    if opts.prometheus || state.queue.is_some() || state.counters.is_some() {
        stdout::print(&match opts {
            Opts { prometheus: true, .. } => prometheus::page(&state),
            Opts { json: true, .. } => json::line(&state),
            _ => tables::tables(&state),
        })?;
    }
    Ok(if state.queue.is_none() {
        complain(PROGRAM, format!("no queue {target}"));
        UNAVAILABLE
    } else if state.is_of_dead_server() {
        FAILED
    } else {
        0
    })
}
