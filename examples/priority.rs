//! Message types as priorities: what is urgent is received first, however much lies before it.
//!
//! This process makes a private queue, fills it with low-priority messages (type 10), sends one of high
//! priority (type 1) behind them, and receives them all; once with two calls, once with one. It removes
//! the queue. A priority orders only what is in the queue: an urgent message that does not fit waits
//! for room like any other, so urgent messages are kept short.

mod classic;

use clap::Parser;
use sysv_ipc::{Key, MessageBuffer, MessageType, Mode, Queue, ReceiveError, Select, SendError};

use classic::{Stop, own, say};

/// Show how a message of high priority overtakes a queue full of others
#[derive(Debug, Parser)]
#[command(after_help = classic::EXIT_STATUS)]
struct Opts {}

const HIGH: MessageType = MessageType::new(1).unwrap();
const LOW: MessageType = MessageType::new(10).unwrap();

/// How many low-priority messages fill a queue.
const CROWD: u64 = 16;

fn main() -> ! {
    classic::main(run)
}

fn run() -> Result<(), Stop> {
    let Opts {} = classic::parse();
    classic::end_on_signals()?;
    let queue = own(|| Queue::create(Key::PRIVATE, Mode::new(0o600)), Queue::remove)?;
    let mut settings = queue.status()?.settings();
    settings.max_bytes = settings.max_bytes.min(16_384); // the default is enough to be filled
    queue.set(&settings)?;

    say("two-step receive: type 1 with IPC_NOWAIT, then any");
    overtake(queue, two_steps)?;
    say("one call: msgtyp -10, the lowest type up to 10");
    overtake(queue, one_call)
}

/// Receives the next message into the buffer, and says how many calls it took.
type Receive = fn(Queue, &mut MessageBuffer) -> Result<u32, ReceiveError>;

/// Between its two calls an urgent message can come in, and the second takes another.
fn two_steps(queue: Queue, message: &mut MessageBuffer) -> Result<u32, ReceiveError> {
    match queue.try_receive(message, Select::Type(HIGH)) {
        Err(ReceiveError::Empty) => queue.receive(message, Select::Any).map(|()| 2),
        received => received.map(|()| 1),
    }
}

/// The kernel looks and takes at once.
fn one_call(queue: Queue, message: &mut MessageBuffer) -> Result<u32, ReceiveError> {
    queue.receive(message, Select::UpTo(LOW)).map(|()| 1)
}

fn overtake(queue: Queue, receive: Receive) -> Result<(), Stop> {
    let urgent = MessageBuffer::with_text(HIGH, b"fire!");
    let low = fill(queue, urgent.text().len() as u64)?;
    queue.try_send(&urgent)?;
    say(format!(
        "  sent {low} of type {}, until the queue was full, then 1 of type {}",
        LOW.get(),
        HIGH.get()
    ));

    let mut message = MessageBuffer::with_capacity(queue.status()?.max_bytes as usize);
    let (mut order, mut calls) = (Vec::new(), 0);
    while queue.status()?.messages > 0 {
        calls += receive(queue, &mut message)?;
        order.push(message.mtype());
    }
    let first = order.first().map_or(0, |mtype| mtype.get());
    let after = order.iter().filter(|&&mtype| mtype == LOW).count();
    say(format!(
        "  received type {first} first, then {after} of type {}, in {calls} calls",
        LOW.get()
    ));
    if order.first() != Some(&HIGH) {
        return Err(Stop::failed("the urgent message was not first"));
    }
    Ok(())
}

/// Sends low-priority messages until no more fit; they leave this much room.
fn fill(queue: Queue, room: u64) -> Result<u64, Stop> {
    let max = queue.status()?.max_bytes;
    let size = max.saturating_sub(room) / CROWD;
    let message = MessageBuffer::with_text(LOW, &vec![b'.'; size as usize]);
    let mut sent = 0;
    loop {
        match queue.try_send(&message) {
            Ok(()) => sent += 1,
            Err(SendError::Full) => return Ok(sent),
            Err(error) => return Err(error.into()),
        }
    }
}
