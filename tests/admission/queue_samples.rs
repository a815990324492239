//! One queue of every kind that a request can name.

use std::cell::Cell;
use std::fmt;

use crate::sys::geteuid;
use nix::errno::Errno;
use proptest::prelude::*;
use sysv_ipc::Uid;

use crate::ownership::lease;
use crate::wire::{Cookie, Failure, FrameType, LEASE_TYPE, Lease};
use sysv_ipc::{
    Error, Key, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, QueueId, QueueSettings,
    QueueStatus, Select, SendError,
};

/// Which requests may be answered into a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Welcome {
    /// Extended ones that know its cookie.
    Extended,
    /// Plain ones, if the server answers any.
    Plain,
    /// None.
    Nobodys,
}

use Welcome::{Extended, Nobodys, Plain};

type Messages = Vec<(MessageType, Vec<u8>)>;

/// How a queue is made: its name here, its mode, its messages, and which requests are answered.
type Plan = (&'static str, u16, fn(&Lease) -> Messages, Welcome);

/// The request queue that their leases name.
pub(super) const ASKED: QueueId = QueueId::new(7);

const HANDED_OVER: &str = "handed over to another user";
const PLAIN_HANDED_OVER: &str = "a plain client's, handed over to another user";
const USED: &str = "received from before";
const FULL: &str = "full";

const PRIVATE: &[Plan] = &[
    ("in order", 0o711, leased, Extended),
    (HANDED_OVER, 0o711, leased, Nobodys),
    (PLAIN_HANDED_OVER, 0o600, |_| vec![], Nobodys),
    (USED, 0o711, leased, Nobodys),
    ("for another server", 0o711, |lease| leased(&for_another(lease)), Nobodys),
    (FULL, 0o711, leased, Extended),
    ("a lease with fields to come", 0o711, |lease| with_text(resized(lease, 128)), Extended),
    ("marked, no lease yet", 0o711, |_| vec![], Nobodys),
    ("a lease of another version", 0o711, other_version, Nobodys),
    ("a lease without its last byte", 0o711, |lease| with_text(resized(lease, 63)), Nobodys),
    ("longer than a lease can be", 0o711, |lease| with_text(resized(lease, 129)), Nobodys),
    ("no magic", 0o711, |lease| with_text(lease.encode()[8..].to_vec()), Nobodys),
    ("a lease of another type", 0o711, |lease| vec![data(lease)], Nobodys),
    ("a lease behind another message", 0o711, behind_data, Nobodys),
    ("a lease, but others may write", 0o733, leased, Nobodys),
    ("a lease, but others may read", 0o755, leased, Nobodys),
    ("a lease, but no mark", 0o600, leased, Nobodys),
    ("a lease, but half a mark", 0o700, leased, Nobodys),
    ("a lease of another version, no mark", 0o600, other_version, Nobodys),
    ("a plain client's", 0o600, |_| vec![], Plain),
    ("a plain client's with a message", 0o600, |lease| vec![data(lease)], Plain),
    ("a book's client's", 0o622, |_| vec![], Plain),
];

const KEYED: &[Plan] =
    &[("a lease under a key", 0o711, leased, Nobodys), ("keyed", 0o600, |_| vec![], Nobodys)];

fn with_text(text: Vec<u8>) -> Messages {
    vec![(LEASE_TYPE, text)]
}

fn leased(lease: &Lease) -> Messages {
    with_text(lease.encode().to_vec())
}

fn for_another(lease: &Lease) -> Lease {
    Lease { request_queue: QueueId::new(ASKED.get() + 1), ..*lease }
}

fn resized(lease: &Lease, length: usize) -> Vec<u8> {
    let mut text = lease.encode().to_vec();
    text.resize(length, 0);
    text
}

fn other_version(lease: &Lease) -> Messages {
    let mut text = lease.encode();
    text[8..10].copy_from_slice(&2_u16.to_ne_bytes());
    with_text(text.to_vec())
}

fn data(lease: &Lease) -> (MessageType, Vec<u8>) {
    (FrameType::Data.mtype(), lease.encode().to_vec())
}

fn behind_data(lease: &Lease) -> Messages {
    [vec![data(lease)], leased(lease)].concat()
}

/// A queue, and what is known about it without the kernel.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) queue: Queue,
    /// The cookie of its lease; of a lease that was never sent, if it has none.
    pub(super) cookie: Cookie,
    pub(super) welcome: Cell<Welcome>,
    /// Its status when we last changed it; None: removed.
    left: Cell<Option<QueueStatus>>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} (id {}, cookie {:02x?})",
            self.name,
            self.queue.id(),
            self.cookie.as_bytes()
        )
    }
}

