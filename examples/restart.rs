//! A server that is restarted, and a client that holds what it knew of the one before.
//!
//! This process is the client. It starts servers, which are this program, too (`--serve`), kills them and
//! looks at what its old ids are worth then. A server takes the lock of its key, removes what a dead one
//! left there, makes a queue and shared memory, where it counts, and removes all three when it is asked
//! to stop. The client removes what it killed a server over, unless the next one did.
//!
//! A queue dies at once, and whoever waits is told. Shared memory does not: it lives as long as anybody
//! is attached, and nothing in it tells that its server is dead. So there is a semaphore beside it.

mod classic;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clap::Parser;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, gettid};
use sysv_ipc::{
    AttachedReadOnly, Error, Key, Lock, MessageBuffer, MessageType, Mode, Queue, ReceiveError,
    Select, SharedMemory,
};

use classic::{Stop, is_asleep, is_stopping, own, say, wait_until};

/// Show what a client holds in its hands when its server is restarted
#[derive(Debug, Parser)]
#[command(after_help = classic::EXIT_STATUS)]
struct Opts {
    /// Key of queue, shared memory and semaphore: 0x and hexadecimal digits, or a decimal number
    #[arg(short, long, value_name = "KEY", default_value = "0x0c1a0004", value_parser = classic::key)]
    key: Key,
    /// Be the server
    #[arg(long, hide = true)]
    serve: bool,
}

/// The x bits mean nothing to the kernel: they mark what is ours to remove.
const MARK: Mode = Mode::new(0o111);
const MODE: Mode = MARK.with(Mode::new(0o600));

const REQUEST: MessageType = MessageType::new(1).unwrap();

/// Nobody sends this: whoever receives it waits.
const NEVER: MessageType = MessageType::MAX;

/// The words of the shared memory: the server's pid, and the requests that it served.
const SERVER: usize = 0;
const SERVED: usize = 1;
const WORDS: usize = 2;

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(10);

fn main() -> ! {
    classic::main(|| {
        let opts: Opts = classic::parse();
        if opts.serve {
            return serve(opts.key);
        }
        classic::end_on_signals()?;
        let server = show_queue(opts.key)?;
        show_memory(opts.key, server)
    })
}

// The server.

