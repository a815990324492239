//! `mqfs-client`.

mod archive;
mod concatenate;
mod copy;
mod list;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use sysv_ipc::Uid;

use super::logging::Stderr;
use super::progress::{self, Progress};
use super::remedy::explain_client;
use super::signals::EndingSignals;
use super::{Exit, FAILED, INTERRUPTED, KeyArgs, complain, duration, reason, size};
use crate::client::save::CleanupGuard;
use crate::client::{Canceller, Client, Error, ErrorKind};
use crate::escape::escape;
use crate::sys;
use crate::wire::MAX_PATH;

const PROGRAM: &str = "mqfs-client";

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 a request failed, or a file is incomplete; 2 invalid input or an
unavailable IPC resource; 130 interrupted; 141 nobody reads the output any more.";

/// Fetch files from mqfs-server
///
/// Writes the files to standard output, byte for byte and one after the other, or to a file that
/// appears only when it is complete.
#[derive(Debug, Parser)]
#[command(name = "mqfs-client", version, after_help = EXIT_STATUS)]
pub(super) struct Opts {
    #[command(flatten)]
    key: KeyArgs,
    /// Write to FILE, which appears complete or not at all
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the files into the directory DIR, under their own names
    #[arg(short = 'C', long, value_name = "DIR")]
    #[arg(conflicts_with_all = ["output", "offset", "length"])]
    directory: Option<PathBuf>,
    /// Fetch directories with everything below them, to -C DIR or as --tar
    #[arg(short, long, conflicts_with_all = ["output", "offset", "length", "plain"])]
    recursive: bool,
    /// Write a tar archive to standard output
    #[arg(long, conflicts_with_all = ["directory", "output", "offset", "length", "plain"])]
    tar: bool,
    /// Do not keep the files' modes and times in -C DIR or --tar
    #[arg(long)]
    no_preserve: bool,
    /// List the entries of directories, like ls -l
    #[arg(short, long, conflicts_with_all = ["directory", "output", "recursive", "tar"])]
    #[arg(conflicts_with_all = ["offset", "length", "plain"])]
    list: bool,
    /// Show the metadata of a file, like stat
    #[arg(long, conflicts_with_all = ["list", "directory", "output", "recursive", "tar"])]
    #[arg(conflicts_with_all = ["offset", "length", "plain"])]
    stat: bool,
    /// Print --list or --stat as JSON, one object to a line
    #[arg(long)]
    json: bool,
    /// Begin at this byte, counted from 0: 4096, 64K, 1M
    #[arg(long, value_name = "N", default_value = "0", value_parser = size)]
    #[arg(conflicts_with = "plain")]
    offset: u64,
    /// Fetch at most this many bytes
    #[arg(long, value_name = "N", value_parser = size, conflicts_with = "plain")]
    length: Option<u64>,
    /// Fail if nothing arrives for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Ask again at most this often if servers die and nothing new arrives
    #[arg(long, value_name = "N", default_value = "3")]
    retries: u32,
    /// Use only the plain protocol, that of other programs: no proof of identity, no checksum
    #[arg(long)]
    plain: bool,
    /// Trust this user's server, and not only root's and your own
    #[arg(long, value_name = "UID")]
    server_uid: Option<u32>,
    /// When to show a progress bar on standard error
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    progress: progress::When,
    /// Say what arrived, whether it was verified, and how long it took
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Print no messages; the exit status tells
    #[arg(short, long)]
    quiet: bool,
    /// Files to fetch; / is the server's --root
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let opts: Opts = super::parse(PROGRAM);
    super::exit(PROGRAM, opts.quiet, run(&opts))
}

fn run(opts: &Opts) -> Result<u8> {
    sys::share_one_arena();
    opts.check()?;
    let client = Client::builder()
        .key(opts.key.key()?)
        .timeout(opts.timeout)
        .retries(opts.retries)
        .plain(opts.plain)
        .sessions(opts.paths.len() > 1)
        .server_uid(opts.server_uid.map(Uid::from_raw))
        .build();
    let cleanup = CleanupGuard::default();
    clean_up_on_signals(client.canceller(), cleanup.clone(), opts.quiet)?;
    match &opts.directory {
        _ if opts.list || opts.stat => list::run(opts, &client),
        _ if opts.tar => archive::run(opts, &client),
        Some(directory) => copy::run(opts, &client, directory, &cleanup),
        None => concatenate::run(opts, &client, &cleanup),
    }
}

