//! What can go wrong, and the choice of what does.

use std::time::Duration;

use mqfs_kit::Random;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    Reap,
    ReapTwice,
    RemoveRequestQueue,
    RemoveReplyQueue,
}

impl Fault {
    /// Every fault, how often it is chosen of a hundred times, and its name.
    pub const ALL: [(Self, u64, &str); 13] = [
        (Self::KillClient, 14, "kill -9 of a client"),
        (Self::StopClient, 13, "SIGSTOP of a client, SIGCONT later"),
        (Self::TerminateClient, 8, "SIGTERM of a client"),
        (Self::KillChild, 15, "kill -9 of a server's child"),
        (Self::StopChild, 10, "SIGSTOP of a child, SIGCONT later"),
        (Self::KillServer, 6, "kill -9 of the server alone"),
        (Self::KillService, 6, "kill -9 of the server and all its children"),
        (Self::StopServer, 6, "SIGSTOP of the server, SIGCONT later"),
        (Self::RestartServer, 5, "SIGTERM of the server, and the next one"),
        (Self::Reap, 7, "mqfs-reap"),
        (Self::ReapTwice, 4, "two mqfs-reap at once"),
        (Self::RemoveRequestQueue, 2, "removal of the request queue"),
        (Self::RemoveReplyQueue, 4, "removal of a reply queue"),
    ];

    /// Whether it needs a namespace of our own.
    fn removes(self) -> bool {
        matches!(self, Self::RemoveRequestQueue | Self::RemoveReplyQueue)
    }
}

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

/// Chooses. The same seed makes the same choices, however long each takes.
#[derive(Debug)]
pub struct Chooser {
    random: Random,
    may_remove: bool,
}

impl Chooser {
    pub fn new(seed: u64, may_remove: bool) -> Self {
        Self { random: Random::new(seed), may_remove }
    }

    pub fn next(&mut self) -> Choice {
        let pause = self.random.up_to(Duration::from_millis(16));
        let fault = self.fault();
        let victim = self.random.number();
        // Most victims are stopped for a moment, a few for long.
        let longest = if self.random.below(40) == 0 { 1500 } else { 40 };
        let lasts = self.random.up_to(Duration::from_millis(longest));
        Choice { pause, fault, victim, lasts }
    }

    fn fault(&mut self) -> Fault {
        let mut left = self.random.below(100);
        for (fault, weight, _) in Fault::ALL {
            if left < weight {
                return if fault.removes() && !self.may_remove { Fault::Reap } else { fault };
            }
            left -= weight;
        }
        Fault::Reap
    }
}
