//! The decoders against very many inputs: valid messages, messages with a few changes, all prefixes
//! of these, and random bytes.
//!
//! Every run tries other inputs, and a failure prints how to repeat it. `cargo test` stops soon.
//! This runs a thousand times longer, also for admission (tests/admission/mod.rs):
//!
//! ```sh
//! MQFS_FUZZ_TIMES=1000 cargo test --release fuzz -- --nocapture
//! ```

mod messages;
mod reference;

use std::fmt::Debug;
use std::os::unix::ffi::OsStrExt;

use mqfs::wire::{
    Cookie, Entry, Extension, LEASE_TYPE, Lease, MAX_PATH, Malformed, Operation, Packed, Reply,
    Request,
};
use proptest::prelude::*;
use sysv_ipc::MessageType;

use messages::{Bytes, beginnings, changed};
use mqfs_kit::fuzz::{Tally, Target};

/// The kind of result of an input, or why it is wrong.
type Checked = Result<&'static str, TestCaseError>;

#[test]
fn any_bytes_decode_to_the_request_of_the_reference_or_fail() {
    let outcomes = &[
        "plain",
        "fetch",
        "resume",
        "stat",
        "list",
        "tree",
        "unknown",
        "too short",
        "too long",
        "id",
        "no NUL",
        "field",
    ];
    let target = Target { name: "any_bytes_are_the_request", inputs: 500_000, outcomes };
    target.run(&changed(messages::requests()), |Bytes(text), tally| {
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
    prop_assert_eq!(decoded, reference::request(text));
    let request = match decoded {
        Ok(request) => request,
        Err(malformed) => return Ok(kind(malformed)),
    };
    let path = request.path.as_os_str().as_bytes();
    prop_assert!(request.reply_queue.get() >= 0 && path.len() <= MAX_PATH && !path.contains(&0));
    let encoded = request.encode();
    prop_assert!(encoded.len() <= 8192, "longer than any that version 1 writes");
    prop_assert_eq!(Request::decode(&encoded), Ok(request));
    let Some(extension) = request.extension else { return Ok("plain") };
    let frozen = (4 + path.len() + 1).next_multiple_of(8);
    prop_assert_eq!(&text[frozen + 16..frozen + 32], extension.cookie.as_bytes());
    Ok(match extension.operation {
        Operation::Fetch(_) => "fetch",
        Operation::Resume(..) => "resume",
        Operation::Stat { .. } => "stat",
        Operation::List(_) => "list",
        Operation::Tree(_) => "tree",
        _ => "unknown",
    })
}

#[test]
fn any_message_decodes_to_the_reply_of_the_reference_or_fails() {
    let outcomes = &[
        "failure",
        "failure with errno",
        "data",
        "end",
        "trailer",
        "meta",
        "too short",
        "magic",
        "version",
        "type",
        "field",
    ];
    let target = Target { name: "any_message_is_the_reply", inputs: 400_000, outcomes };
    target.run(&messages::replies(), |(mtype, Bytes(text)), tally| {
        let mtype = MessageType::new(*mtype).unwrap();
        check_beginnings(text, tally, |text| check_reply(mtype, text))
    });
}

fn check_reply(mtype: MessageType, text: &[u8]) -> Checked {
    let decoded = Reply::decode(mtype, text);
    prop_assert_eq!(&decoded, &reference::reply(mtype.get(), text));
    let (seen, encoded) = match &decoded {
        Err(malformed) => return Ok(kind(*malformed)),
        Ok(Reply::Failure(failure)) => {
            prop_assert!(!failure.text.contains(&0));
            let errno = failure.errno.map(|errno| errno as i32);
            prop_assert!(errno.is_none_or(|errno| (1..4096).contains(&errno)), "{:?}", errno);
            let seen = if errno.is_some() { "failure with errno" } else { "failure" };
            (seen, failure.encode())
        }
        Ok(Reply::Data(_)) => return Ok("data"),
        Ok(Reply::End(None)) => return Ok("end"),
        Ok(Reply::End(Some(trailer))) => ("trailer", trailer.encode().to_vec()),
        Ok(Reply::Meta(meta)) => ("meta", meta.encode().to_vec()),
        Ok(other) => return Err(TestCaseError::fail(format!("no such reply: {other:?}"))),
    };
    prop_assert_eq!(&Reply::decode(mtype, &encoded), &decoded);
    Ok(seen)
}

#[test]
fn any_bytes_decode_to_the_packed_entry_of_the_reference_or_fail() {
    let outcomes = &["entry", "too short", "too long", "magic", "version", "type", "field"];
    let target = Target { name: "any_bytes_are_the_packed_entry", inputs: 200_000, outcomes };
    target.run(&changed(messages::entries()), |Bytes(text), tally| {
        check_beginnings(text, tally, check_entry)
    });
}

fn check_entry(text: &[u8]) -> Checked {
    let opening = Packed::decode(text);
    let numbers = opening.map(|packed| (packed.length, packed.mtype.get() as u16));
    prop_assert_eq!(numbers, reference::packed(text));
    if let Err(malformed) = opening {
        return Ok(kind(malformed));
    }
    let text = &text[Packed::SIZE..];
    let decoded = Entry::decode(text);
    prop_assert_eq!(&decoded, &reference::entry(text));
    let entry = match decoded {
        Ok(entry) => entry,
        Err(malformed) => return Ok(kind(malformed)),
    };
    let mut encoded = Vec::new();
    entry.append(&mut encoded);
    prop_assert_eq!(&Entry::decode(&encoded[Packed::SIZE..]), &Ok(entry));
    Ok("entry")
}

#[test]
fn any_message_decodes_to_the_lease_of_the_reference_or_fails() {
    let outcomes = &["lease", "too short", "magic", "version", "type"];
    let target = Target { name: "any_message_is_the_lease", inputs: 200_000, outcomes };
    target.run(&messages::leases(), |(mtype, Bytes(text)), tally| {
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
    prop_assert_eq!(decoded, reference::lease(mtype.get(), text));
    let lease = match decoded {
        Ok(lease) => lease,
        Err(malformed) => return Ok(kind(malformed)),
    };
    prop_assert_eq!(mtype, LEASE_TYPE);
    let encoded = lease.encode();
    prop_assert_eq!(&encoded[..10], &text[..10]);
    prop_assert_eq!(&encoded[10..12], &[0, 0], "reserved");
    prop_assert_eq!(&encoded[12..60], &text[12..60]);
    prop_assert_eq!(&encoded[60..], &[0; 4], "reserved");
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
