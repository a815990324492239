//! What the programs of the classic designs share: how they end, and the lock of a server.
//!
//! Whatever a program makes for others to find, it makes through [`own`], which keeps note of it. A
//! thread waits for signals and removes all that was noted; so does the end of `main`. Only SIGKILL
//! leaves something behind.

#![allow(dead_code)] // each program takes of this what it needs

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use sysv_ipc::{Acquire, Error, Key, Lock, Mode, Queue, ReceiveError, SendError};

/// The program's name, for its messages.
pub(super) const PROGRAM: &str = env!("CARGO_BIN_NAME");

const FAILED: i32 = 1;
const UNAVAILABLE: i32 = 2;
/// 128 + SIGINT and 128 + SIGPIPE, as shells count.
const INTERRUPTED: i32 = 130;
const NOBODY_READS: i32 = 141;

/// What `--help` ends with.
pub(super) const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 it failed; 2 invalid input or an unavailable IPC resource; 130 interrupted.";

/// Why a program ends before it is done.
#[derive(Debug)]
pub(super) enum Stop {
    /// An exit status, and what to say.
    Error(i32, String),
    /// A signal interrupted a call: the thread that waits for signals ends the program.
    Interrupted,
}

impl Stop {
    /// What was asked for did not come to pass.
    pub(super) fn failed(why: impl Display) -> Self {
        Self::Error(FAILED, why.to_string())
    }

    /// Invalid input, or an IPC resource that is not to be had.
    pub(super) fn unavailable(why: impl Display) -> Self {
        Self::Error(UNAVAILABLE, why.to_string())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::unavailable(error)
    }
}

impl From<SendError> for Stop {
    fn from(error: SendError) -> Self {
        if error == SendError::Interrupted { Self::Interrupted } else { Self::failed(error) }
    }
}

impl From<ReceiveError> for Stop {
    fn from(error: ReceiveError) -> Self {
        if error == ReceiveError::Interrupted { Self::Interrupted } else { Self::failed(error) }
    }
}

/// Runs a program's work and maps how it ended to an exit status. Nothing that it made is left.
pub(super) fn main(work: impl FnOnce() -> Result<(), Stop>) -> ! {
    struct RemoveOwned;
    impl Drop for RemoveOwned {
        fn drop(&mut self) {
            remove_owned(); // the work panicked
        }
    }
    let _remove_owned = RemoveOwned;
    match work() {
        Ok(()) => end(0, None),
        // A server whose queue went under its hands, because it was to stop.
        Err(_) if is_stopping() => end(0, None),
        Err(Stop::Error(status, why)) => end(status, Some(why)),
        Err(Stop::Interrupted) => loop {
            thread::park();
        },
    }
}

/// How to undo what was made.
type Removal = Box<dyn FnOnce() + Send>;

static OWNED: Mutex<Vec<Removal>> = Mutex::new(Vec::new());

fn owned() -> MutexGuard<'static, Vec<Removal>> {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove_all(owned: &mut Vec<Removal>) {
    while let Some(remove) = owned.pop() {
        remove();
    }
}

/// Makes something that is removed when the program ends. A signal comes before it is made, and then
/// it is not, or after that is noted.
pub(super) fn own<T: Copy + Send + 'static, E: Into<Stop>>(
    make: impl FnOnce() -> Result<T, E>,
    remove: impl FnOnce(T) -> Result<(), Error> + Send + 'static,
) -> Result<T, Stop> {
    let mut owned = owned();
    if is_stopping() {
        return Err(Stop::Interrupted);
    }
    let made = make().map_err(Into::into)?;
    // Somebody else may have removed it by then, which is as good.
    owned.push(Box::new(move || {
        let _ = remove(made);
    }));
    Ok(made)
}

/// Removes what was made so far.
pub(super) fn remove_owned() {
    remove_all(&mut owned());
}

/// Ends the program at once, with its last words, and with nothing of its making left.
pub(super) fn end(status: i32, why: Option<String>) -> ! {
    // Never given back: no other thread makes anything any more, or ends the program otherwise.
    let mut owned = owned();
    if let Some(why) = why {
        complain(why);
    }
    if let Some(last_words) = LAST_WORDS.get() {
        last_words();
    }
    remove_all(&mut owned);
    exit(status)
}

/// What the program says last, however it ends.
static LAST_WORDS: OnceLock<fn()> = OnceLock::new();

pub(super) fn end_with(last_words: fn()) {
    LAST_WORDS.get_or_init(|| last_words);
}

