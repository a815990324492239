//! The limits on message queues, and what happens at each.
//!
//! This program makes an IPC namespace of its own, if it may, and makes queues until there are no
//! more. If it may not, or with `--here`, it makes at most a hundred queues among those of others.

mod classic;

use std::fs;

use anyhow::Result;
use clap::Parser;
use nix::sched::{CloneFlags, unshare};
use sysv_ipc::{
    Key, MessageBuffer, MessageType, Mode, Queue, QueueLimits, QueueSettings, QueueUsage,
};

use classic::say;

/// Show the limits on message queues, and what happens at each
#[derive(Debug, Parser)]
struct Opts {
    /// Stay in this IPC namespace, and make at most 100 queues
    #[arg(long)]
    here: bool,
}

/// The most bytes to put into the kernel's memory. A message takes some even if it is empty.
const MOST_BYTES: usize = 1 << 16;

const ANY: MessageType = MessageType::new(1).unwrap();

fn main() -> ! {
    let opts = Opts::parse();
    // Before classic::main starts the thread that handles signals, which would stay behind.
    let alone = !opts.here && unshare(CloneFlags::CLONE_NEWIPC).is_ok();
    classic::main(130, || {
        say(if alone {
            "in an IPC namespace of its own"
        } else {
            "in the IPC namespace of others"
        });
        let (limits, usage) = (QueueLimits::current()?, QueueUsage::current()?);
        say("limit        /proc    msgctl  in use (MSG_INFO)");
        tell("msgmni", limits.msgmni, &format!("{} queues", usage.queues))?;
        tell("msgmax", limits.msgmax, "")?;
        let held = format!("{} messages of {} bytes, in all queues", usage.messages, usage.bytes);
        tell("msgmnb", limits.msgmnb, &held)?;
        number_of_queues(limits, if alone { usize::MAX } else { 100 })?;
        size_of_a_message(limits)?;
        size_of_a_queue(limits)
    })
}

fn tell(name: &str, msgctl: usize, used: &str) -> Result<()> {
    let proc = fs::read_to_string(format!("/proc/sys/kernel/{name}"))?;
    say(format!("{name:<6} {:>11} {msgctl:>9}  {used}", proc.trim()).trim_end());
    Ok(())
}

fn number_of_queues(limits: QueueLimits, most: usize) -> Result<()> {
    let mut queues = Vec::new();
    let why = loop {
        if queues.len() == most {
            break format!("far from {}, which is for everybody", limits.msgmni);
        }
        match classic::own(|| Queue::create(Key::PRIVATE, Mode::new(0o600)), Queue::remove) {
            Ok(queue) => queues.push(queue),
            Err(error) => break error.to_string(),
        }
    };
    say(format!("msgmni: {} queues made; then {why}", queues.len()));
    queues.into_iter().try_for_each(|queue| Ok(queue.remove()?))
}

fn size_of_a_message(limits: QueueLimits) -> Result<()> {
    if limits.msgmax > MOST_BYTES {
        say("msgmax: too large to try");
        return Ok(());
    }
    let queue = classic::private_queue()?;
    for size in [limits.msgmax, limits.msgmax + 1] {
        let sent = queue.try_send(&MessageBuffer::with_text(ANY, &vec![0; size]));
        say(format!("msgmax: a message of {size} bytes: {}", outcome(sent)));
    }
    Ok(queue.remove()?)
}

fn size_of_a_queue(limits: QueueLimits) -> Result<()> {
    let max = limits.msgmnb.min(MOST_BYTES);
    for size in [1024, 0] {
        let queue = classic::private_queue()?;
        let settings = queue.status()?.settings();
        queue.set(&QueueSettings { max_bytes: max as u64, ..settings })?;
        let message = MessageBuffer::with_text(ANY, &vec![0; size]);
        let mut sent = 0;
        let why = loop {
            match queue.try_send(&message) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        say(format!("msgmnb: {sent} messages of {size} bytes in a queue for {max}; then {why}"));
        queue.remove()?;
    }
    let queue = classic::private_queue()?;
    let settings = queue.status()?.settings();
    for max_bytes in [limits.msgmnb as u64 / 2, limits.msgmnb as u64 + 1] {
        let set = outcome(queue.set(&QueueSettings { max_bytes, ..settings }));
        say(format!("msgmnb: a queue for {max_bytes} bytes (IPC_SET): {set}"));
    }
    Ok(queue.remove()?)
}

fn outcome(outcome: Result<(), impl std::fmt::Display>) -> String {
    outcome.map_or_else(|error| error.to_string(), |()| "done".to_owned())
}
