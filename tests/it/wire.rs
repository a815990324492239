//! The bytes of the protocol: the golden ones in fixtures/wire, and random valid messages. fuzz.rs
//! tests invalid ones.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mqfs::wire::{
    Arrived, Cookie, Entry, Extension, Failure, Kind, LEASE_TYPE, Lease, MAX_PATH, MAX_REQUEST,
    MAX_START, Malformed, Meta, Operation, OwnerId, Packed, Range, Reply, Request, Start, Trailer,
};
use nix::errno::Errno;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sysv_ipc::QueueId;

pub fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const COOKIE: Cookie = Cookie::new([
    0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
]);

fn hostname(extension: Option<Extension<'static>>) -> Request<'static> {
    Request { reply_queue: QueueId::new(98304), path: Path::new("/etc/hostname"), extension }
}

fn abc(operation: Operation<'static>) -> Request<'static> {
    let extension = Some(Extension { cookie: COOKIE, operation });
    Request { reply_queue: QueueId::new(7), path: Path::new("abc"), extension }
}

#[test]
#[cfg(target_endian = "little")]
fn requests_are_the_golden_bytes() {
    let whole =
        hostname(Some(Extension { cookie: COOKIE, operation: Operation::Fetch(Range::WHOLE) }));
    let range = abc(Operation::Fetch(Range { offset: 4096, length: Some(100) }));
    let arrived = Arrived { start: 1000, checksum: 0xCBF4_3926 };
    let resume = abc(Operation::Resume(Range { offset: 4096, length: None }, arrived));
    let stat = abc(Operation::Stat { follow: true });
    let list = abc(Operation::List(Start { path: b"name", arrived: None }));
    let tree = abc(Operation::Tree(Start::BEGINNING));
    let half = Start { path: b"dir/sub/name", arrived: Some((1000, 0xCBF4_3926)) };
    let rest = abc(Operation::Tree(half));
    let other = abc(Operation::Unknown { version: 9, operation: 3, flags: 5 });
    for (name, request) in [
        ("request-plain-short.bin", hostname(None)),
        ("request-whole.bin", whole),
        ("request-range.bin", range),
        ("request-resume.bin", resume),
        ("request-stat.bin", stat),
        ("request-list.bin", list),
        ("request-tree.bin", tree),
        ("request-tree-rest.bin", rest),
        ("request-version-9.bin", other),
    ] {
        assert_eq!(request.encode(), golden(name), "{name}");
        assert_eq!(Request::decode(&golden(name)), Ok(request), "{name}");
    }
    for padded in ["request-plain-260.bin", "request-plain-4100.bin"] {
        assert_eq!(Request::decode(&golden(padded)), Ok(hostname(None)), "{padded}");
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
    assert_eq!(lease.encode()[..], golden("lease.bin"));
    assert_eq!(Lease::decode(LEASE_TYPE, &golden("lease.bin")), Ok(lease));
    let data = Reply::DATA;
    assert_eq!(Lease::decode(data, &golden("lease.bin")), Err(Malformed::Type(data.get())));
}

#[test]
#[cfg(target_endian = "little")]
fn replies_are_the_golden_bytes() {
    let meta = Meta {
        kind: Kind::Regular,
        mode: 0o100_644,
        size: 5000,
        mtime: (1_700_000_000, 5),
        device: 0xFE01,
        inode: 42,
        offset: 1000,
        length: Some(4000),
    };
    let unknown = Meta {
        mode: 0o100_444,
        size: 0,
        mtime: (-1, 0),
        device: 23,
        inode: 99,
        offset: 0,
        length: None,
        ..meta
    };
    for (name, meta) in [("meta.bin", meta), ("meta-unknown-size.bin", unknown)] {
        assert_eq!(meta.encode()[..], golden(name), "{name}");
        assert_eq!(Reply::decode(Reply::META, &golden(name)), Ok(Reply::Meta(meta)), "{name}");
    }
    // 0xCBF43926 is the CRC-32 of "123456789" in every catalogue of checksums.
    let end = Trailer { bytes: 9, checksum: 0xCBF4_3926, changed: false };
    let changed = Trailer { bytes: 0, checksum: 0, changed: true };
    for (name, end) in [("end.bin", end), ("end-changed.bin", changed)] {
        assert_eq!(end.encode()[..], golden(name), "{name}");
        assert_eq!(Reply::decode(Reply::END, &golden(name)), Ok(Reply::End(Some(end))), "{name}");
    }
    let text = b"Permission denied".to_vec();
    let plain = Failure { text: text.clone(), errno: None };
    let extended = Failure { text, errno: Some(Errno::EACCES) };
    for (name, failure) in [("failure-plain.bin", plain), ("failure.bin", extended)] {
        assert_eq!(failure.encode(), golden(name), "{name}");
        let text = golden(name);
        assert_eq!(Reply::decode(Reply::FAILURE, &text), Ok(Reply::Failure(failure)), "{name}");
    }
}

#[test]
#[cfg(target_endian = "little")]
fn packed_messages_are_the_golden_bytes() {
    let meta = Meta {
        kind: Kind::Link,
        mode: 0o120_777,
        size: 6,
        mtime: (1_700_000_000, 5),
        device: 0xFE01,
        inode: 43,
        offset: 0,
        length: None,
    };
    let entry =
        Entry { meta, uid: 1000, gid: 100, links: 1, special: 0, name: b"link", target: b"../abc" };
    let end = Trailer { bytes: 9, checksum: 0xCBF4_3926, changed: false };
    let mut packed = Vec::new();
    entry.append(&mut packed);
    Packed::append(&mut packed, Reply::DATA, b"123456789");
    Packed::append(&mut packed, Reply::END, &end.encode());
    assert_eq!(packed, golden("packed.bin"));

    let opening = Packed { length: 114, mtype: Reply::META };
    assert_eq!(Packed::decode(&packed), Ok(opening));
    assert_eq!(Entry::decode(&packed[8..8 + 114]), Ok(entry.clone()));
    assert_eq!(Entry::decode(&packed[8..8 + 113]), Err(Malformed::TooShort));
    for (length, mtype, expected) in [
        (0_u32, 0_u16, Malformed::Type(0)),
        (0, 5, Malformed::Type(5)),
        (16_385, 4, Malformed::TooLong),
        (u32::MAX, 1, Malformed::TooLong),
    ] {
        let bytes = [&length.to_ne_bytes()[..], &mtype.to_ne_bytes(), &[0; 2]].concat();
        assert_eq!(Packed::decode(&bytes), Err(expected));
    }
}

#[test]
fn a_starting_point_cannot_lead_out_of_the_tree() {
    let with = |path: &'static [u8]| {
        let mut bytes = golden("request-tree.bin");
        let length = bytes.len() - 4;
        bytes[length..length + 2].copy_from_slice(&(path.len() as u16).to_ne_bytes());
        bytes.extend_from_slice(path);
        Request::decode(&bytes).map(|_| ())
    };
    for bad in
        [&b"/"[..], b"/a", b"a//b", b"..", b"../a", b"a/../b", b"a/./b", b"a/..", b"a\0b", b"."]
    {
        assert_eq!(with(bad), Err(Malformed::Field), "{}", bad.escape_ascii());
    }
    for good in [&b""[..], b"a", b"a/", b"a/b", b"..a/b..", b"\n/\xff"] {
        assert_eq!(with(good), Ok(()), "{}", good.escape_ascii());
    }
    assert_eq!(with(&[b'a'; MAX_START + 1]), Err(Malformed::Field));
    let list = Start { path: b"a/b", arrived: None };
    for bad in [list, Start { path: b"a", arrived: Some((0, 0)) }] {
        let bytes = abc(Operation::List(bad)).encode();
        assert_eq!(Request::decode(&bytes), Err(Malformed::Field), "a listing has one level");
    }
}

#[test]
fn the_longest_request_fits() {
    let start = Start { path: &[b'a'; MAX_START], arrived: Some((1, 2)) };
    let path = "p".repeat(MAX_PATH);
    let extension = Some(Extension { cookie: COOKIE, operation: Operation::Tree(start) });
    let request = Request { reply_queue: QueueId::new(7), path: Path::new(&path), extension };
    let bytes = request.encode();
    assert!(bytes.len() <= MAX_REQUEST, "{}", bytes.len());
    assert_eq!(Request::decode(&bytes), Ok(request));
}

#[test]
fn an_end_of_another_program_has_no_trailer() {
    for text in [&b""[..], b"\0", b"x", b"mqfs", &[0xff; 24]] {
        assert_eq!(Reply::decode(Reply::END, text), Ok(Reply::End(None)));
    }
}

#[test]
fn a_malformed_request_is_refused_with_the_reason() {
    let unterminated = [&7_i32.to_ne_bytes()[..], &[b'a'; MAX_PATH + 1], b"\0"].concat();
    let cut = &golden("request-version-9.bin")[..24];
    for (bytes, expected) in [
        (&b""[..], Malformed::TooShort),
        (b"abc", Malformed::TooShort),
        (&7_i32.to_ne_bytes(), Malformed::UnterminatedPath),
        (&[0xff; 300], Malformed::QueueId),
        (&unterminated, Malformed::UnterminatedPath),
        (cut, Malformed::TooShort),
        (&[0; MAX_REQUEST + 1], Malformed::TooLong),
    ] {
        assert_eq!(Request::decode(bytes), Err(expected));
    }
}

fn paths() -> impl Strategy<Value = Vec<u8>> {
    vec(1..=255_u8, 0..=MAX_PATH)
}

/// Starting points in trees.
fn starts() -> impl Strategy<Value = Start<'static>> {
    const PATHS: [&[u8]; 7] =
        [b"", b"a", b"a/", b"dir/sub/name", b"\n\x1b/\xff", b"...", &[b'n'; MAX_START]];
    (select(&PATHS[..]), any::<Option<(u64, u32)>>()).prop_map(|(path, arrived)| Start {
        path,
        arrived: arrived.filter(|&(bytes, _)| bytes != u64::MAX),
    })
}

pub fn extensions() -> impl Strategy<Value = Option<Extension<'static>>> {
    let ranges = (any::<u64>(), 0..u64::MAX)
        .prop_map(|(offset, length)| Range { offset, length: (length % 3 != 0).then_some(length) });
    let fetch = ranges.clone().prop_map(Operation::Fetch);
    let resume = (ranges, any::<u64>(), any::<u32>()).prop_map(|(range, start, checksum)| {
        Operation::Resume(range, Arrived { start: start.min(range.offset), checksum })
    });
    let unknown = (2..=u16::MAX, any::<u16>(), any::<u32>())
        .prop_map(|(version, operation, flags)| Operation::Unknown { version, operation, flags });
    let stat = any::<bool>().prop_map(|follow| Operation::Stat { follow });
    let list = select(vec![&b""[..], b"a", b"name\n"])
        .prop_map(|path| Operation::List(Start { path, arrived: None }));
    let tree = starts().prop_map(Operation::Tree);
    proptest::option::of(
        (any::<[u8; 16]>(), prop_oneof![fetch, resume, stat, list, tree, unknown])
            .prop_map(|(cookie, operation)| Extension { cookie: Cookie::new(cookie), operation }),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_request_survives_encoding_and_decoding(
        id in 0..=i32::MAX,
        path in paths(),
        extension in extensions(),
    ) {
        let path = Path::new(OsStr::from_bytes(&path));
        let request = Request { reply_queue: QueueId::new(id), path, extension };
        let bytes = request.encode();
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
    }

    #[test]
    fn bytes_behind_a_plain_path_are_ignored(path in paths(), padding in vec(any::<u8>(), 0..600)) {
        prop_assume!(!padding.windows(8).any(|window| window == b"mqfs-req"));
        let path = Path::new(OsStr::from_bytes(&path));
        let request = Request { reply_queue: QueueId::new(0), path, extension: None };
        let mut bytes = request.encode();
        bytes.extend_from_slice(&padding);
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
    }
}
