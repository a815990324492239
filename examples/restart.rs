//! A server is killed and restarted: what its client's queue id and shared memory are worth then.
//!
//! This program is the client. It also starts the servers, which are this program with `--serve`. A
//! server takes the lock of its key, removes what a dead server left there, and makes a queue and
//! shared memory, in which it counts requests.
//!
//! When a queue is removed, the kernel wakes everybody who waits at it. Shared memory lives as long
//! as somebody is attached, and nothing in it tells that its server is dead; the lock beside it
//! does.

mod classic;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::{env, process, sync::mpsc, thread};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};
use sysv_ipc::{
    AttachedReadOnly, Key, Lock, MessageBuffer, MessageType, Mode, Queue, ReceiveError, Select,
    SharedMemory,
};

use classic::{is_asleep, own, say, wait_until};

/// Show what a client still holds when its server is restarted
#[derive(Debug, Parser)]
struct Opts {
    /// Key of queue, shared memory and lock
    #[arg(short, long, default_value = "0x0c1a0004")]
    key: Key,
    #[arg(long, hide = true)]
    serve: bool,
}

const REQUEST: MessageType = MessageType::new(1).unwrap();

/// The x bits mean nothing to the kernel. Here they mark a queue as ours.
const MARK: Mode = Mode::new(0o111);

/// Nobody sends this type.
const NEVER: MessageType = MessageType::MAX;

/// The words of the shared memory.
const SERVER_PID: usize = 0;
const REQUESTS: usize = 1;

fn main() -> ! {
    let opts = Opts::parse();
    if opts.serve {
        classic::main(0, || serve(opts.key));
    }
    classic::main(130, || {
        let second = show_queue(opts.key)?;
        show_memory(opts.key, second)
    })
}

fn serve(key: Key) -> Result<()> {
    set_pdeathsig(Signal::SIGTERM)?; // so that no server outlives a client that is killed
    classic::lock(key)?;
    // We hold the lock, so no server of ours lives, and what carries our mark is a dead one's.
    if let Ok(queue) = Queue::open(key) {
        let is_ours = queue.status()?.permissions.mode.contains(MARK);
        ensure!(is_ours, "key {key} is in use by another program");
        queue.remove()?;
    }
    if let Ok(memory) = SharedMemory::open(key) {
        memory.remove()?;
    }
    let size = 2 * size_of::<u64>();
    let memory = own(|| SharedMemory::create(key, size, Mode::new(0o600)), SharedMemory::remove)?
        .attach()?;
    memory.words()[SERVER_PID].store(process::id().into(), Relaxed);
    let queue = own(|| Queue::create(key, MARK.with(Mode::new(0o600))), Queue::remove)?;
    say("ready");
    let mut request = MessageBuffer::with_capacity(size_of::<i32>());
    loop {
        queue.receive(&mut request, Select::Type(REQUEST))?;
        memory.words()[REQUESTS].fetch_add(1, Relaxed);
        let client = request.text().first_chunk().map(|pid| i32::from_ne_bytes(*pid));
        if let Some(client) = client.and_then(|pid| MessageType::new(pid.into())) {
            queue.try_send(&MessageBuffer::with_text(client, &process::id().to_ne_bytes()))?;
        }
    }
}

/// Starts a server, and waits until it is ready. It ends with this program.
fn start(key: Key) -> Result<Child> {
    let mut server = None;
    let spawn = || {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--serve", "--key", &key.to_string()]).stdout(Stdio::piped());
        let child = server.insert(command.spawn().context("cannot start the server")?);
        Ok::<_, anyhow::Error>(pid_of(child))
    };
    own(spawn, |pid| end(pid, Signal::SIGTERM))?;
    let mut server = server.context("a server")?;
    let mut ready = String::new();
    BufReader::new(server.stdout.take().context("a pipe")?).read_line(&mut ready)?;
    ensure!(ready == "ready\n", "the server did not start"); // it said why
    Ok(server)
}

fn pid_of(server: &Child) -> Pid {
    Pid::from_raw(server.id().cast_signed())
}

/// Ends a server and waits for it. Once we have waited, its pid may belong to another process.
fn end(server: Pid, signal: Signal) {
    if waitpid(server, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
        let _ = kill(server, signal);
        let _ = waitpid(server, None);
    }
}

/// `kill -9`: the server removes nothing, so we do at the end, unless another server lives.
fn kill_hard(server: &Child, key: Key) -> Result<()> {
    let pid = pid_of(server);
    let left = (Queue::open(key)?, SharedMemory::open(key)?, Lock::open(key)?);
    own(
        || Ok::<_, anyhow::Error>(left),
        move |(queue, memory, lock)| {
            end(pid, Signal::SIGKILL);
            let _ = (queue.remove(), memory.remove());
            // The lock is the same for all servers of a key.
            if lock.is_held() == Ok(true) { Ok(()) } else { lock.remove() }
        },
    )?;
    end(pid, Signal::SIGKILL);
    Ok(())
}

