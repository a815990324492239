//! The decoders against very many inputs: golden messages, those with a few changes, all prefixes
//! of these, and random bytes. Whatever decodes is encoded again, which must give the same.
//!
//! Every run tries other inputs, and a failure prints how to repeat it. `cargo test` stops soon.
//! This runs a thousand times longer:
//!
//! ```sh
//! MQFS_FUZZ_TIMES=1000 cargo test --release fuzz
//! ```

mod messages;

use std::os::unix::ffi::OsStrExt;

use mqfs::wire::{
    Entry, Extent, Failure, FrameHeader, FrameType, LEASE_TYPE, Lease, MAX_PATH, Malformed,
    Operation, Question, Request, Trailer, WindowPart, decode_farewell,
};
use nix::errno::Errno;
use proptest::prelude::*;
use sysv_ipc::MessageType;

use messages::{Bytes, beginnings, changed};
use mqfs_kit::fuzz::fuzz;

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
            let decoded = Trailer::decode(text);
            if let Ok(Some(trailer)) = decoded {
                prop_assert_eq!(Trailer::decode(&trailer.encode()), decoded);
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
