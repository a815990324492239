//! Message types as priorities: an urgent message is received first, however many lie before it.
//!
//! This program fills a private queue with messages of type 10, sends one of type 1 behind them and
//! receives them all, once with two calls and once with one. A priority orders only what is in the
//! queue: an urgent message that does not fit waits for room like any other, so keep it short.

mod classic;

use anyhow::{Result, ensure};
use clap::Parser;
use sysv_ipc::{MessageBuffer, MessageType, Queue, ReceiveError, Select, SendError};

use classic::say;

/// Show how an urgent message overtakes a queue full of others
#[derive(Debug, Parser)]
struct Opts {}

const HIGH: MessageType = MessageType::new(1).unwrap();
const LOW: MessageType = MessageType::new(10).unwrap();

fn main() -> ! {
    let Opts {} = Opts::parse();
    classic::main(130, || {
        let queue = classic::private_queue()?;
        say("two-step receive: type 1 with IPC_NOWAIT, then any");
        overtake(queue, two_steps)?;
        say("one call: msgtyp -10, the lowest type up to 10");
        overtake(queue, one_call)
    })
}

/// Receives the next message into the buffer. Returns how many calls it took.
type Receive = fn(Queue, &mut MessageBuffer) -> Result<u32, ReceiveError>;

/// An urgent message can arrive between the two calls, and the second call takes another one.
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

fn overtake(queue: Queue, receive: Receive) -> Result<()> {
    let urgent = MessageBuffer::with_text(HIGH, b"fire!");
    let low = MessageBuffer::with_text(LOW, &[b'.'; 1023]); // 16 leave room for the urgent one
    let mut sent = 0;
    while match queue.try_send(&low) {
        Err(SendError::Full) => false,
        outcome => outcome.map(|()| true)?,
    } {
        sent += 1;
    }
    queue.try_send(&urgent)?;
    say(format!("  sent {sent} of type 10, until the queue was full, then 1 of type 1"));

    let mut message = MessageBuffer::with_capacity(1023);
    let (mut order, mut calls) = (Vec::new(), 0);
    while queue.status()?.messages > 0 {
        calls += receive(queue, &mut message)?;
        order.push(message.mtype().get());
    }
    ensure!(order[0] == HIGH.get(), "the urgent message was not first");
    let rest = order.len() - 1;
    say(format!("  received type {} first, then {rest} of type 10, in {calls} calls", order[0]));
    Ok(())
}
