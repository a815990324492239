//! Valid messages, and changes to them.

use std::fmt;

use mqfs::wire::{MAX_PATH, MAX_PLAIN_REQUEST, MAX_REPLY, MAX_REQUEST};
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

/// One change to a message.
#[derive(Debug, Clone)]
enum Change {
    Flip(u8),
    Overwrite(&'static [u8]),
    Insert(&'static [u8]),
    Remove(usize),
    Cut,
    Grow(usize, u8),
}

/// Values next to the limits of what is valid.
const VALUES: [&[u8]; 17] = [
    b"\0",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    &[0; 8],
    &[0xff; 8],
    &1_u16.to_ne_bytes(),
    &2_u16.to_ne_bytes(),
    &i32::MIN.to_ne_bytes(),
    &i32::MAX.to_ne_bytes(),
    &4096_u32.to_ne_bytes(),
    &i64::MIN.to_ne_bytes(),
    &(u64::MAX - 1).to_ne_bytes(),
    b"mqfs-req",
    b"mqfs-own",
    b"mqfs-met",
];

/// Lengths next to a limit.
const LENGTHS: [usize; 6] =
    [MAX_PLAIN_REQUEST, 4 + MAX_PATH, 4160, MAX_REQUEST - 1, MAX_REQUEST + 2, MAX_REPLY + 1];

fn changes() -> impl Strategy<Value = Change> {
    let values = || select(&VALUES[..]);
    prop_oneof![
        4 => (0..8_u8).prop_map(Change::Flip),
        4 => values().prop_map(Change::Overwrite),
        2 => values().prop_map(Change::Insert),
        2 => (1..32_usize).prop_map(Change::Remove),
        1 => Just(Change::Cut),
        1 => (select(&LENGTHS[..]), any::<u8>()).prop_map(|(n, byte)| Change::Grow(n, byte)),
    ]
}

impl Change {
    fn make(&self, text: &mut Vec<u8>, at: usize) {
        match self {
            Self::Flip(bit) => text[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << bit),
            Self::Overwrite(value) => {
                text[at..].iter_mut().zip(*value).for_each(|(byte, value)| *byte = *value);
            }
            Self::Insert(value) => drop(text.splice(at..at, value.iter().copied())),
            Self::Remove(length) => drop(text.drain(at..text.len().min(at + length))),
            Self::Cut => text.truncate(at),
            Self::Grow(length, byte) => text.resize(text.len().max(*length), *byte),
        }
    }
}

/// A message of this kind with a few changes or none, another message of the protocol, or no
/// message at all.
pub fn changed(kind: &str) -> impl Strategy<Value = Bytes> + use<> {
    let messages = prop_oneof![9 => golden(kind), 1 => golden("")];
    // A place for each, often one where a field may begin.
    let places = (any::<Index>(), select(vec![1, 2, 4, 8]));
    let changed = (messages, vec((places, changes()), 0..5)).prop_map(|(mut text, changes)| {
        for ((index, step), change) in changes {
            let at = index.index(text.len() + 1) / step * step;
            change.make(&mut text, at);
        }
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
fn golden(kind: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let files = std::fs::read_dir(golden_folder()).unwrap().map(|file| file.unwrap());
    let files = files.filter(|file| file.file_name().to_str().unwrap().starts_with(kind));
    select(files.map(|file| std::fs::read(file.path()).unwrap()).collect::<Vec<_>>())
}
