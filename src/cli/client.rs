mod archive;
mod concatenate;
mod copy;
mod list;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueHint};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sysv_ipc::Uid;

use super::logging::write_stderr;
use super::progress::{self, When};
use super::remedy::{explain_client, explain_output};
use super::{
    FAILED, INTERRUPTED, KeyArgs, complain, duration, run_for_at_most, signals, size, user,
};
use crate::client::save::CleanupGuard;
use crate::client::{Canceller, Client, Error, ErrorKind, Files, Transfer};
use crate::escape::escape;
use crate::sys;

const PROGRAM: &str = "mqfs-client";

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 a request or the output failed, or a file is incomplete; 2 invalid input \
or an unavailable IPC resource; 130 interrupted; 141 nobody reads the output any more.";

const WHAT: &str = "What to fetch";
const WHERE: &str = "Where to put it";
const SHOW: &str = "What to show";

/// Fetch files from mqfs-server
///
/// Writes the files to standard output, byte for byte and one after the other, or to a file that
/// appears only when it is complete.
#[derive(Debug, Parser)]
#[command(name = "mqfs-client", version, after_help = EXIT_STATUS, args_override_self = true)]
pub(super) struct Opts {
    /// Files to fetch. A path begins at the server's --root, with or without a slash; the
    /// current directory does not count
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    #[arg(required_unless_present = "list", default_value_if("list", "true", "/"))]
    paths: Vec<OsString>,
    /// Fetch directories with everything below them, to -C DIR or as --tar
    #[arg(short, long, short_alias = 'R', help_heading = WHAT)]
    #[arg(conflicts_with_all = ["output", "offset", "length", "plain"])]
    recursive: bool,
    /// List the entries of directories, like ls -l; without a PATH, those of /
    #[arg(short, long, conflicts_with_all = ["directory", "output", "recursive", "tar"])]
    #[arg(conflicts_with_all = ["offset", "length", "plain"], help_heading = WHAT)]
    list: bool,
    /// Show the metadata of a file, like stat
    #[arg(long, conflicts_with_all = ["list", "directory", "output", "recursive", "tar"])]
    #[arg(conflicts_with_all = ["offset", "length", "plain"], help_heading = WHAT)]
    stat: bool,
    /// Begin at this byte, counted from 0: 4096, 64K, 1M. Beyond the end of a file is nothing. For
    /// standard output or -o FILE
    #[arg(long, value_name = "N", default_value = "0", value_parser = size)]
    #[arg(conflicts_with = "plain", help_heading = WHAT, allow_negative_numbers = true)]
    offset: u64,
    /// Fetch at most this many bytes, to standard output or -o FILE
    #[arg(long, value_name = "N", value_parser = size)]
    #[arg(conflicts_with = "plain", help_heading = WHAT, allow_negative_numbers = true)]
    length: Option<u64>,
    /// Write to FILE, which appears complete or not at all; - is standard output
    #[arg(short, long, value_name = "FILE", help_heading = WHERE)]
    output: Option<PathBuf>,
    /// Write the files into the directory DIR, under their own names
    #[arg(short = 'C', long, value_name = "DIR", alias = "target-directory", help_heading = WHERE)]
    #[arg(value_hint = ValueHint::DirPath, conflicts_with_all = ["output", "offset", "length"])]
    directory: Option<PathBuf>,
    /// Write a tar archive to standard output
    #[arg(long, conflicts_with_all = ["directory", "output", "offset", "length", "plain"])]
    #[arg(help_heading = WHERE)]
    tar: bool,
    /// Do not keep the files' modes and times in -C DIR or --tar
    #[arg(long, help_heading = WHERE)]
    no_preserve: bool,
    /// Print --list or --stat as JSON, one object to a line
    #[arg(long, help_heading = SHOW)]
    json: bool,
    /// When to show a progress bar on standard error [default: auto, or never with --quiet]
    #[arg(long, value_name = "WHEN", help_heading = SHOW)]
    progress: Option<When>,
    /// Say what arrived, whether it was verified, how long it took, and what the client waits for
    #[arg(short, long, conflicts_with = "quiet", help_heading = SHOW)]
    verbose: bool,
    /// Print no messages; the exit status tells
    #[arg(short, long, alias = "silent", help_heading = SHOW)]
    quiet: bool,
    #[command(flatten, next_help_heading = "Server and time limits")]
    key: KeyArgs,
    /// Trust this user's server, and not only root's and your own: a name or a uid
    #[arg(long, value_name = "UID", value_parser = user, value_hint = ValueHint::Username)]
    server_uid: Option<Uid>,
    /// Use only the plain protocol, that of other programs: no proof of identity, no checksum
    #[arg(long)]
    plain: bool,
    /// Fail if nothing arrives for this long. Without a server, fail at once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Ask again at most this often in a row if servers die and no byte arrives in between
    #[arg(long, value_name = "N", default_value = "3")]
    retries: u32,
}

