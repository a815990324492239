//! `mqfs-client`.

mod list;
mod sink;
mod tar;
mod tree;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, Write};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use clap::Parser;
use sysv_ipc::Uid;

use super::logging::Stderr;
use super::progress::{self, Progress};
use super::signals::EndingSignals;
use super::{
    FAILED, INTERRUPTED, KeyArgs, NOBODY_READS, UNAVAILABLE, complain, duration, reason, size,
};
use crate::client::save::CleanupGuard;
use crate::client::{Canceller, Client, Error, ErrorKind, Transfer};
use crate::escape::escape;
use crate::sys;
use crate::wire::MAX_PATH;
use sink::Sink;

const PROGRAM: &str = "mqfs-client";

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 the request failed, or what arrived is incomplete; 2 invalid input or an
unavailable IPC resource; 130 interrupted; 141 nobody reads the output any more.";

/// Fetch files from mqfs-server
///
/// Writes the files to standard output, byte for byte, one after the other, or to a file that
/// appears only when it is complete.
#[derive(Debug, Parser)]
#[command(name = "mqfs-client", version, after_help = EXIT_STATUS)]
pub(super) struct Opts {
    #[command(flatten)]
    key: KeyArgs,
    /// Write to FILE, which appears complete or not at all
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write below the folder DIR, under the names that the files have
    #[arg(short = 'C', long, value_name = "DIR", conflicts_with_all = ["output", "offset", "length"])]
    directory: Option<PathBuf>,
    /// Fetch directories with all that is below them, to -C DIR or as --tar
    #[arg(short, long, conflicts_with_all = ["output", "offset", "length", "plain"])]
    recursive: bool,
    /// Write a tar archive to standard output
    #[arg(long, conflicts_with_all = ["directory", "output", "offset", "length", "plain"])]
    tar: bool,
    /// Do not keep modes and times of what is written to -C DIR or as --tar
    #[arg(long)]
    no_preserve: bool,
    /// List what directories hold, like ls -l
    #[arg(short, long, conflicts_with_all = ["directory", "output", "recursive", "tar", "offset", "length", "plain"])]
    list: bool,
    /// Show what something is, like stat
    #[arg(long, conflicts_with_all = ["list", "directory", "output", "recursive", "tar", "offset", "length", "plain"])]
    stat: bool,
    /// Show it as JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Begin at this byte, the first being 0: 4096, 64K, 1M
    #[arg(long, value_name = "N", default_value = "0", value_parser = size, conflicts_with = "plain")]
    offset: u64,
    /// Fetch at most so many bytes
    #[arg(long, value_name = "N", value_parser = size, conflicts_with = "plain")]
    length: Option<u64>,
    /// Fail when nothing came for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Ask again this often in a row when a server dies and nothing new arrived since the last time
    #[arg(long, value_name = "N", default_value = "3")]
    retries: u32,
    /// Speak the protocol of other programs only: nothing is proven or verified
    #[arg(long)]
    plain: bool,
    /// Trust a server of this user, besides root's and your own
    #[arg(long, value_name = "UID")]
    server_uid: Option<u32>,
    /// Show on standard error how far it is
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    progress: progress::When,
    /// Say what arrived, whether it was verified, and how long it all took
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Say nothing; the exit status tells
    #[arg(short, long)]
    quiet: bool,
    /// Files to fetch; an absolute path begins at the server's --root
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let opts: Opts = super::parse(PROGRAM);
    let outcome = run(&opts);
    if opts.quiet && outcome.is_err() {
        return ExitCode::from(UNAVAILABLE);
    }
    super::exit(PROGRAM, outcome)
}

fn run(opts: &Opts) -> Result<ExitCode> {
    sys::share_one_arena();
    for path in &opts.paths {
        let length = path.len();
        ensure!(length > 0, "invalid path: a path must not be empty");
        ensure!(length <= MAX_PATH, "invalid path: {length} bytes are more than {MAX_PATH}");
    }
    ensure!(
        !opts.recursive || opts.directory.is_some() || opts.tar,
        "--recursive needs to be told where to: --directory DIR, or --tar"
    );
    ensure!(!opts.json || opts.list || opts.stat, "--json is for --list and --stat");
    let builder = Client::builder()
        .key(opts.key.key()?)
        .timeout(opts.timeout)
        .retries(opts.retries)
        .plain(opts.plain)
        .server_uid(opts.server_uid.map(Uid::from_raw));
    let (client, cleanup) = (builder.build(), CleanupGuard::default());
    clean_up_on_signals(client.canceller(), cleanup.clone(), opts.quiet)?;
    client.check_server().map_err(|error| anyhow!(explain(&error)))?;
    if opts.recursive || opts.tar {
        tree::raise_descriptors();
    }
    match &opts.directory {
        _ if opts.list || opts.stat => Ok(list::run(opts, &client)),
        _ if opts.tar => tar::run(opts, &client),
        Some(folder) => tree::run(opts, &client, folder, &cleanup),
        None => concatenate(opts, &client, &cleanup),
    }
}

/// Leaves nothing behind when a signal ends the program, wherever its main thread may be: that one
/// may be waiting for somebody to read its output.
fn clean_up_on_signals(canceller: Canceller, cleanup: CleanupGuard, quiet: bool) -> Result<()> {
    EndingSignals::block()?.handle(move || {
        canceller.cancel();
        cleanup.discard();
        progress::clear();
        if !quiet {
            // Never waits: its reader may be gone, or may be who sent the signal.
            let _ = Stderr.write_all(format!("{PROGRAM}: interrupted\n").as_bytes());
        }
        sys::exit_now(INTERRUPTED.into());
    })
}

