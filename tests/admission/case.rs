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
    path: Vec<u8>,
    /// None: a plain request. Otherwise an extended one, with the session flag or without it.
    wants: Option<(Operation, bool)>,
    knows: Knows,
    /// Bits to flip in the id, so that it names no queue, or one with another cookie.
    astray: i32,
}

/// How the server was started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    pub(super) plain: PlainPolicy,
    pub(super) mode: Mode,
    /// Whether this test has no number in its user namespace.
    pub(super) we_are_unknown: bool,
}

/// What the caller knows about the cookie of the queue that it names.
#[derive(Debug, Clone, Copy)]
enum Knows {
    All,
    AllButBit(usize),
    AnotherQueues(Index),
    Nothing([u8; 16]),
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    let knows = prop_oneof![
        4 => Just(Knows::All),
        4 => (0..128_usize).prop_map(Knows::AllButBit),
        1 => any::<Index>().prop_map(Knows::AnotherQueues),
        1 => any::<[u8; 16]>().prop_map(Knows::Nothing),
    ];
    let astray = prop_oneof![any::<i32>(), (0..31).prop_map(|bit| 1 << bit)];
    (servers(), requests(), knows, astray).prop_map(|(server, (path, wants), knows, astray)| Case {
        server,
        path,
        wants,
        knows,
        astray,
    })
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

fn requests() -> impl Strategy<Value = (Vec<u8>, Option<(Operation, bool)>)> {
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
    (paths, wants)
}

impl Case {
    /// Three requests about a queue: as planned, with the right cookie, and with another id.
    pub(super) fn texts(&self, samples: &QueueSamples, queue: &Member) -> [Vec<u8>; 3] {
        let id = queue.queue.id();
        let cookie = self.knows.of(samples, queue.cookie);
        let astray = QueueId::new((id.get() ^ self.astray) & i32::MAX);
        [self.text(id, cookie), self.text(id, queue.cookie), self.text(astray, cookie)]
    }

    fn text(&self, id: QueueId, cookie: Cookie) -> Vec<u8> {
        let (operation, _) = self.wants.unwrap_or((Operation::Fetch(Range::WHOLE), false));
        let extension = self.wants.map(|(_, session)| Extension {
            cookie,
            session,
            windows: false,
            unknown_version: None,
        });
        let question = Question::new(Path::new(OsStr::from_bytes(&self.path)), operation);
        Request { reply_queue: id, question, extension }.encode()
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
