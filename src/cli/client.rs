//! `mqfs-client`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Uid;

use super::logging::Stderr;
use super::{FAILED, INTERRUPTED, KeyArgs, NOBODY_READS, UNAVAILABLE, complain, duration, reason};
use crate::client::output::{OutputFile, Unfinished};
use crate::client::{Canceller, Client, Error, Transfer};
use crate::process;
use crate::process::signals::{self, Held};
use crate::text::printable;
use crate::wire::MAX_PATH;

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
struct Opts {
    #[command(flatten)]
    key: KeyArgs,
    /// Write to FILE, which appears complete or not at all
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Fail when nothing came for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Ask again this often in a row when a server dies and nothing arrived since the last time
    #[arg(long, value_name = "N", default_value = "3")]
    retries: u32,
    /// Speak the protocol of other programs only: nothing is proven or verified
    #[arg(long)]
    plain: bool,
    /// Trust a server of this user, besides root's and your own
    #[arg(long, value_name = "UID")]
    server_uid: Option<u32>,
    /// Say what arrived, and whether it was verified
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
    for path in &opts.paths {
        let length = path.len();
        ensure!(length > 0, "invalid path: a path must not be empty");
        ensure!(length <= MAX_PATH, "invalid path: {length} bytes are more than {MAX_PATH}");
    }
    let builder = Client::builder()
        .key(opts.key.key()?)
        .timeout(opts.timeout)
        .retries(opts.retries)
        .plain(opts.plain)
        .server_uid(opts.server_uid.map(Uid::from_raw));
    let unfinished = Unfinished::default();
    clean_up_on_signals(builder.canceller(), unfinished.clone(), opts.quiet)?;
    let client = builder.connect()?;
    let mut sink = Sink::create(opts.output.as_ref(), &unfinished)?;
    let mut status = 0;
    for path in &opts.paths {
        match fetch_whole(&client, path, &mut sink) {
            Ok(transfer) => opts.tell_of(path, &transfer),
            Err(Stop::Source(Error::Cancelled)) => wait_for_the_end(),
            Err(Stop::Source(error)) => {
                opts.complain_of(printable(path), &error);
                if error.is_before_request() {
                    return Ok(ExitCode::from(UNAVAILABLE));
                }
                status = FAILED;
            }
            Err(Stop::Sink(error)) => return Ok(opts.sink_failed(&error)),
        }
    }
    if status == 0
        && let Err(error) = sink.commit()
    {
        opts.complain_of(opts.output_name(), reason(&error));
        status = FAILED;
    }
    Ok(ExitCode::from(status))
}

impl Opts {
    fn complain_of(&self, what: impl std::fmt::Display, why: impl std::fmt::Display) {
        if !self.quiet {
            complain(PROGRAM, format!("{what}: {why}"));
        }
    }

    fn output_name(&self) -> String {
        let named = self.output.as_ref().map(|path| printable(path).to_string());
        named.unwrap_or_else(|| "standard output".to_owned())
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
        let (path, bytes) = (printable(path), transfer.received());
        let trailer = transfer.trailer();
        if trailer.is_some_and(|trailer| trailer.changed) && !self.quiet {
            complain(PROGRAM, format!("{path}: warning: the file changed while it was read"));
        }
        if !self.verbose {
            return;
        }
        match trailer {
            Some(_) => {
                let checksum = transfer.checksum();
                let verified = match transfer.attempts() {
                    1 => "verified".to_owned(),
                    attempts => format!("in {attempts} parts, the last of them verified"),
                };
                complain(
                    PROGRAM,
                    format!("{path}: {bytes} bytes, {verified} (CRC-32 {checksum:08x})"),
                );
            }
            None => {
                let why = "unverified (the plain protocol has no checksum)";
                complain(PROGRAM, format!("{path}: {bytes} bytes, {why}"));
            }
        }
    }
}

/// What a transfer failed on.
enum Stop {
    Source(Error),
    Sink(io::Error),
}

/// Fetches a file, and once more from its beginning if it changed while the server was away and what
/// was written of it can be taken back.
fn fetch_whole(client: &Client, path: &OsStr, sink: &mut Sink) -> Result<Transfer, Stop> {
    let begin = sink.position();
    loop {
        match (fetch(client, path, sink), begin) {
            (Err(Stop::Source(Error::FileChanged)), Some(begin)) => {
                sink.rewind(begin).map_err(Stop::Sink)?;
            }
            (outcome, _) => return outcome,
        }
    }
}

fn fetch(client: &Client, path: &OsStr, sink: &mut Sink) -> Result<Transfer, Stop> {
    let mut transfer = client.open(path).map_err(Stop::Source)?;
    loop {
        let bytes = transfer.fill_buf().map_err(|error| Stop::Source(transfer_error(error)))?;
        if bytes.is_empty() {
            return Ok(transfer);
        }
        sink.write_all(bytes).map_err(Stop::Sink)?;
        let written = bytes.len();
        transfer.consume(written);
    }
}

/// A transfer's reads fail with nothing but the client's own errors.
fn transfer_error(error: io::Error) -> Error {
    error.downcast().unwrap_or(Error::Corrupt("an error without a name"))
}

/// Where the bytes go.
enum Sink {
    Stdout(File),
    File(OutputFile),
}

impl Sink {
    fn create(output: Option<&PathBuf>, unfinished: &Unfinished) -> Result<Self> {
        match output {
            // Not io::stdout(), which looks for line ends in what need not be lines.
            None => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                Ok(Self::Stdout(stdout.context("standard output")?.into()))
            }
            Some(path) => {
                let file = OutputFile::create(path, unfinished)
                    .map_err(|error| anyhow!("{}: {}", printable(path), reason(&error)))?;
                Ok(Self::File(file))
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.write_all(bytes),
            Self::File(file) => file.write_all(bytes),
        }
    }

    /// How much was written, if it can be taken back.
    fn position(&self) -> Option<u64> {
        match self {
            Self::Stdout(_) => None,
            Self::File(file) => file.position(),
        }
    }

    fn rewind(&mut self, position: u64) -> io::Result<()> {
        match self {
            Self::Stdout(_) => Ok(()),
            Self::File(file) => file.rewind(position),
        }
    }

    fn commit(self) -> io::Result<()> {
        match self {
            Self::Stdout(_) => Ok(()),
            Self::File(file) => file.commit(),
        }
    }
}

/// Leaves the last word, and the exit, to the thread that handles the signal.
fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

/// Leaves nothing behind when a signal ends the program, wherever its main thread may be: that one
/// may be waiting for somebody to read its output.
fn clean_up_on_signals(canceller: Canceller, unfinished: Unfinished, quiet: bool) -> Result<()> {
    let _held = Held::new(SigSet::all());
    let under_nohup = signals::is_ignored(Signal::SIGHUP);
    ctrlc::set_handler(move || {
        canceller.cancel();
        unfinished.discard();
        if !quiet {
            // Never waits: whoever was to read it may be gone, or be who sent the signal.
            let _ = Stderr.write_all(format!("{PROGRAM}: interrupted\n").as_bytes());
        }
        process::exit_now(INTERRUPTED.into());
    })
    .context("cannot handle signals")?;
    if under_nohup {
        signals::ignore(Signal::SIGHUP).context("sigaction")?;
    }
    signals::end_on_every_signal(&[]).context("sigaction")
}
