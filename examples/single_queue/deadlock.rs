//! The circular wait of the single-queue design, and two ways out.
//!
//! Requests and answers share one queue. Once it is full of requests, the clients that have sent wait
//! for answers, the others wait for room, and the server, with an answer in its hand, waits for room,
//! too, which nobody but itself could make. All are processes that did nothing wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, gettid};
use sysv_ipc::{Key, MessageBuffer, MessageType, Mode, Queue, QueueId, ReceiveError, Select};

use crate::classic::{Stop, is_asleep, own, say, wait_until};
use crate::single_queue::{BODY, LARGEST, OK, REQUEST, answer_type, decode, message};

/// Ids that no process has: they are beyond the highest pid of Linux, 2^22.
const NOBODY: i32 = 1 << 24;

/// More clients than fit into a queue.
const MORE: u32 = 2;

/// How long nothing must happen to be called a deadlock.
const STILL: Duration = Duration::from_secs(1);

pub(super) fn demonstrate(server: Queue, timeout: Duration) -> Result<(), Stop> {
    say("1. one queue, and a server that waits in msgsnd");
    circular_wait(timeout)?;
    say("2. one queue, and single_queue_server, which does not");
    way_out(server, timeout)?;
    say("3. a queue per client, as mqfs has it, and a server that waits in msgsnd");
    queue_per_client(timeout)
}

fn private_queue() -> Result<Queue, Stop> {
    let queue = own(|| Queue::create(Key::PRIVATE, Mode::new(0o600)), Queue::remove)?;
    let mut settings = queue.status()?.settings();
    settings.max_bytes = settings.max_bytes.min(16_384); // the default is enough to be filled
    queue.set(&settings)?;
    Ok(queue)
}

/// How many of the largest requests a queue takes.
fn capacity(queue: Queue) -> Result<u32, Stop> {
    Ok((queue.status()?.max_bytes / LARGEST as u64) as u32)
}

fn is_full(queue: Queue) -> bool {
    queue.status().is_ok_and(|status| status.bytes + LARGEST as u64 > status.max_bytes)
}

fn fill_level(queue: Queue) -> Result<String, Stop> {
    let status = queue.status()?;
    let (messages, bytes, max) = (status.messages, status.bytes, status.max_bytes);
    Ok(format!("{messages} messages, {bytes} of {max} bytes"))
}

/// A request, or an answer, of the largest size.
fn large(mtype: MessageType, number: i32) -> MessageBuffer {
    message(mtype, number, &[b'x'; BODY - 1])
}

/// What the clients have done.
#[derive(Debug, Default)]
struct Progress {
    asked: AtomicU32,
    answered: AtomicU32,
}

/// A client on a thread: asks, then waits for its answer, as `single_queue_client` does.
fn client(requests: Queue, id: i32, answers: Queue, ours: Select, progress: &Arc<Progress>) {
    let progress = progress.clone();
    thread::spawn(move || {
        if requests.send(&large(REQUEST, id)).is_err() {
            return;
        }
        progress.asked.fetch_add(1, SeqCst);
        let mut answer = MessageBuffer::with_capacity(LARGEST);
        if answers.receive(&mut answer, ours).is_ok() {
            progress.answered.fetch_add(1, SeqCst);
        }
    });
}

fn circular_wait(timeout: Duration) -> Result<(), Stop> {
    let queue = private_queue()?;
    let (room, progress) = (capacity(queue)?, Arc::new(Progress::default()));
    for id in (NOBODY..).take((room + MORE) as usize) {
        let answer = answer_type(id).expect("far from the type of requests");
        client(queue, id, queue, Select::Type(answer), &progress);
    }
    let asked = || progress.asked.load(SeqCst);
    wait_until(timeout, "the queue fills", || asked() == room && is_full(queue))?;
    let (server, steps) = naive_server(queue);
    let thread = steps.recv().map_err(|_| Stop::failed("the server failed"))?;
    wait_until(timeout, "the server waits", || asked() == room + 1 && is_asleep(thread))?;

    let before = queue.status()?;
    thread::sleep(STILL);
    if queue.status()? != before || progress.answered.load(SeqCst) > 0 {
        return Err(Stop::failed("it moves: no circular wait"));
    }
    say(format!("   the queue: {}", fill_level(queue)?));
    say(format!("   {} clients wait in msgrcv, each for its answer", asked()));
    say(format!("   {} client waits in msgsnd, for room", room + MORE - asked()));
    say(
        "   the server took a request, and the client that waited longest took its place in the queue;",
    );
    say("   the server waits in msgsnd, for room that only it could make");
    say(format!("   after {}: nothing moved, nobody was answered", seconds(STILL)));
    queue.remove()?;
    if server.join().is_ok_and(|answered| answered.is_some()) {
        return Err(Stop::failed("the server sent its answer into a full queue"));
    }
    say("   removing the queue ended it: every call failed with EIDRM");
    Ok(())
}

