//! What can go wrong, and the choice of what does.

use std::iter::repeat_n;

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

impl Fault {
    /// Every fault, and how often it is chosen of a hundred times.
    const ALL: [(Self, usize); 13] = [
        (Self::KillClient, 12),
        (Self::StopClient, 13),
        (Self::TerminateClient, 6),
        (Self::KillChild, 14),
        (Self::StopChild, 9),
        (Self::KillServer, 6),
        (Self::KillService, 6),
        (Self::StopServer, 6),
        (Self::RestartServer, 5),
        (Self::Reap, 11),
        (Self::RemoveRequestQueue, 2),
        (Self::RemoveReplyQueue, 4),
        (Self::ReplaceFiles, 6),
    ];

    pub fn any(random: &mut Random) -> Self {
        let mut all = Self::ALL.iter().flat_map(|&(fault, times)| repeat_n(fault, times));
        all.nth(random.below(100) as usize).expect("they sum up to a hundred")
    }
}

/// One of these victims, which `number` chooses.
pub fn chosen<T>(victims: &mut [T], number: u64) -> Option<&mut T> {
    let count = victims.len().max(1) as u64;
    victims.get_mut((number % count) as usize)
}
