//! The bytes of the protocol: those in fixtures/wire. fuzz.rs tests random ones.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mqfs::wire::{
    Cookie, Entry, Extension, Extent, Failure, FrameHeader, FrameType, Kind, LEASE_TYPE, Lease,
    MAX_PATH, Malformed, Operation, OwnerId, Question, Range, Request, Stat, Trailer, WindowPart,
    decode_farewell, encode_farewell,
};
use nix::errno::Errno;
use sysv_ipc::{QueueId, SharedMemoryId};

use crate::support::extension;

pub fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire")
}

fn golden(name: &str) -> Vec<u8> {
    let path = golden_folder().join(name).with_extension("bin");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const COOKIE: Cookie = Cookie::new([
    0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
]);

/// Operations, each with its name in fixtures/wire.
const OPERATIONS: [(&str, Operation); 7] = [
    ("fetch", Operation::Fetch(Range::WHOLE)),
    ("range", Operation::Fetch(Range { offset: 4096, length: Some(100) })),
    ("stat", Operation::Stat { follow: true }),
    ("stat-link", Operation::Stat { follow: false }),
    ("list", Operation::List),
    ("enter", Operation::Enter),
    ("unknown", Operation::Unknown { operation: 9, flags: 0x8000 }),
];

/// A plain request, or an extended one with the session flag or without it.
fn request(path: &[u8], operation: Operation, session: Option<bool>) -> Request<'_> {
    let question = Question::new(Path::new(OsStr::from_bytes(path)), operation);
    let extension = session.map(|session| Extension { session, ..extension(COOKIE) });
    Request { reply_queue: QueueId::new(7), question, extension }
}

#[test]
#[cfg(target_endian = "little")]
fn requests_and_questions_are_the_golden_bytes() {
    let mut requests = vec![
        ("version-9".to_owned(), request(b"abc", Operation::List, Some(false))),
        ("below".to_owned(), request(b"abc", Operation::Stat { follow: true }, Some(false))),
        ("plain-short".to_owned(), request(b"/etc/hostname", OPERATIONS[0].1, None)),
        ("windows".to_owned(), request(b"abc", OPERATIONS[0].1, Some(true))),
    ];
    let mut with_extents = request(b"abc", OPERATIONS[0].1, Some(false));
    with_extents.extension.as_mut().unwrap().extents = true;
    requests.push(("extents".to_owned(), with_extents));
    requests[3].1.extension.as_mut().unwrap().windows = true;
    requests[0].1.extension.as_mut().unwrap().unknown_version = Some(9);
    requests[1].1.question.below = true;
    for (name, operation) in OPERATIONS {
        requests.push((name.to_owned(), request(b"abc", operation, Some(false))));
        requests.push((format!("{name}-session"), request(b"abc", operation, Some(true))));
        let operation_below = match operation {
            Operation::Unknown { operation, .. } => Operation::Unknown { operation, flags: 0x8002 },
            known => known,
        };
        let below = request(b"a/\xff", operation_below, None).question;
        let below = Question { below: true, number: 0x0102, ..below };
        let question = request(b"abc", operation, None).question;
        for (name, question) in [(name.to_owned(), question), (format!("{name}-below"), below)] {
            let mut bytes = Vec::new();
            question.append(&mut bytes);
            assert_eq!(bytes, golden(&format!("question-{name}")), "{name}");
            assert_eq!(bytes.len(), question.encoded_len());
            bytes.extend(b"another");
            assert_eq!(Question::decode(&bytes), Ok((question, &b"another"[..])), "{name}");
        }
    }
    for (name, request) in requests {
        let bytes = golden(&format!("request-{name}"));
        assert_eq!(request.encode(), bytes, "{name}");
        assert_eq!(Request::decode(&bytes), Ok(request), "{name}");
    }
    for padded in ["request-plain-260", "request-plain-4100"] {
        let plain = request(b"/etc/hostname", OPERATIONS[0].1, None);
        assert_eq!(Request::decode(&golden(padded)), Ok(plain), "{padded}");
    }
}

#[test]
#[cfg(target_endian = "little")]
fn leases_are_the_golden_bytes() {
    let owner = OwnerId {
        pid: 4711,
        start_time: 123_456_789,
        pid_namespace: 0xEFFF_FFFC,
        time_namespace: 0xEFFF_FFFA,
    };
    let lease = Lease { owner, cookie: COOKIE, request_queue: QueueId::new(1000) };
    assert_eq!(lease.encode()[..], golden("lease"));
    assert!(format!("{lease:?}").contains("cookie: Cookie(..)"), "a log must not show it");
    assert_eq!(Lease::decode(LEASE_TYPE, &golden("lease")), Ok(lease));
    let data = FrameType::Data.mtype();
    assert_eq!(Lease::decode(data, &golden("lease")), Err(Malformed::Type(data.get())));
}

const STAT: Stat = Stat {
    kind: Kind::Regular,
    mode: 0o100_644,
    size: 5000,
    mtime: (1_700_000_000, 5),
    device: 0xFE01,
    inode: 42,
    uid: 1000,
    gid: 100,
    links: 1,
    special: 0,
};

const FILE: Entry<'_> =
    Entry { stat: STAT, errno: None, offset: 1000, length: Some(4000), name: b"", target: b"" };

const LINK: Entry<'_> = Entry {
    stat: Stat { kind: Kind::Link, mode: 0o120_777, size: 6, inode: 43, ..STAT },
    errno: None,
    offset: 0,
    length: None,
    name: b"link",
    target: b"../abc",
};

