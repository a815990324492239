//! Admission against one real queue of every kind: who is admitted, who is told, and that nothing
//! reaches anybody else.
//!
//! The expected outcome follows from how each queue was made, not from what admission looks at.

use std::thread;

use mqfs_kit::{enter_own_namespace, give, unique_key};
use nix::errno::Errno;
use sysv_ipc::{
    Gid, Key, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, QueueId, QueueStatus, Select,
    SendError,
};

use super::policy::{Admitted, Policy};
use crate::ownership::lease;
use crate::server::config::{Config, PlainPolicy};
use crate::sys::geteuid;
use crate::wire::{
    Cookie, Extension, Failure, FrameType, LEASE_TYPE, Lease, Operation, Question, Range, Request,
};

/// Which requests may be answered into a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Welcome {
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
const ASKED: QueueId = QueueId::new(7);

const IN_ORDER: &str = "in order";
const HANDED_OVER: &str = "handed over to another user";
const PLAIN_HANDED_OVER: &str = "a plain client's, handed over to another user";
const USED: &str = "received from before";
const FULL: &str = "full";
const WITH_FIELDS: &str = "a lease with fields to come";
const PLAIN: &str = "a plain client's";
const KEYED: &str = "keyed";
const KEYED_LEASE: &str = "a lease under a key";
const REMOVED: &str = "removed";

const PLANS: &[Plan] = &[
    (IN_ORDER, 0o711, leased, Extended),
    (HANDED_OVER, 0o711, leased, Nobodys),
    (PLAIN_HANDED_OVER, 0o600, |_| vec![], Nobodys),
    (USED, 0o711, leased, Nobodys),
    ("for another server", 0o711, |lease| leased(&for_another(lease)), Nobodys),
    (FULL, 0o711, leased, Extended),
    (WITH_FIELDS, 0o711, |lease| with_text(resized(lease, 128)), Extended),
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
    ("a lease, but no mark, as in the book", 0o620, leased, Nobodys),
    ("a lease, but half a mark", 0o700, leased, Nobodys),
    ("a lease of another version, no mark", 0o600, other_version, Nobodys),
    (PLAIN, 0o600, |_| vec![], Plain),
    ("a plain client's with a message", 0o600, |lease| vec![data(lease)], Plain),
    ("a book's client's", 0o622, |_| vec![], Plain),
    ("a plain client's for everybody", 0o777, |_| vec![], Plain),
    (KEYED, 0o600, |_| vec![], Nobodys),
    (KEYED_LEASE, 0o711, leased, Nobodys),
    (REMOVED, 0o711, leased, Nobodys),
];

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

/// A queue, and what is known about it without the kernel. Removed with its handle.
#[derive(Debug)]
struct Sample {
    name: &'static str,
    queue: Queue,
    _owned: Option<OwnedQueue>,
    /// The cookie of its lease; of a lease that was never sent, if it has none.
    cookie: Cookie,
    welcome: Welcome,
    /// Its status when we last changed it; None: removed.
    left: Option<QueueStatus>,
}

fn send(queue: &Queue, mtype: MessageType, text: &[u8]) -> Result<(), SendError> {
    queue.try_send(&MessageBuffer::with_text(mtype, text))
}

impl Sample {
    /// None where a queue cannot be handed over: a user namespace may have no other user.
    fn new(&(name, mode, messages, welcome): &Plan) -> Option<Self> {
        let key = if [KEYED, KEYED_LEASE].contains(&name) { unique_key() } else { Key::PRIVATE };
        let owned = OwnedQueue::create(key, Mode::new(mode)).unwrap();
        let lease = lease::new(ASKED).unwrap();
        let messages = messages(&lease);
        // The reaper removes a marked queue that is never used.
        if name == USED || messages.is_empty() {
            send(&owned, FrameType::Data.mtype(), b"").unwrap();
            owned.try_receive(&mut MessageBuffer::with_capacity(0), Select::Any).unwrap();
        }
        for (mtype, text) in messages {
            send(&owned, mtype, &text).unwrap();
        }
        if name == FULL {
            while send(&owned, FrameType::Data.mtype(), &[0; 64]) != Err(SendError::Full) {}
        }
        if [HANDED_OVER, PLAIN_HANDED_OVER].contains(&name) {
            give(*owned, geteuid().as_raw() ^ 1).ok()?; // its creator stays the same
        }
        let (queue, owned) = (*owned, (name != REMOVED).then_some(owned));
        let left = queue.status().ok();
        Some(Self { name, queue, _owned: owned, cookie: lease.cookie, welcome, left })
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(self.queue.status().ok(), self.left, "{self:?}");
    }
}

