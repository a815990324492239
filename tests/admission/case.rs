//! Requests by callers who know all, some or nothing about a queue.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::queue_samples::{Member, QueueSamples};
use crate::server::config::PlainPolicy;
use crate::wire::{Cookie, Extension, Operation, Question, Range, Request};
use sysv_ipc::{Mode, QueueId};

/// One set of requests, which is sent about every queue in turn.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) server: Server,
    says: Says,
    knows: Knows,
    /// Bits to flip in the id, so that it names no queue, or one with another cookie.
    astray: i32,
    changes: Vec<Change>,
    cut: Index,
}

/// How the server was started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    pub(super) plain: PlainPolicy,
    pub(super) mode: Mode,
    /// Whether the overflow uid is that of this test.
    pub(super) we_are_unknown: bool,
}

#[derive(Debug, Clone)]
enum Says {
    /// A plain request, or an extended one with the session flag or without it.
    Request {
        path: Vec<u8>,
        wants: Option<(Operation, bool)>,
    },
    Anything(Vec<u8>),
}

/// What the caller knows about the cookie of the queue that it names.
#[derive(Debug, Clone, Copy)]
enum Knows {
    All,
    AllButBit(usize),
    AnotherQueues(Index),
    Nothing([u8; 16]),
}

/// A change to the bytes of a request.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Remove(Index),
    Insert(Index, u8),
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    let knows = prop_oneof![
        4 => Just(Knows::All),
        4 => (0..128_usize).prop_map(Knows::AllButBit),
        1 => any::<Index>().prop_map(Knows::AnotherQueues),
        1 => any::<[u8; 16]>().prop_map(Knows::Nothing),
    ];
    let astray = prop_oneof![any::<i32>(), (0..31).prop_map(|bit| 1 << bit)];
    let change = prop_oneof![
        3 => (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Change::Flip(at, bits)),
        1 => any::<Index>().prop_map(Change::Remove),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
    ];
    let changes = prop_oneof![Just(Vec::new()), vec(change, 1..4)];
    (servers(), requests(), knows, astray, changes, any::<Index>()).prop_map(
        |(server, says, knows, astray, changes, cut)| Case {
            server,
            says,
            knows,
            astray,
            changes,
            cut,
        },
    )
}

fn servers() -> impl Strategy<Value = Server> {
    let plain = select(vec![PlainPolicy::Never, PlainPolicy::Owner, PlainPolicy::Any]);
    let modes = select(vec![0o600, 0o620, 0o602, 0o622]).prop_map(Mode::new);
    (plain, modes, prop::bool::weighted(0.1)).prop_map(|(plain, mode, we_are_unknown)| Server {
        plain,
        mode,
        we_are_unknown,
    })
}

fn requests() -> impl Strategy<Value = Says> {
    let range = any::<u64>().prop_map(|offset| Operation::Fetch(Range { offset, length: None }));
    let unknown = (1..=5_u16, 0..=u16::MAX)
        .prop_map(|(operation, flags)| Operation::Unknown { operation, flags: flags | 4 });
    let known = select(vec![Operation::Stat { follow: false }, Operation::List, Operation::Enter]);
    let operations = prop_oneof![2 => range, 2 => known, 1 => unknown];
    let wants = proptest::option::of((operations, any::<bool>()));
    let paths = prop_oneof![
        19 => vec(1..=255_u8, 0..40),
        1 => Just(vec![b'/'; crate::wire::MAX_PATH]),
    ];
    prop_oneof![
        9 => (paths, wants).prop_map(|(path, wants)| Says::Request { path, wants }),
        1 => vec(any::<u8>(), 0..80).prop_map(Says::Anything),
    ]
}

impl Case {
    /// Four requests about a queue: as planned, with the right cookie, cut short, and with another
    /// id.
    pub(super) fn texts(&self, samples: &QueueSamples, queue: &Member) -> [Vec<u8>; 4] {
        let id = queue.queue.id();
        let cookie = self.knows.of(samples, queue.cookie);
        let text = self.text(id, cookie);
        let cut = text[..self.cut.index(text.len() + 1)].to_vec();
        let astray = QueueId::new((id.get() ^ self.astray) & i32::MAX);
        [text, self.text(id, queue.cookie), cut, self.text(astray, cookie)]
    }

    fn text(&self, id: QueueId, cookie: Cookie) -> Vec<u8> {
        let mut text = match &self.says {
            Says::Request { path, wants } => {
                let path = Path::new(OsStr::from_bytes(path));
                let (operation, _) = wants.unwrap_or((Operation::Fetch(Range::WHOLE), false));
                let extension =
                    wants.map(|(_, session)| Extension { cookie, session, unknown_version: None });
                let question = Question::new(path, operation);
                Request { reply_queue: id, question, extension }.encode()
            }
            Says::Anything(bytes) => [&id.get().to_ne_bytes(), &bytes[..]].concat(),
        };
        for change in &self.changes {
            match *change {
                Change::Flip(at, bits) => *at.get_mut(&mut text) ^= bits,
                Change::Remove(at) => drop(text.remove(at.index(text.len()))),
                Change::Insert(at, byte) => text.insert(at.index(text.len() + 1), byte),
            }
        }
        text
    }
}

impl Knows {
    fn of(self, samples: &QueueSamples, cookie: Cookie) -> Cookie {
        match self {
            Self::All => cookie,
            Self::AllButBit(bit) => {
                let mut bytes = *cookie.as_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                Cookie::new(bytes)
            }
            Self::AnotherQueues(queue) => queue.get(&samples.queues).cookie,
            Self::Nothing(bytes) => Cookie::new(bytes),
        }
    }
}