/// The end of a file with "123456789" in it, whose CRC-32 every catalogue of checksums has.
const END: Trailer = Trailer { bytes: 9, checksum: 0xCBF4_3926, changed: false };

const WINDOW: WindowPart =
    WindowPart { segment: SharedMemoryId::new(32_769), offset: 0x26_000, length: 155_648 };

fn denied() -> Failure {
    Failure { text: b"Permission denied".to_vec(), errno: Some(Errno::EACCES), cookie: None }
}

#[test]
#[cfg(target_endian = "little")]
fn entries_are_the_golden_bytes() {
    let proc = Stat { mode: 0o100_444, size: 0, mtime: (-1, 0), device: 23, inode: 99, ..STAT };
    let device = Stat { kind: Kind::CharacterDevice, mode: 0o020_666, size: 0, ..STAT };
    let device = Stat { device: 5, inode: 4, uid: 0, gid: 0, special: 0x103, ..device };
    let unknown = Entry { errno: Some(Errno::EACCES), name: b"a\nb\xff", ..Entry::default() };
    for (name, entry) in [
        ("meta-file", FILE),
        ("meta-proc", Entry { stat: proc, offset: 0, length: None, ..FILE }),
        ("entry-link", LINK),
        ("entry-device", Entry { stat: device, name: b"null", target: b"", ..LINK }),
        ("entry-unknown", unknown),
    ] {
        let mut bytes = Vec::new();
        entry.append(&mut bytes);
        assert_eq!(bytes, golden(name), "{name}");
        assert_eq!(bytes.len(), entry.encoded_len());
        assert_eq!(Entry::decode(&bytes), Ok(entry), "{name}");
        assert_eq!(Entry::decode(&bytes[..bytes.len() - 1]), Err(Malformed::TooShort));
    }
}

#[test]
#[cfg(target_endian = "little")]
fn ends_and_failures_are_the_golden_bytes() {
    let changed = Trailer { bytes: 0, checksum: 0, changed: true };
    for (name, end) in [("end", END), ("end-changed", changed)] {
        assert_eq!(end.encode()[..], golden(name), "{name}");
        assert_eq!(Trailer::decode(&golden(name)), Ok(Some(end)), "{name}");
    }
    let plain = Failure { errno: None, ..denied() };
    let request = Failure { cookie: Some(COOKIE), ..denied() };
    for (name, failure) in
        [("failure-plain", plain), ("failure", denied()), ("failure-request", request)]
    {
        assert_eq!(failure.encode(), golden(name), "{name}");
        assert_eq!(Failure::decode(&golden(name)), failure, "{name}");
    }
}

#[test]
#[cfg(target_endian = "little")]
fn frames_are_the_golden_bytes() {
    let meta = |entry: Entry<'_>| {
        let mut bytes = Vec::new();
        entry.append(&mut bytes);
        bytes
    };
    let frames = [
        (FrameType::Meta, 0, meta(FILE)),
        (FrameType::Data, 0, b"1234".to_vec()),
        (FrameType::Data, 0, b"56789".to_vec()),
        (FrameType::End, 0, END.encode().to_vec()),
        (FrameType::Failure, 1, denied().encode()),
        (FrameType::Meta, 2, meta(LINK)),
        (FrameType::End, 2, Trailer { bytes: 0, checksum: 0, changed: false }.encode().to_vec()),
        (FrameType::Meta, 3, meta(FILE)),
        (FrameType::Window, 3, [&WINDOW.encode()[..], &[0; 3000]].concat()),
        (FrameType::End, 3, Trailer { bytes: 155_648, ..END }.encode().to_vec()),
        (FrameType::Farewell, 0, encode_farewell(4).to_vec()),
    ];
    assert_eq!(WindowPart::decode(&golden("window")), Ok(WINDOW));
    let extents = [Extent { hole: 1 << 40, data: 5000 }, Extent { hole: 1 << 62, data: 0 }];
    assert_eq!(Extent::encode_all(&extents), golden("extents"));
    for (before, expected) in [(0, Ok(extents.to_vec())), (1 << 62, Err(Malformed::Field))] {
        assert_eq!(Extent::decode_all(&golden("extents"), before), expected);
    }
    let golden = golden("frames");
    let mut rest = &golden[..];
    for (frame_type, question, text) in &frames {
        let (frame_type, question) = (*frame_type, *question);
        let header = FrameHeader { frame_type, length: text.len() as u32, question };
        let frame = [&header.encode()[..], text].concat();
        assert_eq!(FrameHeader::decode(rest), Ok(header));
        assert_eq!(rest[..frame.len()], frame, "{frame_type:?}");
        rest = &rest[frame.len()..];
    }
    assert!(rest.is_empty());
    assert_eq!(decode_farewell(&frames.last().unwrap().2), Ok(4));
    assert_eq!(decode_farewell(&[0; 7]), Err(Malformed::TooShort));
}

#[test]
fn the_longest_request_and_the_longest_question_have_the_documented_sizes() {
    let path = [b'p'; MAX_PATH];
    let request = request(&path, Operation::List, Some(true));
    assert_eq!(request.encode().len(), 4160);
    assert_eq!(Request::decode(&request.encode()), Ok(request));
    let mut question = Vec::new();
    request.question.append(&mut question);
    assert_eq!(question.len(), 4119);
    assert_eq!(Question::decode(&question), Ok((request.question, &[][..])));
    assert_eq!(Question::decode(&question[..4118]), Err(Malformed::TooShort));
    question[6..8].copy_from_slice(&4096_u16.to_ne_bytes());
    assert_eq!(Question::decode(&question), Err(Malformed::TooLong));
}
