//! The deadlock of the single-queue design, and two ways out. Needs a running single_queue_server.
//!
//! Requests and answers share one queue. Once it is full of requests, some clients wait for answers
//! and others for room. The server, with an answer to send, waits for room too, which only the
//! server could make. None of these processes has done anything wrong.

mod classic;
mod single_queue;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::unistd::{Pid, gettid};
use sysv_ipc::{Key, MessageBuffer, MessageType, Queue, QueueId, Select};

use classic::{is_asleep, private_queue, say, wait_until};
use single_queue::{BODY, LARGEST, OK, REQUEST, answer_type, decode, message};

/// Show how one queue for everything deadlocks, and what helps
#[derive(Debug, Parser)]
struct Opts {
    /// Key of single_queue_server
    #[arg(short, long, default_value = "0x0c1a0001")]
    key: Key,
}

/// Ids that no process has: they are beyond the highest pid of Linux, 2^22.
const NOBODY: i32 = 1 << 24;

/// So many more clients than fit into a queue.
const MORE: u32 = 2;

fn main() -> ! {
    let opts = Opts::parse();
    classic::main(130, || {
        let server = classic::find_server(opts.key)?;
        say("1. one queue, and a server that waits in msgsnd");
        deadlock()?;
        say("2. one queue, and single_queue_server, which never waits there");
        way_out(server)?;
        say("3. a queue per client, and a server that waits in msgsnd");
        queue_per_client()
    })
}

/// How many messages of the largest size a queue holds.
fn capacity(queue: Queue) -> Result<u32> {
    Ok((queue.status()?.max_bytes / LARGEST as u64) as u32)
}

fn is_full(queue: Queue) -> bool {
    queue.status().is_ok_and(|status| status.bytes + LARGEST as u64 > status.max_bytes)
}

/// A message of the largest size.
fn large(mtype: MessageType, number: i32) -> MessageBuffer {
    message(mtype, number, &[b'x'; BODY - 1])
}

#[derive(Debug, Default)]
struct Progress {
    asked: AtomicU32,
    answered: AtomicU32,
}

/// Starts a client on a thread: it asks, then waits for its answer.
fn client(requests: Queue, id: i32, answers: Queue, ours: Select, progress: &Arc<Progress>) {
    let progress = progress.clone();
    thread::spawn(move || {
        requests.send(&large(REQUEST, id)).ok()?;
        progress.asked.fetch_add(1, SeqCst);
        answers.receive(&mut MessageBuffer::with_capacity(LARGEST), ours).ok()?;
        progress.answered.fetch_add(1, SeqCst);
        Some(())
    });
}

fn deadlock() -> Result<()> {
    let queue = private_queue()?;
    let (room, progress) = (capacity(queue)?, Arc::new(Progress::default()));
    for id in (NOBODY..).take((room + MORE) as usize) {
        let answer = answer_type(id).context("no client's id")?;
        client(queue, id, queue, Select::Type(answer), &progress);
    }
    let asked = || progress.asked.load(SeqCst);
    wait_until("the queue fills", || asked() == room && is_full(queue))?;
    let server = naive_server(queue).context("the server failed")?;
    wait_until("the server waits", || asked() == room + 1 && is_asleep(server))?;

    let before = queue.status()?;
    thread::sleep(Duration::from_secs(1));
    let still = queue.status()? == before && progress.answered.load(SeqCst) == 0;
    ensure!(still, "something moved: no deadlock");
    let (messages, bytes, max) = (before.messages, before.bytes, before.max_bytes);
    say(format!("   the queue: {messages} messages, {bytes} of {max} bytes"));
    say(format!("   {} clients wait in msgrcv, each for its answer", asked()));
    say(format!("   {} client waits in msgsnd, for room", room + MORE - asked()));
    say("   the server took one request, and another client's took its place in the queue;");
    say("   the server waits in msgsnd, for room that only the server could make");
    say("   after 1 s: nothing moved, nobody was answered");
    Ok(queue.remove()?) // ends every wait with EIDRM
}

