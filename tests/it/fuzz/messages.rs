//! Valid messages, and changes to them.

use std::fmt;

use mqfs::wire::{Failure, LEASE_TYPE, MAX_PATH, MAX_PLAIN_REQUEST, MAX_REPLY, MAX_REQUEST};
use nix::errno::Errno;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::wire::golden_folder;

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
const VALUES: [&[u8]; 22] = [
    b"\0",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
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
    [MAX_PLAIN_REQUEST, 4 + MAX_PATH, 4160, MAX_REQUEST - 1, MAX_REQUEST + 2, MAX_REPLY + 1];

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
    let files = std::fs::read_dir(golden_folder()).unwrap();
    select(files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect::<Vec<_>>())
}

/// Paths, some of about the maximum length, or longer.
fn paths() -> impl Strategy<Value = Vec<u8>> {
    let long = (1..=255_u8, MAX_PATH - 2..=MAX_PATH + 2);
    let long = long.prop_map(|(byte, length)| vec![byte; length]);
    prop_oneof![12 => vec(1..=255_u8, 0..40), 1 => long]
}

fn numbers<const N: usize>(numbers: [u16; N]) -> Vec<u8> {
    numbers.map(u16::to_ne_bytes).concat()
}

/// What comes before the path of a question, and ends a request.
fn question_headers(path_length: usize) -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![any::<u64>(), Just(u64::MAX)];
    (1..=5_u16, 0..=3_u16, any::<u16>(), any::<u64>(), lengths).prop_map(
        move |(operation, flags, number, offset, length)| {
            let range = [offset, length].map(u64::to_ne_bytes).concat();
            [numbers([operation, flags, number, path_length as u16]), range].concat()
        },
    )
}

pub fn questions() -> impl Strategy<Value = Vec<u8>> {
    let question = paths().prop_flat_map(|path| {
        question_headers(path.len()).prop_map(move |header| [&header[..], &path].concat())
    });
    vec(question, 1..4).prop_map(|questions| questions.concat())
}

pub fn requests() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![9 => Just(1_u16), 1 => any::<u16>()];
    let version = (version, 0..=1_u16).prop_map(|(version, flags)| numbers([version, flags, 0, 0]));
    let extension = (version, any::<[u8; 16]>(), question_headers(0));
    (0..=i32::MAX, paths(), proptest::option::weighted(0.9, extension)).prop_map(
        |(id, path, extension)| {
            let mut text = [&id.to_ne_bytes()[..], &path, b"\0"].concat();
            if let Some((version, cookie, question)) = extension {
                text.resize(text.len().next_multiple_of(8), 0);
                text.extend([b"mqfs-req", &version[..], &cookie, &question].concat());
            }
            text
        },
    )
}

pub fn leases() -> impl Strategy<Value = (i64, Bytes)> {
    let lease = any::<[[u8; 12]; 4]>().prop_map(|fields| {
        let opening = [b"mqfs-own", &numbers([1, 0])[..]].concat();
        [opening, fields.concat(), vec![0; 4]].concat()
    });
    (mtypes(LEASE_TYPE.get()), changed(lease))
}

/// The type of a message, or sometimes another one.
fn mtypes(usual: i64) -> impl Strategy<Value = i64> {
    let near = (-2..=2_i64).prop_map(move |by| (usual + by).max(1));
    prop_oneof![18 => Just(usual), 1 => near, 1 => 1..=i64::MAX]
}

/// Frames of every type.
pub fn frames() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = vec(any::<u8>(), 0..40);
    let texts = prop_oneof![
        failures().prop_map(|text| (1, text)),
        any_bytes.prop_map(|text| (2, text)),
        trailers().prop_map(|text| (3, text)),
        entries().prop_map(|text| (4, text)),
        any::<[u8; 8]>().prop_map(|text| (5, text.to_vec())),
    ];
    (texts, any::<u16>()).prop_map(|((frame_type, text), question): ((u16, Vec<u8>), u16)| {
        let length = (text.len() as u32).to_ne_bytes();
        [&length[..], &numbers([frame_type, question]), &text].concat()
    })
}

fn failures() -> impl Strategy<Value = Vec<u8>> {
    let errnos = proptest::option::of((1..200_i32).prop_map(Errno::from_raw));
    (vec(1..=255_u8, 0..50), errnos).prop_map(|(text, errno)| Failure { text, errno }.encode())
}

fn trailers() -> impl Strategy<Value = Vec<u8>> {
    (0..=1_u16, any::<[u8; 12]>())
        .prop_map(|(flags, fields)| [b"mqfs-end", &numbers([1, flags])[..], &fields].concat())
}

fn entries() -> impl Strategy<Value = Vec<u8>> {
    let names = (vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40));
    let fields = (any::<[[u8; 12]; 7]>(), prop_oneof![Just(0), 1..200_i32]);
    (0..=7_u16, fields, names).prop_map(|(kind, (fields, errno), (name, target))| {
        let mut fields = fields.concat();
        fields[24..28].copy_from_slice(&errno.to_ne_bytes());
        let lengths = numbers([name.len() as u16, target.len() as u16, 0, 0]);
        let opening = [b"mqfs-met", &numbers([1, kind])[..]].concat();
        [opening, fields, lengths, name, target].concat()
    })
}