/// Asks which process serves.
fn ask(queue: Queue) -> Result<u32> {
    let pid = process::id();
    queue.send(&MessageBuffer::with_text(REQUEST, &pid.to_ne_bytes()))?;
    let mut answer = MessageBuffer::with_capacity(size_of::<i32>());
    let ours = MessageType::new(pid.into()).context("a pid")?;
    queue.receive(&mut answer, Select::Type(ours))?;
    Ok(u32::from_ne_bytes(*answer.text().first_chunk().context("a malformed answer")?))
}

/// Waits for a message that nobody sends, until the queue is gone.
fn receive_never(queue: Queue) -> Errno {
    match queue.receive(&mut MessageBuffer::with_capacity(0), Select::Type(NEVER)) {
        // `Gone` stands for two errnos, and here we show which.
        Err(ReceiveError::Gone) => Errno::last(),
        _ => Errno::UnknownErrno,
    }
}

fn show_queue(key: Key) -> Result<Child> {
    say("the queue");
    let first = start(key)?;
    let queue = Queue::open(key)?;
    say(format!("  the client asks queue {}: server {} answers", queue.id(), ask(queue)?));

    let (tell, told) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let _ = tell.send(gettid());
        receive_never(queue)
    });
    let thread = told.recv()?;
    wait_until("the client waits", || is_asleep(thread))?;
    kill_hard(&first, key)?;
    ensure!(is_asleep(thread), "the client was woken");
    let pid = first.id();
    say(format!("  server {pid} is killed: its queue stays, and a client in msgrcv still waits"));

    let second = start(key)?;
    let errno = waiting.join().ok().context("the thread failed")?;
    let pid = second.id();
    say(format!("  server {pid} removes the queue and makes another: msgrcv fails with {errno:?}"));
    say(format!("  the client tries its old id again: {:?}", receive_never(queue)));
    // Both mean that the queue is gone: look the key up again, and ask again.
    let queue = Queue::open(key)?;
    say(format!("  the key now leads to queue {}: server {} answers", queue.id(), ask(queue)?));
    Ok(second)
}

fn counters(memory: &AttachedReadOnly) -> String {
    let word = |index| memory.load(index).unwrap_or(0);
    format!("\"server {}, requests: {}\"", word(SERVER_PID), word(REQUESTS))
}

/// Says what the lock tells about a server.
fn say_state(server: &Child, key: Key) -> Result<()> {
    let lock = Lock::open(key)?;
    let state = match lock.last_pid()? {
        // The kernel released the lock when the server died: SEM_UNDO.
        _ if !lock.is_held()? => "it is dead, nobody holds the lock".to_owned(),
        Some(pid) if pid.as_raw() != server.id().cast_signed() => format!("server {pid} holds it"),
        _ => "it lives, and holds the lock".to_owned(),
    };
    say(format!("  the lock says of server {}: {state}", server.id()));
    Ok(())
}

fn show_memory(key: Key, second: Child) -> Result<()> {
    say("the shared memory");
    let old = SharedMemory::open(key)?;
    let attached = old.attach_read_only()?;
    say(format!("  the client attaches segment {}: {}", old.id(), counters(&attached)));
    say_state(&second, key)?;
    kill_hard(&second, key)?;
    say(format!(
        "  server {} is killed: the segment still says {}",
        second.id(),
        counters(&attached)
    ));
    say_state(&second, key)?;
    let third = start(key)?;
    let status = old.status()?;
    let (removed, users) = (status.is_removed, status.attached);
    say(format!(
        "  server {} removes the segment: removed {removed}, attached {users}, and still {}",
        third.id(),
        counters(&attached)
    ));
    say_state(&second, key)?;
    let new = SharedMemory::open(key)?;
    let now = counters(&new.attach_read_only()?);
    say(format!("  the key now leads to segment {}: {now}", new.id()));
    drop(attached);
    let gone = old.status().map_or_else(|error| error.to_string(), |_| "still there".to_owned());
    say(format!("  the client, the last user, detaches the old segment: {gone}"));

    end(pid_of(&third), Signal::SIGTERM);
    let left = [Queue::open(key).is_ok(), SharedMemory::open(key).is_ok(), Lock::open(key).is_ok()];
    ensure!(left == [false; 3], "the server left something");
    say(format!("server {} is asked to stop, and leaves nothing", third.id()));
    Ok(())
}