/// Removes the reply queue and the temporary file when a signal ends the program, whatever the main
/// thread does: it may be blocked in a write to its output.
fn clean_up_on_signals(canceller: Canceller, cleanup: CleanupGuard, quiet: bool) -> Result<()> {
    EndingSignals::block(None)?.handle(move || {
        canceller.cancel();
        cleanup.discard();
        progress::clear();
        if !quiet {
            // Never blocks: the reader of stderr may be gone, or may have sent the signal.
            let _ = Stderr.write_all(format!("{PROGRAM}: interrupted\n").as_bytes());
        }
        sys::exit_now(INTERRUPTED.into());
    })
}

/// Why a path could not be fetched.
enum Failure {
    /// The client failed.
    Source(Error),
    /// The output failed.
    Sink(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Source(error)
    }
}

impl Opts {
    /// Checks what clap cannot.
    fn check(&self) -> Result<()> {
        for path in &self.paths {
            let length = path.len();
            ensure!(length > 0, "invalid path: a path must not be empty");
            ensure!(length <= MAX_PATH, "invalid path: {length} bytes are more than {MAX_PATH}");
        }
        ensure!(
            !self.recursive || self.directory.is_some() || self.tar,
            "--recursive needs --directory DIR or --tar"
        );
        ensure!(!self.json || self.list || self.stat, "--json is for --list and --stat");
        Ok(())
    }

    /// Fetches each path with `fetch`, which tells whether everything arrived. Returns the exit
    /// status.
    fn fetch_each(&self, mut fetch: impl FnMut(&OsStr) -> Result<bool, Failure>) -> Result<u8> {
        let mut status = 0;
        for path in &self.paths {
            match fetch(path) {
                Ok(true) => {}
                Ok(false) => status = FAILED,
                Err(Failure::Sink(error)) => return Err(self.sink_failed(error)),
                Err(Failure::Source(error)) if error.kind() == ErrorKind::Cancelled => loop {
                    thread::park(); // the thread that handles the signal ends the program
                },
                Err(Failure::Source(error)) => {
                    let why = explain_client(&error);
                    ensure!(!error.is_before_request(), why); // it would stop every other path
                    self.complain_of(escape(path), why);
                    status = FAILED;
                }
            }
        }
        Ok(status)
    }

    /// Fetches each path, a tree perhaps, with `fetch`, which returns how many entries are missing.
    fn fetch_each_tree(
        &self,
        progress: &Progress,
        mut fetch: impl FnMut(&OsStr) -> Result<u64, Failure>,
    ) -> Result<u8> {
        self.fetch_each(|path| {
            progress.begin(path, None);
            let missing = fetch(path)?;
            if missing > 0 {
                let entries = if missing == 1 { "entry is" } else { "entries are" };
                let why = format!("incomplete: {missing} {entries} missing");
                self.complain_of(escape(path), why);
            }
            Ok(missing == 0)
        })
    }

    fn complain_of(&self, what: impl Display, why: impl Display) {
        if !self.quiet {
            complain(PROGRAM, format!("{what}: {why}"));
        }
    }

    fn warn_of_change(&self, path: &OsStr) {
        self.complain_of(escape(path), "warning: the file changed while it was read");
    }

    /// Says that output failed, unless its reader has left.
    fn sink_failed(&self, error: io::Error) -> anyhow::Error {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return error.into();
        }
        let output = self.output.as_deref().unwrap_or("standard output".as_ref());
        self.complain_of(escape(output), reason(&error));
        Exit(FAILED).into()
    }

    fn progress(&self) -> progress::When {
        if self.quiet { progress::When::Never } else { self.progress }
    }

    fn print_summary(&self, progress: &Progress) {
        if let Some(summary) = progress.summary().filter(|_| self.verbose) {
            complain(PROGRAM, summary);
        }
    }
}

/// The path of an entry below `top`.
fn joined(top: &OsStr, below: &OsStr) -> OsString {
    let mut path = top.to_owned();
    if !below.is_empty() {
        if !path.as_encoded_bytes().ends_with(b"/") {
            path.push("/");
        }
        path.push(below);
    }
    path
}
