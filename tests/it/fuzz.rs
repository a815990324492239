//! The decoders against very many inputs: golden messages, those with a few changes, all prefixes
//! of these, and random bytes. Whatever decodes is encoded again, which must give the same.
//!
//! Every run tries other inputs, and a failure prints how to repeat it. `cargo test` stops soon.
//! This runs a thousand times longer:
//!
//! ```sh
//! MQFS_FUZZ_TIMES=1000 cargo test --release fuzz
//! ```

use std::fmt;
use std::os::unix::ffi::OsStrExt;

use mqfs::wire::{
    Entry, Extent, Failure, FrameHeader, FrameType, LEASE_TYPE, Lease, MAX_PATH, MAX_PLAIN_REQUEST,
    MAX_REPLY, MAX_REQUEST, Malformed, Operation, Question, Request, Trailer, WindowPart,
    decode_farewell,
};
use mqfs_kit::fuzz::fuzz;
use nix::errno::Errno;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sysv_ipc::MessageType;

use crate::wire::golden_folder;

type Checked = Result<(), TestCaseError>;

/// Checks golden messages of this kind with changes, and the prefixes of each.
fn fuzz_decoder(test: &str, kind: &str, check: impl Fn(&[u8]) -> Checked) {
    const CASES: u32 = 600;
    fuzz(test, CASES, &changed(kind), |Bytes(text)| {
        beginnings(&text).try_for_each(|beginning| {
            check(beginning).map_err(|error| {
                let length = beginning.len();
                TestCaseError::fail(format!("{error}\nof its first {length} bytes"))
            })
        })
    });
}

#[test]
fn any_bytes_decode_to_a_request_or_fail() {
    fuzz_decoder("any_bytes_decode_to_a_request", "request", |text| {
        let Ok(request) = Request::decode(text) else { return Ok(()) };
        let path = request.question.path.as_os_str().as_bytes();
        prop_assert!(request.reply_queue.get() >= 0);
        prop_assert!(path.len() <= MAX_PATH && !path.contains(&0));
        let encoded = request.encode();
        prop_assert!(encoded.len() <= 4160, "longer than any that version 1 writes");
        // Version 1 with an unknown flag, which is not encoded.
        let has_flag = request.extension.is_some_and(|it| it.unknown_version == Some(1));
        if !has_flag {
            prop_assert_eq!(Request::decode(&encoded), Ok(request));
        }
        Ok(())
    });
}

#[test]
fn any_bytes_decode_to_a_question_or_fail() {
    fuzz_decoder("any_bytes_decode_to_a_question", "question", |text| {
        let Ok((question, rest)) = Question::decode(text) else { return Ok(()) };
        let mut encoded = Vec::new();
        question.append(&mut encoded);
        prop_assert_eq!(encoded.len(), question.encoded_len());
        encoded.extend(rest);
        prop_assert_eq!(Question::decode(&encoded), Ok((question, rest)));
        // Only a fetch has a range.
        let range = if matches!(question.operation, Operation::Fetch(_)) { 8 } else { 24 };
        prop_assert_eq!(&encoded[..8], &text[..8]);
        prop_assert_eq!(&encoded[range..], &text[range..]);
        Ok(())
    });
}

#[test]
fn any_bytes_decode_to_frames_or_fail() {
    fuzz_decoder("any_bytes_decode_to_frames", "frames", |mut rest| {
        while let Ok(header) = FrameHeader::decode(rest) {
            prop_assert_eq!(&header.encode()[..], &rest[..FrameHeader::SIZE]);
            rest = &rest[FrameHeader::SIZE..];
            let text;
            (text, rest) = rest.split_at(rest.len().min(header.length as usize));
            check_text(header.frame_type, text)?;
        }
        Ok(())
    });
}

#[test]
fn any_bytes_decode_to_the_text_of_a_frame_or_fail() {
    for (kind, frame_type) in [
        ("failure", FrameType::Failure),
        ("end", FrameType::End),
        ("entry", FrameType::Meta),
        ("meta", FrameType::Meta),
        ("window", FrameType::Window),
        ("extents", FrameType::Extents),
    ] {
        fuzz_decoder("any_bytes_decode_to_the_text", kind, |text| check_text(frame_type, text));
    }
}

fn check_text(frame_type: FrameType, text: &[u8]) -> Checked {
    match frame_type {
        FrameType::Data => {}
        FrameType::Failure => {
            let failure = Failure::decode(text);
            prop_assert!(!failure.text.contains(&0));
            let errno = failure.errno.map(|errno| errno as i32);
            prop_assert!(errno.is_none_or(|errno| (1..4096).contains(&errno)), "{:?}", errno);
            prop_assert_eq!(&Failure::decode(&failure.encode()), &failure);
        }
        FrameType::End => {
            if let Ok(Some(trailer)) = Trailer::decode(text) {
                prop_assert_eq!(Trailer::decode(&trailer.encode()), Ok(Some(trailer)));
            }
        }
        FrameType::Meta => {
            let decoded = Entry::decode(text);
            let Ok(entry) = decoded else { return Ok(()) };
            let mut encoded = Vec::new();
            entry.append(&mut encoded);
            prop_assert_eq!(encoded.len(), entry.encoded_len());
            // An errno that this system does not know is encoded as none.
            if entry.errno != Some(Errno::UnknownErrno) {
                prop_assert_eq!(&encoded[..100], &text[..100]);
                prop_assert_eq!(Entry::decode(&encoded), decoded);
            }
        }
        FrameType::Window => {
            if let Ok(part) = WindowPart::decode(text) {
                prop_assert_eq!(&part.encode()[..12], &text[..12]);
            }
        }
        FrameType::Extents => {
            if let Ok(extents) = Extent::decode_all(text, 1) {
                prop_assert_eq!(&Extent::encode_all(&extents), text);
                prop_assert!(extents.iter().all(|it| it.hole + it.data < 1 << 63));
            }
        }
        FrameType::Farewell => {
            let answered = text.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
            prop_assert_eq!(decode_farewell(text), answered.ok_or(Malformed::TooShort));
        }
    }
    Ok(())
}

#[test]
fn any_message_decodes_to_a_lease_or_fails() {
    fuzz_decoder("any_message_decodes_to_a_lease", "lease", |text| {
        let data = MessageType::new(2).unwrap();
        prop_assert!(Lease::decode(data, text).is_err());
        let decoded = Lease::decode(LEASE_TYPE, text);
        let Ok(lease) = decoded else { return Ok(()) };
        let encoded = lease.encode();
        prop_assert_eq!(&encoded[..10], &text[..10]);
        prop_assert_eq!(&encoded[12..60], &text[12..60]); // reserved bytes are before and after
        prop_assert_eq!(Lease::decode(LEASE_TYPE, &encoded), decoded);
        Ok(())
    });
}

/// The bytes of a message, which `Debug` shows as a literal for a test.
#[derive(Clone)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

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