/// How a server was started.
#[derive(Debug, Clone, Copy)]
struct Server {
    plain: PlainPolicy,
    mode: u16,
    /// Whether this test has no number in its user namespace.
    we_are_unknown: bool,
}

impl Server {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for plain in [PlainPolicy::Never, PlainPolicy::Owner, PlainPolicy::Any] {
            for mode in [0o600, 0o620, 0o602, 0o622] {
                let known = Self { plain, mode, we_are_unknown: false };
                all.extend([known, Self { we_are_unknown: true, ..known }]);
            }
        }
        all
    }

    fn policy(self) -> Policy {
        let mode = Mode::new(self.mode);
        let config = Config { plain: self.plain, mode, ..Config::default() };
        let unknown_uid = self.we_are_unknown.then(geteuid);
        Policy { unknown_uid, ..Policy::new(&config) }
    }

    fn takes_plain(self) -> bool {
        match self.plain {
            PlainPolicy::Never => false,
            PlainPolicy::Owner => self.mode == 0o600,
            PlainPolicy::Any => true,
        }
    }
}

/// A request about a queue, with this cookie: plain, and extended in every way.
fn requests(queue: Queue, cookie: Cookie) -> Vec<Request<'static>> {
    let request = |operation, extension| {
        let question = Question::new("/a".as_ref(), operation);
        Request { reply_queue: queue.id(), question, extension }
    };
    let fetch = Operation::Fetch(Range { offset: 5, length: None });
    let (windows, extents, unknown_version) = (false, false, None);
    let extension = Extension { cookie, session: false, windows, extents, unknown_version };
    let operations = [
        fetch,
        Operation::Stat { follow: false },
        Operation::List,
        Operation::Enter,
        Operation::Unknown { operation: 1, flags: 4 },
        Operation::Unknown { operation: 5, flags: 0 },
    ];
    let mut all = vec![request(fetch, None)];
    for operation in operations {
        for (session, unknown_version) in [(false, None), (true, None), (true, Some(2))] {
            let extension = Extension { session, unknown_version, ..extension };
            all.push(request(operation, Some(extension)));
        }
    }
    all
}

/// The expected outcome of a request: "Admission" in docs/protocol.md.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Admitted,
    /// Refused, and the caller is told.
    Told,
    Dropped,
}

fn fate(sample: Option<&Sample>, server: Server, request: &Request<'_>) -> Fate {
    let Some(sample) = sample else { return Fate::Dropped };
    let admitted = if server.we_are_unknown { Fate::Told } else { Fate::Admitted };
    match (sample.welcome, request.extension) {
        (Plain, None) if server.takes_plain() => admitted,
        (Extended, Some(extension)) if extension.cookie.as_bytes() == sample.cookie.as_bytes() => {
            match request.question.operation {
                Operation::Unknown { .. } => Fate::Told,
                _ if extension.unknown_version.is_some() => Fate::Told,
                _ => admitted,
            }
        }
        _ => Fate::Dropped,
    }
}

#[track_caller]
fn check(samples: &[Sample], server: Server, request: &Request<'_>) {
    let sample = samples.iter().find(|sample| sample.queue.id() == request.reply_queue);
    let (expected, what) = (fate(sample, server, request), (sample, server, request));
    match server.policy().admit(request, ASKED) {
        Ok(admitted) => {
            assert_eq!(expected, Fate::Admitted, "{what:?}");
            check_admitted(request, &admitted);
        }
        Err(refusal) if expected == Fate::Told => {
            let reply = refusal.reply.map(|reply| reply.queue.id());
            assert_eq!(reply, Some(request.reply_queue), "{}: {what:?}", refusal.reason);
        }
        Err(refusal) => {
            assert_eq!(expected, Fate::Dropped, "{}: {what:?}", refusal.reason);
            refusal.tell_caller();
        }
    }
    samples.iter().for_each(Sample::assert_untouched);
}