fn concatenate(opts: &Opts, client: &Client, cleanup: &CleanupGuard) -> Result<ExitCode> {
    let mut sink = Sink::create(opts, cleanup)?;
    let progress = Progress::start(opts.progress(), sink.is_terminal());
    let mut status = 0;
    for path in &opts.paths {
        match fetch_whole(client, opts, path, &mut sink, &progress) {
            Ok(transfer) => opts.tell_of(path, &transfer),
            Err(Stop::Source(error)) => match opts.failed(path, &error) {
                Some(exit) => return Ok(exit),
                None => status = FAILED,
            },
            Err(Stop::Sink(error)) => return Ok(opts.sink_failed(&error)),
        }
    }
    if status == 0
        && let Err(error) = sink.commit()
    {
        opts.complain_of(opts.output_name(), reason(&error));
        status = FAILED;
    }
    opts.tell_of_all(&progress);
    Ok(ExitCode::from(status))
}

impl Opts {
    fn complain_of(&self, what: impl std::fmt::Display, why: impl std::fmt::Display) {
        if !self.quiet {
            complain(PROGRAM, format!("{what}: {why}"));
        }
    }

    /// --quiet is about all that is said.
    fn progress(&self) -> progress::When {
        if self.quiet { progress::When::Never } else { self.progress }
    }

    /// Asks for what is wanted of a file.
    fn open(&self, client: &Client, path: &OsStr) -> Result<Transfer, Error> {
        let end = self.length.map(|length| self.offset.saturating_add(length));
        client.open_range(path, (Included(self.offset), end.map_or(Unbounded, Excluded)))
    }

    fn output_name(&self) -> String {
        let named = self.output.as_ref().map(|path| escape(path).to_string());
        named.unwrap_or_else(|| "standard output".to_owned())
    }

    /// Says what went wrong with a path, and what the program is to end with if that is the end.
    fn failed(&self, path: &OsStr, error: &Error) -> Option<ExitCode> {
        if error.kind() == ErrorKind::Cancelled {
            // The thread that handles the signal has the last word, and exits.
            loop {
                thread::park();
            }
        }
        self.complain_of(escape(path), explain(error));
        error.is_before_request().then(|| ExitCode::from(UNAVAILABLE))
    }

    fn sink_failed(&self, error: &io::Error) -> ExitCode {
        // As for any filter whose reader went away: no word, and what a shell makes of SIGPIPE.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return ExitCode::from(NOBODY_READS);
        }
        self.complain_of(self.output_name(), reason(error));
        ExitCode::from(FAILED)
    }

    fn tell_of(&self, path: &OsStr, transfer: &Transfer) {
        let (path, bytes) = (escape(path), transfer.received());
        if transfer.has_changed() && !self.quiet {
            complain(PROGRAM, format!("{path}: warning: the file changed while it was read"));
        }
        if !self.verbose {
            return;
        }
        if transfer.is_verified() {
            let checksum = transfer.checksum();
            let verified = match transfer.parts() {
                1 => "verified".to_owned(),
                parts => format!("in {parts} parts, verified"),
            };
            complain(PROGRAM, format!("{path}: {bytes} bytes, {verified} (CRC-32 {checksum:08x})"));
        } else {
            let why = "unverified (the plain protocol has no checksum)";
            complain(PROGRAM, format!("{path}: {bytes} bytes, {why}"));
        }
    }

    fn tell_of_all(&self, progress: &Progress) {
        if let Some(summary) = progress.summary().filter(|_| self.verbose) {
            complain(PROGRAM, summary);
        }
    }
}

/// An error with its causes, and with a remedy if there is one.
fn explain(error: &Error) -> String {
    let text = format!("{:#}", anyhow::Error::new(error.clone()));
    match error.kind() {
        ErrorKind::NoServer => format!("{text} (is mqfs-server running in this IPC namespace?)"),
        ErrorKind::ServerDead => format!("{text} (start mqfs-server again)"),
        ErrorKind::NoQueueLeft => {
            format!("{text} (mqfs-reap removes orphaned ones; raising kernel.msgmni makes room)")
        }
        _ => text,
    }
}

/// What a transfer failed on.
enum Stop {
    Source(Error),
    Sink(io::Error),
}

/// Fetches a file, and anew from its beginning, as often as --retries says, if it changed while the
/// server was away and what was written of it can be taken back.
fn fetch_whole(
    client: &Client,
    opts: &Opts,
    path: &OsStr,
    sink: &mut Sink,
    progress: &Progress,
) -> Result<Transfer, Stop> {
    let (begin, mut tries) = (sink.position(), opts.retries);
    loop {
        match (fetch(client, opts, path, sink, progress), begin) {
            (Err(Stop::Source(error)), Some(begin))
                if error.kind() == ErrorKind::FileChanged && tries > 0 =>
            {
                tries -= 1;
                sink.rewind(begin).map_err(Stop::Sink)?;
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
) -> Result<Transfer, Stop> {
    let mut transfer = opts.open(client, path).map_err(Stop::Source)?;
    progress.begin(path, transfer.expected());
    loop {
        let bytes = transfer.fill_buf().map_err(|error| Stop::Source(Error::from_read(error)))?;
        if bytes.is_empty() {
            progress.finish();
            return Ok(transfer);
        }
        sink.write_all(bytes).map_err(Stop::Sink)?;
        let written = bytes.len();
        progress.advance(written);
        transfer.consume(written);
    }
}
