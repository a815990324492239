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
    Reap,
    ReapTwice,
    RemoveRequestQueue,
    RemoveReplyQueue,
    /// Those that a client fetches, just before the child that sends them is killed.
    ReplaceFiles,
}

impl Fault {
    /// Every fault, how often it is chosen of a hundred times, and its name.
    pub const ALL: [(Self, u64, &str); 14] = [
        (Self::KillClient, 12, "kill -9 of a client"),
        (Self::StopClient, 13, "SIGSTOP of a client, SIGCONT later"),
        (Self::TerminateClient, 6, "SIGTERM of a client"),
        (Self::KillChild, 14, "kill -9 of a server's child"),
        (Self::StopChild, 9, "SIGSTOP of a child, SIGCONT later"),
        (Self::KillServer, 6, "kill -9 of the server alone"),
        (Self::KillService, 6, "kill -9 of the server and all its children"),
        (Self::StopServer, 6, "SIGSTOP of the server, SIGCONT later"),
        (Self::RestartServer, 5, "SIGTERM of the server, and the next one"),
        (Self::Reap, 7, "mqfs-reap"),
        (Self::ReapTwice, 4, "two mqfs-reap at once"),
        (Self::RemoveRequestQueue, 2, "removal of the request queue"),
        (Self::RemoveReplyQueue, 4, "removal of a reply queue"),
        (Self::ReplaceFiles, 6, "files replaced, and kill -9 of the child"),
    ];
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
pub struct Chooser(Random);

impl Chooser {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub fn next(&mut self) -> Choice {
        let pause = self.0.up_to(Duration::from_millis(16));
        let fault = self.fault();
        let victim = self.0.number();
        // Most victims are stopped for a moment, a few for long.
        let longest = if self.0.below(40) == 0 { 1500 } else { 40 };
        let lasts = self.0.up_to(Duration::from_millis(longest));
        Choice { pause, fault, victim, lasts }
    }

    fn fault(&mut self) -> Fault {
        let each = Fault::ALL.into_iter();
        let mut all = each.flat_map(|(fault, times, _)| (0..times).map(move |_| fault));
        all.nth(self.0.below(100) as usize).unwrap_or(Fault::Reap)
    }
}
