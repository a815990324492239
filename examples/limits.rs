//! The limits on message queues, and what really happens at each.
//!
//! This process goes into an IPC namespace of its own, where it may, and makes queues until there are no
//! more. Where it may not, or with `--here`, it makes at most a hundred among everybody's and removes them.

mod classic;

use std::fs;

use clap::Parser;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};
use sysv_ipc::{
    Key, MessageBuffer, MessageType, Mode, Queue, QueueLimits, QueueSettings, QueueUsage, SendError,
};

use classic::{Stop, own, say};

/// Show the limits on message queues, and what happens at each
#[derive(Debug, Parser)]
#[command(after_help = classic::EXIT_STATUS)]
struct Opts {
    /// Stay in this IPC namespace, and make at most 100 queues
    #[arg(long)]
    here: bool,
}

/// The most queues to make where others need some, too.
const MODEST: usize = 100;

/// The most bytes to put into the kernel's memory, whatever the limits allow. Even a message of no
/// bytes takes some there.
const BEARABLE: usize = 1 << 16;

const ANY: MessageType = MessageType::new(1).unwrap();

fn main() -> ! {
    classic::main(run)
}

fn run() -> Result<(), Stop> {
    let opts: Opts = classic::parse();
    // Before there is a second thread: it would stay where it is, and remove queues there.
    let alone = !opts.here && own_namespace();
    classic::end_on_signals()?;
    say(if alone { "in an IPC namespace of its own" } else { "in the IPC namespace of others" });

    let limits = QueueLimits::current()?;
    let usage = QueueUsage::current()?;
    say("limit        /proc    msgctl  in use (MSG_INFO)");
    tell("msgmni", limits.msgmni, &format!("{} queues", usage.queues))?;
    tell("msgmax", limits.msgmax, "")?;
    let held = format!("{} messages of {} bytes, in all queues", usage.messages, usage.bytes);
    tell("msgmnb", limits.msgmnb, &held)?;

    number_of_queues(limits, if alone { usize::MAX } else { MODEST })?;
    size_of_a_message(limits)?;
    size_of_a_queue(limits)
}

/// As root; or, where that is allowed, as root of a user namespace of its own.
fn own_namespace() -> bool {
    let (uid, gid, ipc) = (getuid(), getgid(), CloneFlags::CLONE_NEWIPC);
    if unshare(ipc).is_ok() {
        return true;
    }
    let alone = unshare(ipc | CloneFlags::CLONE_NEWUSER).is_ok();
    if alone {
        // Without a name there nobody may change a queue: user_namespaces(7).
        let _ = fs::write("/proc/self/setgroups", "deny");
        let _ = fs::write("/proc/self/uid_map", format!("0 {uid} 1"));
        let _ = fs::write("/proc/self/gid_map", format!("0 {gid} 1"));
    }
    alone
}

fn tell(name: &str, msgctl: usize, used: &str) -> Result<(), Stop> {
    let file = format!("/proc/sys/kernel/{name}");
    let proc =
        fs::read_to_string(&file).map_err(|error| Stop::failed(format!("{file}: {error}")))?;
    say(format!("{name:<6} {:>11} {msgctl:>9}  {used}", proc.trim()).trim_end());
    Ok(())
}

fn new_queue() -> Result<Queue, Stop> {
    own(|| Queue::create(Key::PRIVATE, Mode::new(0o600)), Queue::remove)
}

fn number_of_queues(limits: QueueLimits, most: usize) -> Result<(), Stop> {
    let mut made = 0;
    let refused = loop {
        if made == most {
            break None;
        }
        match new_queue() {
            Ok(_) => made += 1,
            Err(Stop::Error(_, why)) => break Some(why),
            Err(stop) => return Err(stop),
        }
    };
    classic::remove_owned();
    let what = match refused {
        Some(why) => why,
        None => format!("far from {}, which is for everybody", limits.msgmni),
    };
    say(format!("msgmni: {made} queues made and removed; then {what}"));
    Ok(())
}

fn size_of_a_message(limits: QueueLimits) -> Result<(), Stop> {
    if limits.msgmax > BEARABLE {
        say("msgmax: too large to be tried");
        return Ok(());
    }
    let queue = new_queue()?;
    let send = |size| queue.try_send(&MessageBuffer::with_text(ANY, &vec![0; size]));
    for size in [limits.msgmax, limits.msgmax + 1] {
        say(format!("msgmax: a message of {size} bytes: {}", outcome(send(size))));
    }
    queue.remove()?;
    Ok(())
}

fn size_of_a_queue(limits: QueueLimits) -> Result<(), Stop> {
    let room = limits.msgmnb.min(BEARABLE);
    for size in [1024, 0] {
        let queue = new_queue()?;
        let settings = queue.status()?.settings();
        queue.set(&QueueSettings { max_bytes: room as u64, ..settings })?;
        let message = MessageBuffer::with_text(ANY, &vec![0; size]);
        let (mut sent, mut last) = (0, Ok(()));
        while last.is_ok() {
            last = queue.try_send(&message);
            sent += usize::from(last.is_ok());
        }
        let what = format!("{sent} messages of {size} bytes in a queue for {room}");
        say(format!("msgmnb: {what}; then {}", outcome(last)));
        queue.remove()?;
    }
    let queue = new_queue()?;
    let settings = queue.status()?.settings();
    for max_bytes in [limits.msgmnb as u64 / 2, limits.msgmnb as u64 + 1] {
        let set = queue.set(&QueueSettings { max_bytes, ..settings });
        let set = set.map_or_else(|error| error.to_string(), |()| "done".to_owned());
        say(format!("msgmnb: a queue for {max_bytes} bytes (IPC_SET): {set}"));
    }
    queue.remove()?;
    Ok(())
}

fn outcome(sent: Result<(), SendError>) -> String {
    match sent {
        Ok(()) => "sent".to_owned(),
        Err(SendError::TooBig) => "EINVAL: larger than msgmax".to_owned(),
        Err(SendError::Full) => {
            "EAGAIN, or a wait without IPC_NOWAIT: the queue is full".to_owned()
        }
        Err(error) => error.to_string(),
    }
}
