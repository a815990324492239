//! The decoders against very many inputs: golden messages, those with a few changes, all prefixes
//! of these, and random bytes. Whatever decodes is encoded again, which must give the same.
//!
//! Every run tries other inputs, and a failure prints how to repeat it. `cargo test` stops soon.
//! This runs a thousand times longer, also for admission (tests/admission/mod.rs):
//!
//! ```sh
//! MQFS_FUZZ_TIMES=1000 cargo test --release fuzz -- --nocapture
//! ```

mod messages;

use std::fmt::Debug;
use std::os::unix::ffi::OsStrExt;

use mqfs::wire::{
    Cookie, Entry, Extension, Failure, FrameHeader, FrameType, LEASE_TYPE, Lease, MAX_PATH,
    Malformed, Operation, Question, Request, Trailer, WindowPart, decode_farewell,
};
use nix::errno::Errno;
use proptest::prelude::*;
use sysv_ipc::MessageType;

use messages::{Bytes, beginnings, changed, frames, golden};
use mqfs_kit::fuzz::{Tally, Target};

/// The kind of result of an input, or why it is wrong.
type Checked = Result<&'static str, TestCaseError>;

#[test]
fn any_bytes_decode_to_a_request_or_fail() {
    let outcomes = &["plain", "extended", "newer", "too short", "too long", "id", "no NUL"];
    let target = Target { name: "any_bytes_decode_to_a_request", inputs: 400_000, outcomes };
    target.run(&changed(golden("request")), |Bytes(text), tally| {
        if let Ok(request) = Request::decode(text)
            && let Some(extension) = request.extension
        {
            let with = |cookie| Some(Extension { cookie, ..extension });
            hides_its_cookie(&request, |cookie| Request { extension: with(cookie), ..request })?;
        }
        check_beginnings(text, tally, check_request)
    });
}

fn check_request(text: &[u8]) -> Checked {
    let decoded = Request::decode(text);
    let request = match decoded {
        Ok(request) => request,
        Err(malformed) => return Ok(kind(malformed)),
    };
    let path = request.question.path.as_os_str().as_bytes();
    prop_assert!(request.reply_queue.get() >= 0 && path.len() <= MAX_PATH && !path.contains(&0));
    let encoded = request.encode();
    prop_assert!(encoded.len() <= 4160, "longer than any that version 1 writes");
    let seen = match request.extension {
        None => "plain",
        Some(Extension { unknown_version: None, .. }) => "extended",
        // An unknown flag, which is not encoded.
        Some(Extension { unknown_version: Some(1), .. }) => return Ok("newer"),
        Some(_) => "newer",
    };
    prop_assert_eq!(Request::decode(&encoded), Ok(request));
    Ok(seen)
}

#[test]
fn any_bytes_decode_to_a_question_or_fail() {
    let outcomes = &["fetch", "stat", "list", "enter", "unknown", "too short", "too long", "field"];
    let target = Target { name: "any_bytes_decode_to_a_question", inputs: 300_000, outcomes };
    target.run(&changed(golden("question")), |Bytes(text), tally| {
        check_beginnings(text, tally, check_question)
    });
}

fn check_question(text: &[u8]) -> Checked {
    let decoded = Question::decode(text);
    let (question, rest) = match decoded {
        Ok(decoded) => decoded,
        Err(malformed) => return Ok(kind(malformed)),
    };
    let mut encoded = Vec::new();
    question.append(&mut encoded);
    prop_assert_eq!(encoded.len(), question.encoded_len());
    encoded.extend(rest);
    prop_assert_eq!(Question::decode(&encoded), Ok((question, rest)));
    // Only a fetch has a range.
    let range = if matches!(question.operation, Operation::Fetch(_)) { 8 } else { 24 };
    prop_assert_eq!(&encoded[..8], &text[..8]);
    prop_assert_eq!(&encoded[range..], &text[range..]);
    Ok(match question.operation {
        Operation::Fetch(_) => "fetch",
        Operation::Stat { .. } => "stat",
        Operation::List => "list",
        Operation::Enter => "enter",
        _ => "unknown",
    })
}

#[test]
fn any_bytes_decode_to_a_frame_and_a_reply_or_fail() {
    let outcomes = &[
        "failure",
        "data",
        "end",
        "trailer",
        "meta",
        "farewell",
        "window",
        "too short",
        "too long",
        "type",
        "magic",
        "version",
        "field",
    ];
    let target = Target { name: "any_bytes_decode_to_a_frame", inputs: 600_000, outcomes };
    target.run(&changed(frames()), |Bytes(text), tally| check_beginnings(text, tally, check_frame));
}

fn check_frame(text: &[u8]) -> Checked {
    let header = match FrameHeader::decode(text) {
        Ok(header) => header,
        Err(malformed) => return Ok(kind(malformed)),
    };
    prop_assert_eq!(&header.encode()[..], &text[..FrameHeader::SIZE]);
    let text = &text[FrameHeader::SIZE..];
    let text = text.get(..header.length as usize).unwrap_or(text);
    if header.frame_type != FrameType::Farewell {
        return check_reply(header.frame_type, text);
    }
    let answered = text.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    prop_assert_eq!(decode_farewell(text), answered.ok_or(Malformed::TooShort));
    Ok(answered.map_or("too short", |_| "farewell"))
}

