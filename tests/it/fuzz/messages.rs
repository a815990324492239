//! Valid messages, and changes to them.

use std::fmt;

use mqfs::wire::{FrameHeader, FrameType, MAX_PATH, MAX_PLAIN_REQUEST, MAX_REPLY, MAX_REQUEST};
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
    let messages = prop_oneof![9 => valid, 1 => golden("")];
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

/// The golden messages whose names begin like this.
pub fn golden(kind: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let files = std::fs::read_dir(golden_folder()).unwrap().map(|file| file.unwrap());
    let files = files.filter(|file| file.file_name().to_str().unwrap().starts_with(kind));
    select(files.map(|file| std::fs::read(file.path()).unwrap()).collect::<Vec<_>>())
}

/// Frames of every type: those of the golden stream, and others with golden texts.
pub fn frames() -> impl Strategy<Value = Vec<u8>> {
    let stream = std::fs::read(golden_folder().join("frames.bin")).unwrap();
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Ok(header) = FrameHeader::decode(&stream[at..]) {
        frames.push(stream[at..].to_vec());
        at += FrameHeader::SIZE + header.length as usize;
    }
    let texts = prop_oneof![
        golden("failure").prop_map(|text| (FrameType::Failure, text)),
        golden("end").prop_map(|text| (FrameType::End, text)),
        golden("entry").prop_map(|text| (FrameType::Meta, text)),
        golden("window").prop_map(|text| (FrameType::Window, text)),
    ];
    let framed = (texts, any::<u16>()).prop_map(|((frame_type, text), question)| {
        let header = FrameHeader { frame_type, length: text.len() as u32, question };
        [&header.encode()[..], &text].concat()
    });
    prop_oneof![select(frames), framed]
}
