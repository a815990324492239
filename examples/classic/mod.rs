//! What the classic designs share: how a program ends, and how a server owns its key.
//!
//! A program registers what it makes with [`own`]. Whichever way it ends, except by SIGKILL, what
//! it registered is removed: at the end of its work, after an error, and when SIGINT, SIGTERM or
//! SIGHUP comes, which a thread of its own handles.

#![allow(dead_code)] // no program uses all of this

use std::fmt::Display;
use std::io::Write;
use std::process::exit;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Result, ensure};
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use sysv_ipc::{Acquire, Key, Lock, Mode, Queue, ReceiveError, SendError};

const PROGRAM: &str = env!("CARGO_BIN_NAME");

/// What to remove at the end, the last one first.
static OWNED: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());

/// Runs the work of a program. A signal ends it with the given status: 0 for a server, which runs
/// until then, and 130 for a program that is interrupted.
pub(super) fn main(status_on_signal: i32, work: impl FnOnce() -> Result<()>) -> ! {
    let handler = move || end(status_on_signal, None);
    match ctrlc::set_handler(handler).map_err(Into::into).and_then(|()| work()) {
        Ok(()) => end(0, None),
        // By the signal whose handler ends the program.
        Err(error) if is_interrupted(&error) => loop {
            thread::park();
        },
        Err(error) => end(1, Some(format!("{error:#}"))),
    }
}

fn is_interrupted(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ReceiveError::Interrupted))
        || matches!(error.downcast_ref(), Some(SendError::Interrupted))
}

/// Removes what the program registered, and exits.
pub(super) fn end(status: i32, why: Option<String>) -> ! {
    // Never unlocked again. Another thread whose queue goes now can neither complain nor end the
    // program otherwise.
    let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(why) = why {
        complain(why);
    }
    while let Some(remove) = owned.pop() {
        remove();
    }
    exit(status)
}

/// Makes something, and registers how to remove it. No signal ends the program in between.
pub(super) fn own<T: Copy + Send + 'static, E: Into<anyhow::Error>, R>(
    make: impl FnOnce() -> Result<T, E>,
    remove: impl FnOnce(T) -> R + Send + 'static,
) -> Result<T> {
    let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    let made = make().map_err(Into::into)?;
    owned.push(Box::new(move || drop(remove(made))));
    Ok(made)
}

/// A new private queue for at most 16 KiB, the kernel's default.
pub(super) fn private_queue() -> Result<Queue> {
    let queue = own(|| Queue::create(Key::PRIVATE, Mode::new(0o600)), Queue::remove)?;
    let mut settings = queue.status()?.settings();
    settings.max_bytes = settings.max_bytes.min(16_384);
    queue.set(&settings)?;
    Ok(queue)
}

/// Takes a server's lock: a semaphore under its key. The kernel releases it when the server dies,
/// however it dies (`SEM_UNDO`), so a lock that is held proves that a server lives.
pub(super) fn lock(key: Key) -> Result<()> {
    let acquire = || {
        let lock = Lock::open_or_create(key, Mode::new(0o644))?;
        let holder = lock.last_pid()?.map_or_else(String::new, |pid| format!(", pid {pid}"));
        let acquired = lock.try_acquire()? == Acquire::Acquired;
        ensure!(acquired, "key {key} is in use: a server runs there already{holder}");
        Ok(lock)
    };
    own(acquire, Lock::remove)?;
    Ok(())
}

/// A server's queue under its key. A queue that exists belongs to another program, or to a server
/// of ours that was killed.
pub(super) fn server_queue(key: Key) -> Result<Queue> {
    own(
        || {
            let queue = Queue::create(key, Mode::new(0o600));
            let taken = queue.is_err_and(|error| error.already_exists());
            ensure!(!taken, "key {key} is taken; if no program needs the queue: ipcrm -Q {key}");
            Ok(queue?)
        },
        Queue::remove,
    )
}

/// The queue of a server that lives. A killed server leaves its queue, where nobody would answer.
pub(super) fn find_server(key: Key) -> Result<Queue> {
    let queue = Queue::open(key);
    ensure!(!queue.is_err_and(|error| error.is_gone()), "no server: no queue has key {key}");
    let is_dead = Lock::open(key).and_then(Lock::is_held) == Ok(false);
    ensure!(!is_dead, "no server: the one of key {key} is dead");
    Ok(queue?)
}

/// Whether a process exists. `EPERM` means that it does, and belongs to another user.
pub(super) fn is_alive(pid: Pid) -> bool {
    kill(pid, None) != Err(Errno::ESRCH)
}

/// Whether a thread of this process sleeps in a system call.
pub(super) fn is_asleep(thread: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
}

/// Waits for a condition, with a deadline.
pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !condition() {
        ensure!(start.elapsed() < Duration::from_secs(10), "timed out: {what}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Prints a line. If nobody reads, the program ends, and leaves nothing.
pub(super) fn say(line: impl Display) {
    if writeln!(io::stdout(), "{line}").is_err() {
        end(1, None);
    }
}

/// Prints a line to standard error.
pub(super) fn complain(message: impl Display) {
    let _ = writeln!(io::stderr(), "{PROGRAM}: {message}");
}
