//! What can go wrong, and the choice of what does.

use std::time::Duration;

use mqfs_kit::Random;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillClient,
    StopClient,
    TerminateClient,
    KillChild,
    StopChild,
    KillServer,
    /// The server and all its children at once.
    KillService,
    StopServer,
    /// By SIGTERM; the next one starts at once.
    RestartServer,
    /// Two reapers run at once.
    Reap,
    RemoveRequestQueue,
    RemoveReplyQueue,
    /// Those that a client fetches, just before the child that sends them is killed.
    ReplaceFiles,
}

/// Every fault, and how often it is chosen of a hundred times.
const ALL: [(Fault, usize); 13] = [
    (Fault::KillClient, 12),
    (Fault::StopClient, 13),
    (Fault::TerminateClient, 6),
    (Fault::KillChild, 14),
    (Fault::StopChild, 9),
    (Fault::KillServer, 6),
    (Fault::KillService, 6),
    (Fault::StopServer, 6),
    (Fault::RestartServer, 5),
    (Fault::Reap, 11),
    (Fault::RemoveRequestQueue, 2),
    (Fault::RemoveReplyQueue, 4),
    (Fault::ReplaceFiles, 6),
];

/// The next thing to go wrong.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// How long until then.
    pub pause: Duration,
    pub fault: Fault,
    /// Which of the possible victims, modulo their number.
    pub victim: u64,
    /// How long the victim is stopped or away.
    pub lasts: Duration,
}

impl Choice {
    /// The same seed makes the same choices, however long each takes.
    pub fn next(random: &mut Random) -> Self {
        let pause = random.up_to(Duration::from_millis(16));
        let mut all = ALL.iter().flat_map(|&(fault, times)| std::iter::repeat_n(fault, times));
        let fault = all.nth(random.below(100) as usize).expect("they sum up to a hundred");
        let victim = random.number();
        // Most victims are stopped for a moment, a few for long.
        let longest = if random.below(40) == 0 { 1500 } else { 40 };
        let lasts = random.up_to(Duration::from_millis(longest));
        Self { pause, fault, victim, lasts }
    }
}