pub fn main() -> ExitCode {
    let mut opts: Opts = super::parse(PROGRAM);
    let outcome = opts.check().and_then(|()| run(&opts));
    super::exit_status(PROGRAM, opts.quiet, outcome).into()
}

fn run(opts: &Opts) -> Result<u8> {
    let started = Instant::now();
    sys::share_one_arena();
    if let (true, Ok((_, most))) = (opts.recursive || opts.tar, getrlimit(Resource::RLIMIT_NOFILE))
    {
        // A tree takes a descriptor for each of its levels.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let client = Client::builder()
        .key(opts.key.key()?)
        .timeout(opts.timeout)
        .retries(opts.retries)
        .plain(opts.plain)
        .sessions(opts.paths.len() > 1 || opts.list)
        .server_uid(opts.server_uid)
        .on_wait(if opts.verbose { say_that_it_waits } else { |_| progress::set_waiting(true) })
        .build();
    let cleanup = CleanupGuard::default();
    clean_up_on_signals(client.canceller(), cleanup.clone(), opts.quiet)?;
    let outcome = match &opts.directory {
        _ if opts.list || opts.stat => list::run(opts, &client),
        _ if opts.tar => archive::run(opts, &client),
        Some(directory) => copy::run(opts, &client, directory, &cleanup),
        None => concatenate::run(opts, &client, &cleanup),
    };
    if let Some(summary) = progress::summary(started).filter(|_| opts.verbose && outcome.is_ok()) {
        complain(PROGRAM, summary);
    }
    progress::clear();
    outcome.map_err(|error| match error.downcast::<io::Error>() {
        Ok(error) => {
            let output = opts.output.as_deref().unwrap_or("standard output".as_ref());
            io::Error::new(error.kind(), explain_output(output, &error)).into()
        }
        Err(error) => error,
    })
}

fn say_that_it_waits(why: &Error) {
    progress::set_waiting(true);
    complain(PROGRAM, format!("waiting for the server: {why}"));
}

/// Removes the reply queue and the temporary file when a signal ends the program, whatever the main
/// thread does: it may be blocked in a write to its output.
fn clean_up_on_signals(canceller: Canceller, cleanup: CleanupGuard, quiet: bool) -> Result<()> {
    signals::handle(move || {
        canceller.cancel();
        // A file system that does not answer must not keep the program from ending.
        let for_thread = cleanup.clone();
        if !run_for_at_most(Duration::from_secs(2), move || for_thread.discard()) {
            cleanup.discard();
        }
        progress::clear();
        if !quiet {
            // Never blocks: the reader of stderr may be gone, or may have sent the signal.
            write_stderr(&format!("{PROGRAM}: interrupted\n"));
        }
        sys::exit_now(INTERRUPTED.into());
    })
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum Failure {
    Source(#[from] Error),
    Sink(#[from] io::Error),
}

impl Opts {
    /// Checks what clap cannot.
    fn check(&mut self) -> Result<()> {
        self.output.take_if(|file| file.as_os_str() == "-"); // standard output
        let (copies, shows) = (self.directory.is_some() || self.tar, self.list || self.stat);
        ensure!(copies || !self.recursive, "--recursive needs --directory DIR or --tar");
        ensure!(copies || !self.no_preserve, "--no-preserve needs --directory DIR or --tar");
        ensure!(shows || !self.json, "--json needs --list or --stat");
        let is_bar = self.progress == Some(When::Always);
        ensure!(!shows || !is_bar, "--progress always: --list and --stat show no progress");
        if copies { self.check_names() } else { Ok(()) }
    }

    /// Refuses paths whose copies would replace each other, and leaves out repetitions, like cp(1).
    fn check_names(&mut self) -> Result<()> {
        let mut names: HashMap<_, PathBuf> = HashMap::new();
        for path in mem::take(&mut self.paths) {
            let whole = Path::new("/").join(&path); // compared by components
            let shown = escape(&path);
            match names.insert(whole.file_name().map(OsStr::to_owned), whole.clone()) {
                Some(other) if other == whole => {
                    self.complain_of(shown, "warning: given more than once");
                }
                Some(other) => {
                    bail!("{shown}: will not overwrite the copy of {}", escape(&other))
                }
                None => self.paths.push(path),
            }
        }
        ensure!(
            names.len() < 2 || !names.contains_key(&None) || !(self.recursive || self.tar),
            "a path that has no name of its own, such as / or .., must be the only one"
        );
        Ok(())
    }

    /// Fetches each path by `fetch`, which tells whether all arrived. Returns the exit status.
    fn fetch_each(
        &self,
        paths: &[OsString],
        mut fetch: impl FnMut(&OsStr) -> Result<bool, Failure>,
    ) -> Result<u8> {
        let mut status = 0;
        for path in paths {
            match fetch(path) {
                Ok(true) => {}
                Ok(false) => status = FAILED,
                Err(Failure::Sink(error)) => return Err(error.into()),
                Err(Failure::Source(error)) if error.kind() == ErrorKind::Cancelled => loop {
                    thread::park(); // the thread that handles the signal ends the program
                },
                Err(Failure::Source(error)) => {
                    let why = explain_client(&error);
                    // Invalid input, or what would stop every other path, too.
                    ensure!(!error.is_before_request(), why);
                    self.complain_of(escape(path), why);
                    status = FAILED;
                }
            }
        }
        Ok(status)
    }

    /// Fetches each path, a tree perhaps, with `fetch`, which returns how many entries are missing.
    fn fetch_each_tree(&self, mut fetch: impl FnMut(&OsStr) -> Result<u64, Failure>) -> Result<u8> {
        self.fetch_each(&self.paths, |path| {
            progress::begin(path, None);
            let missing = fetch(path)?;
            if missing > 0 {
                let entries = if missing == 1 { "entry is" } else { "entries are" };
                let why = format!("incomplete: {missing} {entries} missing");
                self.complain_of(escape(path), why);
            }
            Ok(missing == 0)
        })
    }

    /// Fetches the next file with `fetch`, and again, at most `retries` times, if it changes while
    /// its server is away. With `--verbose`, says how much arrived.
    fn fetch_file(
        &self,
        files: &mut Files,
        path: &OsStr,
        mut retries: u32,
        mut fetch: impl FnMut(&mut Transfer) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while let Some(transfer) = files.next_file() {
            let fetched = transfer.map_err(Failure::from).and_then(|transfer| {
                progress::begin(path, transfer.expected());
                fetch(transfer)?;
                progress::count_file();
                if transfer.has_changed() {
                    self.warn_of_change(path);
                }
                if self.verbose {
                    report(path, transfer);
                }
                Ok(())
            });
            match fetched {
                Err(Failure::Source(error))
                    if error.kind() == ErrorKind::FileChanged && retries > 0 =>
                {
                    retries -= 1;
                    files.ask_next(path);
                }
                outcome => return outcome,
            }
        }
        Ok(())
    }

    fn complain_of(&self, what: impl Display, why: impl Display) {
        if !self.quiet {
            complain(PROGRAM, format!("{what}: {why}"));
        }
    }

    fn warn_of_change(&self, path: &OsStr) {
        self.complain_of(escape(path), "warning: the file changed while it was read");
    }

    fn progress(&self) -> When {
        self.progress.unwrap_or(if self.quiet { When::Never } else { When::Auto })
    }
}

fn report(path: &OsStr, transfer: &Transfer) {
    let (path, bytes) = (escape(path), transfer.received());
    let how = match (transfer.is_verified(), transfer.parts()) {
        (false, _) => "unverified (the plain protocol has no checksum)".to_owned(),
        (true, 1) => format!("verified (CRC-32 {:08x})", transfer.checksum()),
        (true, n) => format!("in {n} parts, verified (CRC-32 {:08x})", transfer.checksum()),
    };
    complain(PROGRAM, format!("{path}: {bytes} bytes, {how}"));
}

/// The path of an entry below `top`.
fn joined(top: &OsStr, below: &OsStr) -> OsString {
    // join would append a slash
    if below.is_empty() { top.to_owned() } else { Path::new(top).join(below).into() }
}