fn check_reply(part: FrameType, text: &[u8]) -> Checked {
    match part {
        FrameType::Failure => {
            let failure = Failure::decode(text);
            prop_assert!(!failure.text.contains(&0));
            let errno = failure.errno.map(|errno| errno as i32);
            prop_assert!(errno.is_none_or(|errno| (1..4096).contains(&errno)), "{:?}", errno);
            prop_assert_eq!(&Failure::decode(&failure.encode()), &failure);
            Ok(if errno.is_some() { "failure with errno" } else { "failure" })
        }
        FrameType::End => {
            let decoded = Trailer::decode(text);
            match decoded {
                Err(malformed) => Ok(kind(malformed)),
                Ok(None) => Ok("end"),
                Ok(Some(trailer)) => {
                    prop_assert_eq!(Trailer::decode(&trailer.encode()), decoded);
                    Ok("trailer")
                }
            }
        }
        FrameType::Meta => {
            let decoded = Entry::decode(text);
            let entry = match decoded {
                Err(malformed) => return Ok(kind(malformed)),
                Ok(entry) => entry,
            };
            let mut encoded = Vec::new();
            entry.append(&mut encoded);
            prop_assert_eq!(encoded.len(), entry.encoded_len());
            // An errno that this system does not know is encoded as none.
            if entry.errno != Some(Errno::UnknownErrno) {
                prop_assert_eq!(&encoded[..100], &text[..100]);
                prop_assert_eq!(Entry::decode(&encoded), decoded);
            }
            Ok("meta")
        }
        FrameType::Window => {
            let decoded = WindowPart::decode(text);
            let part = match decoded {
                Err(malformed) => return Ok(kind(malformed)),
                Ok(part) => part,
            };
            prop_assert_eq!(&part.encode()[..12], &text[..12]);
            Ok("window")
        }
        FrameType::Data | FrameType::Farewell => Ok("data"),
    }
}

#[test]
fn any_message_decodes_to_a_lease_or_fails() {
    let outcomes = &["lease", "too short", "magic", "version", "type"];
    let target = Target { name: "any_message_decodes_to_a_lease", inputs: 200_000, outcomes };
    let mtypes = prop_oneof![9 => Just(LEASE_TYPE.get()), 1 => 1..=i64::MAX];
    target.run(&(mtypes, changed(golden("lease"))), |(mtype, Bytes(text)), tally| {
        let mtype = MessageType::new(*mtype).unwrap();
        if let Ok(lease) = Lease::decode(mtype, text) {
            hides_its_cookie(&lease, |cookie| Lease { cookie, ..lease })?;
            equals_itself_alone(lease.cookie)?;
        }
        check_beginnings(text, tally, |text| check_lease(mtype, text))
    });
}

fn check_lease(mtype: MessageType, text: &[u8]) -> Checked {
    let decoded = Lease::decode(mtype, text);
    let lease = match decoded {
        Ok(lease) => lease,
        Err(malformed) => return Ok(kind(malformed)),
    };
    prop_assert_eq!(mtype, LEASE_TYPE);
    let encoded = lease.encode();
    prop_assert_eq!(&encoded[..10], &text[..10]);
    prop_assert_eq!(&encoded[12..60], &text[12..60]); // reserved bytes are before and after
    prop_assert_eq!(Lease::decode(LEASE_TYPE, &encoded), Ok(lease));
    Ok("lease")
}

/// Checks a message and its prefixes, each of which is an input.
fn check_beginnings(
    text: &[u8],
    tally: &Tally,
    check: impl Fn(&[u8]) -> Checked,
) -> Result<(), TestCaseError> {
    for beginning in beginnings(text) {
        let seen = check(beginning).map_err(|error| match error {
            TestCaseError::Fail(why) => {
                TestCaseError::fail(format!("{why}\nof its first {} bytes", beginning.len()))
            }
            other => other,
        })?;
        tally.count(seen);
    }
    Ok(())
}

/// Checks that neither `Debug` nor the log shows the cookie of a value.
fn hides_its_cookie<T: Debug>(
    value: &T,
    with: impl FnOnce(Cookie) -> T,
) -> Result<(), TestCaseError> {
    let other = with(Cookie::new([0x5a; 16]));
    prop_assert_eq!(format!("{value:?}"), format!("{other:?}"));
    prop_assert_eq!(format!("{value:#?}"), format!("{other:#?}"));
    Ok(())
}

/// A cookie that differs in a single bit must not be equal.
fn equals_itself_alone(cookie: Cookie) -> Result<(), TestCaseError> {
    prop_assert_eq!(cookie, Cookie::new(*cookie.as_bytes()));
    for bit in 0..128 {
        let mut bytes = *cookie.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(cookie, Cookie::new(bytes), "bit {}", bit);
    }
    Ok(())
}

fn kind(malformed: Malformed) -> &'static str {
    match malformed {
        Malformed::TooShort => "too short",
        Malformed::TooLong => "too long",
        Malformed::QueueId => "id",
        Malformed::UnterminatedPath => "no NUL",
        Malformed::Magic => "magic",
        Malformed::Version(_) => "version",
        Malformed::Type(_) => "type",
        Malformed::Field => "field",
        other => panic!("no such reason: {other:?}"),
    }
}
