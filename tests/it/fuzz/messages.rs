//! Valid messages, and changes to them.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mqfs::wire::{
    Cookie, Entry, Failure, Kind, LEASE_TYPE, Lease, MAX_PATH, MAX_PLAIN_REQUEST, MAX_REPLY,
    MAX_REQUEST, Meta, OwnerId, Reply, Request, Trailer,
};
use nix::errno::Errno;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sysv_ipc::QueueId;

use crate::wire::{extensions, golden};

/// The bytes of a message, which `Debug` shows as a literal for a test.
#[derive(Clone)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// A position in a message, often one where a field may begin.
#[derive(Debug, Clone)]
struct Place(Index, usize);

impl Place {
    fn of(&self, text: &[u8]) -> usize {
        self.0.index(text.len() + 1) / self.1 * self.1
    }
}

/// One change to a message.
#[derive(Debug, Clone)]
enum Change {
    Flip(Place, u8),
    Overwrite(Place, &'static [u8]),
    Insert(Place, &'static [u8]),
    Remove(Place, usize),
    Repeat(Place, usize, Place),
    Cut(Place),
    Grow(usize, u8),
}

/// Values next to the limits of what is valid.
const VALUES: [&[u8]; 23] = [
    b"\0",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"//",
    &[0; 8],
    &[0xff; 8],
    &1_u16.to_ne_bytes(),
    &2_u16.to_ne_bytes(),
    &1_u32.to_ne_bytes(),
    &(-1_i32).to_ne_bytes(),
    &i32::MIN.to_ne_bytes(),
    &i32::MAX.to_ne_bytes(),
    &4096_u32.to_ne_bytes(),
    &1_u64.to_ne_bytes(),
    &i64::MIN.to_ne_bytes(),
    &(u64::MAX - 1).to_ne_bytes(),
    b"mqfs-req",
    b"mqfs-own",
    b"mqfs-err",
    b"mqfs-met",
    b"mqfs-end",
];

/// Lengths next to a limit.
const LENGTHS: [usize; 6] =
    [MAX_PLAIN_REQUEST, 4 + MAX_PATH, 4168, MAX_REQUEST - 1, MAX_REQUEST + 2, MAX_REPLY + 1];

fn changes() -> impl Strategy<Value = Change> {
    let place =
        || (any::<Index>(), select(vec![1, 2, 4, 8])).prop_map(|(at, step)| Place(at, step));
    let values = || select(&VALUES[..]);
    prop_oneof![
        4 => (place(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        4 => (place(), values()).prop_map(|(at, value)| Change::Overwrite(at, value)),
        2 => (place(), values()).prop_map(|(at, value)| Change::Insert(at, value)),
        2 => (place(), 1..32_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        2 => (place(), 1..64_usize, place()).prop_map(|(at, n, to)| Change::Repeat(at, n, to)),
        1 => place().prop_map(Change::Cut),
        1 => (select(&LENGTHS[..]), any::<u8>()).prop_map(|(n, byte)| Change::Grow(n, byte)),
    ]
}

impl Change {
    fn make(&self, text: &mut Vec<u8>) {
        match self {
            Self::Flip(at, bit) => {
                let at = at.of(text);
                text[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            Self::Overwrite(at, value) => {
                let at = at.of(text);
                text[at..].iter_mut().zip(*value).for_each(|(byte, value)| *byte = *value);
            }
            Self::Insert(at, value) => {
                let at = at.of(text);
                text.splice(at..at, value.iter().copied());
            }
            Self::Remove(at, length) => {
                let at = at.of(text);
                text.drain(at..text.len().min(at + length));
            }
            Self::Repeat(at, length, to) => {
                let (at, to) = (at.of(text), to.of(text));
                let slice: Vec<_> = text[at..].iter().copied().take(*length).collect();
                text.splice(to..to, slice);
            }
            Self::Cut(at) => text.truncate(at.of(text)),
            Self::Grow(length, byte) => text.resize(text.len().max(*length), *byte),
        }
    }
}

/// A message with a few changes or none, another message of the protocol, or no message at all.
pub fn changed(valid: impl Strategy<Value = Vec<u8>> + 'static) -> impl Strategy<Value = Bytes> {
    let messages = prop_oneof![9 => valid, 1 => any_golden()];
    let changed = (messages, vec(changes(), 0..5)).prop_map(|(mut text, changes)| {
        changes.iter().for_each(|change| change.make(&mut text));
        text
    });
    prop_oneof![9 => changed, 1 => vec(any::<u8>(), 0..80)].prop_map(Bytes)
}

/// The message and its prefixes; of a long message those near its ends, and some in between.
pub fn beginnings(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let wanted = |&cut: &usize| cut < 128 || text.len() - cut < 128 || cut % 509 == 0;
    (0..=text.len()).rev().filter(wanted).map(|cut| &text[..cut])
}

fn any_golden() -> impl Strategy<Value = Vec<u8>> {
    select(vec!["request-whole.bin", "lease.bin", "meta.bin", "end.bin", "failure.bin"])
        .prop_map(golden)
}

pub fn requests() -> impl Strategy<Value = Vec<u8>> {
    let short = (0..=i32::MAX, vec(1..=255_u8, 0..40), extensions());
    let short = short.prop_map(|(id, path, extension)| {
        let path = Path::new(OsStr::from_bytes(&path));
        Request { reply_queue: QueueId::new(id), path, extension }.encode()
    });
    let golden = select(vec![
        "request-plain-260.bin",
        "request-plain-4100.bin",
        "request-plain-short.bin",
        "request-range.bin",
        "request-stat.bin",
        "request-list.bin",
        "request-tree-rest.bin",
        "request-version-9.bin",
        "request-whole.bin",
    ])
    .prop_map(golden);
    prop_oneof![12 => short, 4 => golden, 1 => long_requests()]
}

/// Requests with a path of about the maximum length, also slightly longer.
fn long_requests() -> impl Strategy<Value = Vec<u8>> {
    let lengths = MAX_PATH - 2..=MAX_PATH + 2;
    (1..=255_u8, lengths, extensions()).prop_map(|(byte, length, extension)| {
        let (id, path) = (QueueId::new(i32::from(byte)), Path::new(""));
        let short = Request { reply_queue: id, path, extension }.encode();
        let mut text = [&short[..4], &vec![byte; length], b"\0"].concat();
        if extension.is_some() {
            text.resize(text.len().next_multiple_of(8), 0);
            text.extend_from_slice(&short[8..]);
        }
        text
    })
}

pub fn leases() -> impl Strategy<Value = (i64, Bytes)> {
    let owners = (any::<i32>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(pid, start_time, pid_namespace, time_namespace)| OwnerId {
            pid,
            start_time,
            pid_namespace,
            time_namespace,
        },
    );
    let leases =
        (owners, any::<[u8; 16]>(), any::<i32>()).prop_map(|(owner, cookie, request_queue)| {
            let request_queue = QueueId::new(request_queue);
            Lease { owner, cookie: Cookie::new(cookie), request_queue }.encode().to_vec()
        });
    (mtypes(LEASE_TYPE.get()), changed(leases))
}

pub fn replies() -> impl Strategy<Value = (i64, Bytes)> {
    let plain = prop_oneof![Just(Reply::DATA), Just(Reply::END)].prop_map(|mtype| mtype.get());
    prop_oneof![
        3 => (mtypes(Reply::FAILURE.get()), changed(failures())),
        1 => (plain, changed(vec(any::<u8>(), 0..40))),
        3 => (mtypes(Reply::END.get()), changed(trailers())),
        3 => (mtypes(Reply::META.get()), changed(metas())),
    ]
}

/// The type of a message, or sometimes another one.
fn mtypes(usual: i64) -> impl Strategy<Value = i64> {
    let near = (-2..=2_i64).prop_map(move |by| (usual + by).max(1));
    prop_oneof![18 => Just(usual), 1 => near, 1 => prop_oneof![1..=5_i64, 1..=i64::MAX]]
}

fn failures() -> impl Strategy<Value = Vec<u8>> {
    let errnos = (1..200_i32).prop_map(Errno::from_raw);
    let known = errnos.prop_map(|errno| (errno != Errno::UnknownErrno).then_some(errno));
    (vec(1..=255_u8, 0..50), known).prop_map(|(text, errno)| Failure { text, errno }.encode())
}

fn trailers() -> impl Strategy<Value = Vec<u8>> {
    (any::<u64>(), any::<u32>(), any::<bool>()).prop_map(|(bytes, checksum, changed)| {
        Trailer { bytes, checksum, changed }.encode().to_vec()
    })
}

fn metas() -> impl Strategy<Value = Vec<u8>> {
    meta().prop_map(|meta| meta.encode().to_vec())
}

pub fn entries() -> impl Strategy<Value = Vec<u8>> {
    let names = (vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40));
    (meta(), any::<(u32, u32, u64, u64)>(), names).prop_map(|(meta, numbers, names)| {
        let (uid, gid, links, special) = numbers;
        let mut packed = Vec::new();
        Entry { meta, uid, gid, links, special, name: &names.0, target: &names.1 }
            .append(&mut packed);
        packed
    })
}

fn meta() -> impl Strategy<Value = Meta> {
    let kinds = select(vec![
        Kind::Unknown,
        Kind::Regular,
        Kind::Directory,
        Kind::Link,
        Kind::Fifo,
        Kind::Socket,
        Kind::CharacterDevice,
        Kind::BlockDevice,
    ]);
    let file = (any::<u32>(), any::<u64>(), any::<(i64, u32)>(), any::<u64>(), any::<u64>());
    (kinds, file, any::<u64>(), any::<Option<u64>>()).prop_map(|(kind, file, offset, length)| {
        let (mode, size, mtime, device, inode) = file;
        Meta { kind, mode, size, mtime, device, inode, offset, length }
    })
}