/// Starts a server on a thread. It takes one request and works on it until the queue is full again;
/// then it answers. Returns its thread id just before that.
fn naive_server(queue: Queue) -> Option<Pid> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut request = MessageBuffer::with_capacity(LARGEST);
        queue.receive(&mut request, Select::Type(REQUEST)).ok()?;
        let (id, _) = decode(request.text())?;
        while !is_full(queue) {
            thread::yield_now();
        }
        tell.send(gettid()).ok()?;
        queue.send(&large(answer_type(id)?, OK)).ok()
    });
    told.recv().ok()
}

/// Sends three times as many requests as fit to the real server, and collects no answer. Half of
/// the ids are no process's; the other half is a thread's, which lives.
fn way_out(queue: Queue) -> Result<()> {
    let (load, start) = (3 * capacity(queue)?, Instant::now());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        tell.send(gettid()).ok()?;
        for (n, nobody) in (0..load).zip(NOBODY..) {
            let id = if n % 2 == 0 { nobody } else { gettid().as_raw() };
            queue.send(&large(REQUEST, id)).ok()?;
        }
        tell.send(gettid()).ok()?;
        loop {
            thread::park(); // it lives, and does not collect its answers
        }
        #[allow(unreachable_code)]
        Some(()) // the type of what ? returns
    });
    let thread = told.recv().context("the sender failed")?;
    wait_until("the queue fills", || is_full(queue) && is_asleep(thread))?;
    say(
        "   the sender waits in msgsnd; the server keeps answers that do not fit, and does not wait",
    );
    told.recv_timeout(Duration::from_secs(10))
        .context("timed out: the server takes no requests")?;
    let took = start.elapsed();
    say(format!(
        "   after {took:.3?}: {load} requests taken, answers that nobody collects dropped"
    ));

    let asked = Instant::now();
    let pid = std::process::id().cast_signed();
    let own = answer_type(pid).context("pid 1 cannot be a client's id")?;
    let (request, mut answer) =
        (message(REQUEST, pid, b"me"), MessageBuffer::with_capacity(LARGEST));
    wait_until("there is room for a request", || queue.try_send(&request).is_ok())?;
    wait_until("it is answered", || queue.try_receive(&mut answer, Select::Type(own)).is_ok())?;
    say(format!("   a client that collects its answer got it after {:.3?}", asked.elapsed()));
    for id in (NOBODY..).take(load as usize).chain([thread.as_raw()]) {
        let old = answer_type(id).map_or(Select::Any, Select::Type);
        while queue.try_receive(&mut answer, old).is_ok() {}
    }
    Ok(())
}

/// The load of [`deadlock`]. The server waits in msgsnd, and every second client collects nothing.
fn queue_per_client() -> Result<()> {
    let requests = private_queue()?;
    let (clients, start) = (capacity(requests)? + MORE, Instant::now());
    let progress = Arc::new(Progress::default());
    for n in 0..clients {
        let own = private_queue()?;
        if n % 2 == 0 {
            client(requests, own.id().get(), own, Select::Any, &progress);
        } else {
            thread::spawn(move || requests.send(&large(REQUEST, own.id().get())));
        }
    }
    let server = thread::spawn(move || {
        let mut request = MessageBuffer::with_capacity(LARGEST);
        for _ in 0..clients {
            requests.receive(&mut request, Select::Type(REQUEST)).ok()?;
            let (id, _) = decode(request.text())?;
            let _ = Queue::from_id(QueueId::new(id)).send(&large(REQUEST, OK));
        }
        Some(())
    });
    let collect = clients.div_ceil(2);
    wait_until("all are answered", || {
        server.is_finished() && progress.answered.load(SeqCst) == collect
    })?;
    let took = start.elapsed();
    say(format!("   {clients} clients, of which {collect} collect: all answered after {took:.3?}"));
    say("   answers that nobody collects fill their own queues, and delay nobody");
    Ok(())
}