/// Lets SIGINT, SIGTERM and SIGHUP end the program with 130.
pub(super) fn end_on_signals() -> Result<(), Stop> {
    on_signals(|| end(INTERRUPTED, Some("interrupted".to_owned())))
}

/// Whether a signal asked a server to stop.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Lets the same signals remove all that a server made. Its receive finds the queue gone then
/// (`EIDRM`), and [`is_stopping`] tells that it was to be.
pub(super) fn stop_on_signals() -> Result<(), Stop> {
    on_signals(|| {
        STOPPING.store(true, SeqCst);
        remove_owned();
    })
}

pub(super) fn is_stopping() -> bool {
    STOPPING.load(SeqCst)
}

fn on_signals(handler: impl FnMut() + Send + 'static) -> Result<(), Stop> {
    // ctrlc runs it on a thread of its own, where it may do anything.
    ctrlc::set_handler(handler).map_err(|error| Stop::unavailable(format!("signals: {error}")))
}

/// Takes the lock of a key's server: a semaphore under the same key. The kernel gives it back when
/// its holder dies, however it dies (`SEM_UNDO`), so a lock that is held tells of a server that lives.
pub(super) fn lock(key: Key) -> Result<Lock, Stop> {
    let take = || loop {
        let semaphore = Lock::open_or_create(key, Mode::new(0o644))?;
        match semaphore.try_acquire() {
            Ok(Acquire::Acquired) => return Ok(semaphore),
            Ok(_) => {
                let pid = semaphore.last_pid()?.map(|pid| format!(", pid {pid}"));
                let pid = pid.unwrap_or_default();
                let why = format!("key {key} is in use: a server runs there already{pid}");
                return Err(Stop::unavailable(why));
            }
            Err(error) if error.is_gone() => {} // by a server that stops; make another
            Err(error) => return Err(error.into()),
        }
    };
    own(take, Lock::remove)
}

/// The queue of a server that lives. Nobody waits at the queue of one that was killed.
pub(super) fn find(server: &str, key: Key) -> Result<Queue, Stop> {
    match Queue::open(key) {
        Err(error) if error.is_gone() => {
            Err(Stop::unavailable(format!("no {server}: no queue has key {key}")))
        }
        Ok(_) if Lock::open(key).and_then(Lock::is_held) == Ok(false) => {
            Err(Stop::unavailable(format!("no {server}: the one of key {key} is dead")))
        }
        found => Ok(found?),
    }
}

/// Whether there is such a process. One that is not ours to signal lives, too.
pub(super) fn is_alive(pid: Pid) -> bool {
    kill(pid, None) != Err(Errno::ESRCH)
}

/// Parses the arguments, or ends the program: with the help, or with one line that says what is wrong.
pub(super) fn parse<T: Parser>() -> T {
    T::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        let text = error.to_string();
        let wrong = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let wrong = wrong.split_whitespace().collect::<Vec<_>>().join(" ");
        complain(format!("{wrong} (see {PROGRAM} --help)"));
        exit(UNAVAILABLE)
    })
}

/// `0x1aaaaaa1` or decimal, and not `IPC_PRIVATE`, which nobody can find.
pub(super) fn key(text: &str) -> Result<Key, String> {
    let key: Key = text.parse().map_err(|error| format!("{error}"))?;
    if key.is_private() { Err("this is IPC_PRIVATE".to_owned()) } else { Ok(key) }
}

/// `500ms`, `5s`; more than zero, at most a year.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() || duration > YEAR => {
            Err("must be more than zero and at most a year".to_owned())
        }
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; durations are written 500ms, 5s, 1m")),
    }
}

/// Says something on standard output, in one line.
pub(super) fn say(line: impl Display) {
    if let Err(error) = io::stdout().write_all(format!("{line}\n").as_bytes()) {
        // As for any program whose reader went away: no word.
        if error.kind() == ErrorKind::BrokenPipe {
            end(NOBODY_READS, None);
        }
        end(FAILED, Some(format!("standard output: {error}")));
    }
}

/// Says something on standard error, in one line and one write. Nobody may be there to read it.
pub(super) fn complain(message: impl Display) {
    let _ = io::stderr().write_all(format!("{PROGRAM}: {message}\n").as_bytes());
}

/// Whether a thread of this process sleeps: where it could only be in a call, it waits there.
pub(super) fn is_asleep(thread: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')))
}

/// Waits for a condition, but not for ever.
pub(super) fn wait_until(
    timeout: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> Result<(), Stop> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > timeout {
            return Err(Stop::failed(format!("timed out: {what}")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