fn check_admitted(request: &Request<'_>, admitted: &Admitted<'_>) {
    let status = admitted.reply.queue.status().unwrap();
    assert_eq!(admitted.reply.queue.id(), request.reply_queue);
    assert_eq!(admitted.reply.max_bytes as u64, status.max_bytes);
    // We made every queue, even those that we handed over.
    let (caller, gid) = (admitted.caller, Gid::from_raw(nix::unistd::getegid().as_raw()));
    assert_eq!((caller.uid, caller.gid), (geteuid(), gid));
    assert_eq!(admitted.question, request.question);
    assert_eq!(admitted.session, request.extension.is_some_and(|it| it.session));
    let cookies = [request.extension.map(|asked| asked.cookie), admitted.reply.cookie];
    let [asked, answered] = cookies.map(|cookie| cookie.map(|cookie| *cookie.as_bytes()));
    assert_eq!(asked, answered);
    assert_eq!(admitted.reply.is_proven, asked.is_some());
}

fn with_bit_flipped(cookie: Cookie, bit: usize) -> Cookie {
    let mut bytes = *cookie.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    Cookie::new(bytes)
}

/// Runs a test against all samples, in an IPC namespace of its own if we may make one; tells it
/// whether.
fn with_samples(test: fn(&[Sample], bool)) {
    let outcome = thread::spawn(move || {
        let is_own = enter_own_namespace();
        let samples: Vec<_> = PLANS.iter().filter_map(Sample::new).collect();
        test(&samples, is_own);
    });
    outcome.join().unwrap();
}

#[test]
fn only_who_may_be_answered_is_admitted() {
    with_samples(|samples, is_own| {
        for (number, sample) in samples.iter().enumerate() {
            let cookie = sample.cookie;
            let of_another = samples[(number + 1) % samples.len()].cookie;
            let flipped = with_bit_flipped(cookie, number);
            for server in Server::all() {
                for cookie in [cookie, flipped, of_another, Cookie::new([0; 16])] {
                    for request in requests(sample.queue, cookie) {
                        check(samples, server, &request);
                    }
                }
            }
            let server = Server { plain: PlainPolicy::Any, mode: 0o622, we_are_unknown: false };
            for bit in 0..128 {
                let cookie = with_bit_flipped(cookie, bit);
                check(samples, server, &requests(sample.queue, cookie)[1]);
            }
            // In the common namespace, such an id may be that of another program's queue.
            for bit in (0..31).filter(|_| is_own) {
                let id = QueueId::new(sample.queue.id().get() ^ 1 << bit);
                for request in &requests(Queue::from_id(id), cookie)[..2] {
                    check(samples, server, request);
                }
            }
        }
    });
}

#[test]
fn a_caller_that_is_told_finds_one_failure_if_there_is_room() {
    with_samples(|samples, _| {
        let known = Server { plain: PlainPolicy::Any, mode: 0o622, we_are_unknown: false };
        let unknown = Server { we_are_unknown: true, ..known };
        let mut told = Vec::new();
        for (name, server, number, errno) in [
            (FULL, unknown, 1, None),
            (IN_ORDER, known, 18, Some(Errno::EPROTONOSUPPORT)),
            (WITH_FIELDS, unknown, 1, Some(Errno::EACCES)),
            (PLAIN, unknown, 0, None),
        ] {
            let sample = samples.iter().find(|sample| sample.name == name).unwrap();
            let request = requests(sample.queue, sample.cookie).swap_remove(number);
            server.policy().admit(&request, ASKED).unwrap_err().tell_caller();
            if name != FULL {
                let mut message = MessageBuffer::with_capacity(8192);
                let failure = Select::Type(FrameType::Failure.mtype());
                sample.queue.try_receive(&mut message, failure).unwrap();
                assert_eq!(Failure::decode(message.text()).errno, errno, "{name}");
                let messages = sample.left.unwrap().messages;
                assert_eq!(sample.queue.status().unwrap().messages, messages);
                told.push(name);
            }
            let others = samples.iter().filter(|other| !told.contains(&other.name));
            others.for_each(Sample::assert_untouched);
        }
    });
}