/// A server on a thread that takes one request and works on it, which takes it as long as others take
/// to fill the queue again; then it answers. It tells its thread id just before that.
fn naive_server(queue: Queue) -> (thread::JoinHandle<Option<()>>, Receiver<Pid>) {
    let (tell, told) = channel();
    let work = move || {
        let mut request = MessageBuffer::with_capacity(LARGEST);
        queue.receive(&mut request, Select::Type(REQUEST)).ok()?;
        let (id, _) = decode(request.text())?;
        while !is_full(queue) {
            thread::yield_now();
        }
        tell.send(gettid()).ok()?;
        queue.send(&large(answer_type(id)?, OK)).ok()
    };
    (thread::spawn(work), told)
}

/// Puts three times as many requests as fit into the real server's queue, and collects no answer: half of
/// them in the name of nobody, half in that of a thread that lives and does not care.
fn way_out(queue: Queue, timeout: Duration) -> Result<(), Stop> {
    let load = 3 * capacity(queue)?;
    let (start, (tell, told)) = (Instant::now(), channel());
    thread::spawn(move || {
        flood(queue, load, &tell);
        loop {
            thread::park(); // alive, and without interest in its answers
        }
    });
    let sender = told.recv().map_err(|_| Stop::failed("the sender failed"))?;
    wait_until(timeout, "the queue fills", || is_full(queue) && is_asleep(sender))?;
    say(format!("   after {}: {}", seconds(start.elapsed()), fill_level(queue)?));
    say(
        "   the sender waits in msgsnd; the server holds answers that do not fit, and does not wait",
    );
    let late = |_| Stop::failed("timed out: the server took no more requests");
    told.recv_timeout(timeout).map_err(late)?;
    let took = seconds(start.elapsed());
    say(format!(
        "   after {took}: all {load} requests were taken, and answers dropped that nobody collects"
    ));

    let asked = Instant::now();
    let pid = std::process::id().cast_signed();
    let own = answer_type(pid).ok_or(Stop::unavailable("pid 1 cannot be a client's id"))?;
    let request = message(REQUEST, pid, b"and me?");
    let stuck = "no room for a client that collects its answer";
    wait_until(timeout, stuck, || queue.try_send(&request).is_ok())?;
    let mut answer = MessageBuffer::with_capacity(LARGEST);
    wait_until(timeout, "no answer to a client that collects it", || {
        queue.try_receive(&mut answer, Select::Type(own)).is_ok()
    })?;
    say(format!("   a client that collects its answer got it after {}", seconds(asked.elapsed())));
    // Tidy up: nobody else will.
    for id in (NOBODY..).take(load as usize).chain([sender.as_raw()]) {
        let Some(old) = answer_type(id).map(Select::Type) else { continue };
        while queue.try_receive(&mut answer, old).is_ok() {}
    }
    Ok(())
}

fn flood(queue: Queue, load: u32, tell: &Sender<Pid>) -> Option<()> {
    tell.send(gettid()).ok()?;
    for (n, nobody) in (0..load).zip(NOBODY..) {
        let id = if n % 2 == 0 { nobody } else { gettid().as_raw() };
        queue.send(&large(REQUEST, id)).ok()?;
    }
    tell.send(gettid()).ok()
}

/// The load of `circular_wait`; the server waits in msgsnd as that one does, and every second client
/// does not even collect its answer.
fn queue_per_client(timeout: Duration) -> Result<(), Stop> {
    const ANSWER: MessageType = MessageType::new(2).unwrap();
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
            requests.receive(&mut request, Select::Type(REQUEST))?;
            let (id, _) = decode(request.text()).ok_or(ReceiveError::TooBig)?;
            let _ = Queue::from_id(QueueId::new(id)).send(&large(ANSWER, OK));
        }
        Ok::<_, ReceiveError>(())
    });
    wait_until(timeout, "the server answers all", || server.is_finished())?;
    let collect = clients.div_ceil(2);
    wait_until(timeout, "all who collect are answered", || {
        progress.answered.load(SeqCst) == collect
    })?;
    let took = seconds(start.elapsed());
    say(format!(
        "   {clients} clients, {collect} of whom collect their answers: all answered after {took}"
    ));
    say("   what the others leave fills their own queues, and holds up nobody");
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}