fn serve(key: Key) -> Result<(), Stop> {
    let _ = set_pdeathsig(Signal::SIGTERM); // not to be left behind when the client is killed
    classic::stop_on_signals()?;
    classic::lock(key)?;
    remove_stale(key)?;
    let memory =
        own(|| SharedMemory::create(key, WORDS * size_of::<u64>(), MODE), SharedMemory::remove)?;
    let memory = memory.attach()?;
    memory.words()[SERVER].store(getpid().as_raw() as u64, Relaxed);
    let queue = own(|| Queue::create(key, MODE), Queue::remove)?;
    say("ready");
    let mut request = MessageBuffer::with_capacity(size_of::<i32>());
    loop {
        match queue.receive(&mut request, Select::Type(REQUEST)) {
            Ok(()) => {}
            Err(ReceiveError::Interrupted) => continue,
            Err(ReceiveError::Gone) if is_stopping() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let client = request.text().first_chunk().map(|pid| i32::from_ne_bytes(*pid));
        if let Some(client) = client.and_then(|pid| MessageType::new(pid.into())) {
            memory.words()[SERVED].fetch_add(1, Relaxed);
            let pid = getpid().as_raw().to_ne_bytes();
            queue.try_send(&MessageBuffer::with_text(client, &pid))?;
        }
    }
}

/// Removes what a server left that was killed: it held the lock that we hold now.
fn remove_stale(key: Key) -> Result<(), Stop> {
    let foreign = || Stop::unavailable(format!("key {key} is in use by another program"));
    if let Ok(queue) = Queue::open(key) {
        if !queue.status()?.permissions.mode.contains(MARK) {
            return Err(foreign());
        }
        queue.remove()?;
    }
    if let Ok(memory) = SharedMemory::open(key) {
        if !memory.status()?.permissions.mode.contains(MARK) {
            return Err(foreign());
        }
        memory.remove()?;
    }
    Ok(())
}

// The client.

/// Starts a server and waits until it can be asked.
fn start(key: Key) -> Result<Pid, Stop> {
    let mut stdout = None;
    let spawn = || {
        let failed = |error| Stop::failed(format!("cannot start the server: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["--serve", "--key", &key.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        stdout = child.stdout.take();
        Ok::<_, Stop>(Pid::from_raw(child.id().cast_signed()))
    };
    let pid = own(spawn, |pid| {
        end(pid, Signal::SIGTERM);
        Ok(())
    })?;
    let mut ready = String::new();
    let _ = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut ready));
    if ready != "ready\n" {
        return Err(Stop::unavailable("the server did not start")); // it said why
    }
    Ok(pid)
}

/// Ends a server that has not ended yet, and waits for its end.
fn end(server: Pid, signal: Signal) {
    // Asked of wait: its pid can be another process's once it was waited for.
    if waitpid(server, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
        let _ = kill(server, signal);
        let _ = waitpid(server, None);
    }
}

/// `kill -9`: the server removes nothing. What it leaves is ours to remove, if no next one does.
fn kill_hard(server: Pid, key: Key) -> Result<(), Stop> {
    let left = || Ok::<_, Error>((Queue::open(key)?, SharedMemory::open(key)?, Lock::open(key)?));
    own(left, move |(queue, memory, lock)| {
        end(server, Signal::SIGTERM);
        let _ = (queue.remove(), memory.remove());
        // The lock stays the same one: the next server may hold it.
        if lock.is_held()? { Ok(()) } else { lock.remove() }
    })?;
    end(server, Signal::SIGKILL);
    Ok(())
}

/// Asks who serves.
fn ask(queue: Queue) -> Result<Pid, Stop> {
    let own = getpid().as_raw();
    queue.send(&MessageBuffer::with_text(REQUEST, &own.to_ne_bytes()))?;
    let mut answer = MessageBuffer::with_capacity(size_of::<i32>());
    let ours = MessageType::new(own.into()).map_or(Select::Any, Select::Type);
    queue.receive(&mut answer, ours)?;
    let pid = answer.text().first_chunk().ok_or(Stop::failed("a malformed answer"))?;
    Ok(Pid::from_raw(i32::from_ne_bytes(*pid)))
}

fn show_queue(key: Key) -> Result<Pid, Stop> {
    say("the queue");
    let first = start(key)?;
    let queue = Queue::open(key)?;
    say(format!("  the client asks queue {}: server {} answers", queue.id(), ask(queue)?));

    let (tell, told) = channel();
    let waiting = thread::spawn(move || {
        let _ = tell.send(gettid());
        receive_never(queue)
    });
    let thread = told.recv().map_err(|_| Stop::failed("the thread failed"))?;
    wait_until(DEADLINE, "the client waits", || is_asleep(thread))?;
    kill_hard(first, key)?;
    let still = if is_asleep(thread) { "still waits" } else { "was woken" };
    say(format!(
        "  server {first} is killed: its queue stays, and the client, caught waiting, {still}"
    ));

    let second = start(key)?;
    let errno = waiting.join().map_err(|_| Stop::failed("the thread failed"))?;
    say(format!(
        "  server {second} removes the queue and makes another: msgrcv fails with {errno:?}"
    ));
    let later = receive_never(queue);
    say(format!("  the client tries its old id again: msgrcv fails with {later:?}"));
    if (errno, later) != (Errno::EIDRM, Errno::EINVAL) {
        return Err(Stop::failed("EIDRM and EINVAL were expected"));
    }
    // Both mean that the queue is gone: look the key up again, ask again.
    let queue = Queue::open(key)?;
    say(format!("  the key leads to queue {} now: server {} answers", queue.id(), ask(queue)?));
    Ok(second)
}

/// Waits for a message that nobody sends, until the queue is gone.
fn receive_never(queue: Queue) -> Errno {
    let mut message = MessageBuffer::with_capacity(0);
    match queue.receive(&mut message, Select::Type(NEVER)) {
        // sysv has one name for both, since both mean it. Here the difference is what is shown.
        Err(ReceiveError::Gone) => Errno::last(),
        _ => Errno::UnknownErrno,
    }
}

/// What the semaphore says of a server.
fn state_of(server: Pid, key: Key) -> Result<String, Stop> {
    let lock = Lock::open(key)?;
    Ok(match lock.last_pid()? {
        // The kernel took the 1 back when the server died: SEM_UNDO.
        _ if !lock.is_held()? => "it is dead, nobody holds the lock".to_owned(),
        Some(pid) if pid.as_raw() != server.as_raw() => format!("it is another one now, {pid}"),
        _ => "it lives, and holds the lock".to_owned(),
    })
}

fn figures(memory: &AttachedReadOnly) -> String {
    let word = |index| memory.load(index).unwrap_or(0);
    format!("\"server {}, requests: {}\"", word(SERVER), word(SERVED))
}

fn show_memory(key: Key, second: Pid) -> Result<(), Stop> {
    say("the shared memory");
    let tell_state = || -> Result<(), Stop> {
        let state = state_of(second, key)?;
        say(format!("  the semaphore says of server {second}: {state}"));
        Ok(())
    };
    let old = SharedMemory::open(key)?;
    let attached = old.attach_read_only()?;
    say(format!("  the client attaches segment {}: {}", old.id(), figures(&attached)));
    tell_state()?;
    kill_hard(second, key)?;
    say(format!("  server {second} is killed: the segment says {}, as before", figures(&attached)));
    tell_state()?;
    let third = start(key)?;
    let status = old.status()?;
    say(format!(
        "  server {third} removes the segment: removed {}, attached {}, and still {}",
        status.is_removed,
        status.attached,
        figures(&attached)
    ));
    tell_state()?;
    let new = SharedMemory::open(key)?;
    say(format!(
        "  the key leads to segment {} now: {}",
        new.id(),
        figures(&new.attach_read_only()?)
    ));
    drop(attached);
    let gone = old.status().map_or_else(|error| error.to_string(), |_| "still there".to_owned());
    say(format!("  the client detaches the old one, as the last: {gone}"));

    end(third, Signal::SIGTERM);
    let left = [Queue::open(key).is_ok(), SharedMemory::open(key).is_ok(), Lock::open(key).is_ok()];
    let left = left.iter().filter(|&&left| left).count();
    say(format!("server {third} is asked to stop; left: {left}"));
    if left == 0 { Ok(()) } else { Err(Stop::failed("the server left something")) }
}