impl Member {
    pub(super) fn is_full(&self) -> bool {
        self.name == FULL
    }

    /// Receives the FAILURE with this errno that must be in the queue.
    pub(super) fn take_failure(&self, errno: Option<Errno>) -> Result<(), TestCaseError> {
        let mut message = MessageBuffer::with_capacity(8192);
        let found = self.queue.try_receive(&mut message, Select::Type(FrameType::Failure.mtype()));
        prop_assert_eq!(found, Ok(()), "its caller was told nothing");
        let failure = Failure::decode(message.text());
        prop_assert_eq!(failure.errno, errno);
        let (before, now) = (self.left.get().unwrap(), self.queue.status().unwrap());
        prop_assert_eq!((before.messages, before.bytes), (now.messages, now.bytes));
        self.left.set(Some(now));
        if self.welcome.get() == Extended {
            self.welcome.set(Nobodys); // it was received from
        }
        Ok(())
    }
}

/// All queues. Dropping this removes them.
#[derive(Default)]
pub(super) struct QueueSamples {
    pub(super) queues: Vec<Member>,
    owned: Vec<OwnedQueue>,
}

impl QueueSamples {
    pub(super) fn new() -> Self {
        let mut samples = Self::default();
        for plan in PRIVATE {
            samples.add(Key::PRIVATE, plan);
        }
        for (key, plan) in (0..).zip(KEYED) {
            // Not one of tests/it, nor of another process.
            let own = 0x2000_0000 | (std::process::id() as i32 & 0xff_ffff) << 4;
            samples.add(Key::new(own | key), plan);
        }
        samples.add(Key::PRIVATE, &("removed", 0o711, leased, Nobodys));
        let removed = samples.owned.pop().unwrap();
        removed.release().remove().unwrap();
        for member in &samples.queues {
            member.left.set(member.queue.status().ok());
        }
        samples
    }

    fn add(&mut self, key: Key, &(name, mode, messages, welcome): &Plan) {
        let queue = OwnedQueue::create(key, Mode::new(mode)).unwrap();
        let lease = lease::new(ASKED).unwrap();
        let messages = messages(&lease);
        // The reaper removes a marked queue that is never used.
        if name == USED || messages.is_empty() {
            send(&queue, FrameType::Data.mtype(), b"").unwrap();
            queue.try_receive(&mut MessageBuffer::with_capacity(0), Select::Any).unwrap();
        }
        for (mtype, text) in messages {
            send(&queue, mtype, &text).unwrap();
        }
        match name {
            FULL => {
                while send(&queue, FrameType::Data.mtype(), &[0; 64]) != Err(SendError::Full) {}
            }
            // Skip it: a user namespace may have no other user.
            HANDED_OVER | PLAIN_HANDED_OVER if hand_over(&queue).is_err() => return,
            _ => {}
        }
        let (cookie, left, welcome) = (lease.cookie, Cell::new(None), Cell::new(welcome));
        self.queues.push(Member { name, queue: *queue, cookie, welcome, left });
        self.owned.push(queue);
    }

    /// Whether a queue can no longer be used as planned.
    pub(super) fn is_spent(&self) -> bool {
        let as_planned = PRIVATE.iter().chain(KEYED).filter(|plan| plan.3 == Extended).count();
        let now = self.queues.iter().filter(|member| member.welcome.get() == Extended).count();
        now < as_planned
    }

    pub(super) fn find(&self, id: QueueId) -> Option<&Member> {
        self.queues.iter().find(|member| member.queue.id() == id)
    }

    /// Checks that nobody has changed, sent to or received from a queue.
    pub(super) fn check_untouched(&self) -> Result<(), TestCaseError> {
        for member in &self.queues {
            prop_assert_eq!(member.queue.status().ok(), member.left.get(), "{:?}", member);
        }
        Ok(())
    }
}

fn send(queue: &Queue, mtype: MessageType, text: &[u8]) -> Result<(), SendError> {
    queue.try_send(&MessageBuffer::with_text(mtype, text))
}

/// Hands a queue over, as a client does for a server of another user. Its creator stays the same.
fn hand_over(queue: &Queue) -> Result<(), Error> {
    let settings = queue.status()?.settings();
    let other = Uid::from_raw(geteuid().as_raw() ^ 1);
    queue.set(&QueueSettings { uid: other, ..settings })
}
