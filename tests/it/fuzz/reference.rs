//! A second implementation of the decoders, from docs/protocol.md alone, with offsets and plain
//! numbers.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mqfs::wire::{
    Arrived, Cookie, Entry, Extension, Failure, Kind, Lease, Malformed, Meta, Operation, OwnerId,
    Range, Reply, Request, Start, Trailer,
};
use nix::errno::Errno;
use sysv_ipc::QueueId;

/// The bytes of a field, if the message is long enough.
fn field<const N: usize>(text: &[u8], offset: usize) -> Result<[u8; N], Malformed> {
    let bytes = text.get(offset..).and_then(|bytes| bytes.first_chunk());
    bytes.copied().ok_or(Malformed::TooShort)
}

fn uint16(text: &[u8], offset: usize) -> Result<u16, Malformed> {
    field(text, offset).map(u16::from_ne_bytes)
}

fn uint32(text: &[u8], offset: usize) -> Result<u32, Malformed> {
    field(text, offset).map(u32::from_ne_bytes)
}

fn int32(text: &[u8], offset: usize) -> Result<i32, Malformed> {
    field(text, offset).map(i32::from_ne_bytes)
}

fn uint64(text: &[u8], offset: usize) -> Result<u64, Malformed> {
    field(text, offset).map(u64::from_ne_bytes)
}

/// A number of bytes; the greatest number means "unknown".
fn length(text: &[u8], offset: usize) -> Result<Option<u64>, Malformed> {
    uint64(text, offset).map(|length| if length == u64::MAX { None } else { Some(length) })
}

/// Magic and version, at the start of everything but requests.
fn opening(text: &[u8], magic: &[u8; 8]) -> Result<(), Malformed> {
    if &field::<8>(text, 0)? != magic {
        return Err(Malformed::Magic);
    }
    match uint16(text, 8)? {
        1 => Ok(()),
        other => Err(Malformed::Version(other)),
    }
}

pub fn request(text: &[u8]) -> Result<Request<'_>, Malformed> {
    if text.len() > 8192 {
        return Err(Malformed::TooLong);
    }
    let id = int32(text, 0)?;
    if id < 0 {
        return Err(Malformed::QueueId);
    }
    let path_and_nul = &text[4..text.len().min(4 + 4096)];
    let path = CStr::from_bytes_until_nul(path_and_nul).map_err(|_| Malformed::UnterminatedPath)?;
    let behind = 4 + path.count_bytes() + 1;
    let extension = text.get(behind + (8 - behind % 8) % 8..).unwrap_or_default();
    Ok(Request {
        reply_queue: QueueId::new(id),
        path: Path::new(OsStr::from_bytes(path.to_bytes())),
        extension: match field(extension, 0) {
            Ok([b'm', b'q', b'f', b's', b'-', b'r', b'e', b'q']) => {
                Some(request_extension(extension)?)
            }
            _ => None,
        },
    })
}

fn request_extension(text: &[u8]) -> Result<Extension<'_>, Malformed> {
    let cookie = Cookie::new(field(text, 16)?); // so everything before it is there
    let operation = match (uint16(text, 8)?, uint16(text, 10)?, uint32(text, 12)?) {
        (1, 1, 0) => {
            Operation::Fetch(Range { offset: uint64(text, 32)?, length: length(text, 40)? })
        }
        (1, 2, 0) => {
            let range = Range { offset: uint64(text, 32)?, length: length(text, 40)? };
            let arrived = Arrived { start: uint64(text, 48)?, checksum: uint32(text, 56)? };
            field::<4>(text, 60)?;
            if arrived.start > range.offset {
                return Err(Malformed::Field);
            }
            Operation::Resume(range, arrived)
        }
        (1, 3, 0) => {
            let follow = uint32(text, 32)?;
            field::<4>(text, 36)?;
            match follow {
                0 => Operation::Stat { follow: false },
                1 => Operation::Stat { follow: true },
                _ => return Err(Malformed::Field),
            }
        }
        (1, 4, 0) => {
            let start = start(text)?;
            if start.arrived.is_some() || start.path.contains(&b'/') {
                return Err(Malformed::Field);
            }
            Operation::List(start)
        }
        (1, 5, 0) => Operation::Tree(start(text)?),
        (version, operation, flags) => Operation::Unknown { version, operation, flags },
    };
    Ok(Extension { cookie, operation })
}

fn start(text: &[u8]) -> Result<Start<'_>, Malformed> {
    let (bytes, checksum) = (length(text, 32)?, uint32(text, 40)?);
    let size = usize::from(uint16(text, 44)?);
    field::<2>(text, 46)?;
    let path = text.get(48..48 + size).ok_or(Malformed::TooShort)?;
    let mut names: Vec<_> = path.split(|&byte| byte == b'/').collect();
    if names.last() == Some(&&b""[..]) {
        names.pop(); // at the beginning of a directory, or at the very beginning
    }
    let is_bad = |name: &&[u8]| [&b""[..], b".", b".."].contains(name) || name.contains(&0);
    if size > 4032 || names.iter().any(is_bad) {
        return Err(Malformed::Field);
    }
    Ok(Start { path, arrived: bytes.map(|bytes| (bytes, checksum)) })
}

pub fn packed(text: &[u8]) -> Result<(u32, u16), Malformed> {
    let (length, mtype) = (uint32(text, 0)?, uint16(text, 4)?);
    field::<2>(text, 6)?;
    match mtype {
        2 => Ok((length, mtype)),
        1..=4 if length <= 16_384 => Ok((length, mtype)),
        1..=4 => Err(Malformed::TooLong),
        _ => Err(Malformed::Type(mtype.into())),
    }
}

pub fn entry(text: &[u8]) -> Result<Entry<'_>, Malformed> {
    let meta = meta(text)?;
    let (name, target) = (uint16(text, 96)?, uint16(text, 98)?);
    field::<4>(text, 100)?;
    let end = 104 + usize::from(name);
    Ok(Entry {
        meta,
        uid: uint32(text, 72)?,
        gid: uint32(text, 76)?,
        links: uint64(text, 80)?,
        special: uint64(text, 88)?,
        name: text.get(104..end).ok_or(Malformed::TooShort)?,
        target: text.get(end..end + usize::from(target)).ok_or(Malformed::TooShort)?,
    })
}

pub fn lease(mtype: i64, text: &[u8]) -> Result<Lease, Malformed> {
    if mtype != 0x6d71_6673 {
        return Err(Malformed::Type(mtype));
    }
    opening(text, b"mqfs-own")?;
    let cookie = Cookie::new(field(text, 40)?);
    let owner = OwnerId {
        pid: int32(text, 12)?,
        start_time: uint64(text, 16)?,
        pid_namespace: uint64(text, 24)?,
        time_namespace: uint64(text, 32)?,
    };
    let request_queue = QueueId::new(int32(text, 56)?);
    field::<4>(text, 60)?;
    Ok(Lease { owner, cookie, request_queue })
}

pub fn reply(mtype: i64, text: &[u8]) -> Result<Reply<'_>, Malformed> {
    match mtype {
        1 => Ok(Reply::Failure(failure(text))),
        2 => Ok(Reply::Data(text)),
        3 if text.starts_with(b"mqfs-end") => Ok(Reply::End(Some(trailer(text)?))),
        3 => Ok(Reply::End(None)),
        4 => Ok(Reply::Meta(meta(text)?)),
        other => Err(Malformed::Type(other)),
    }
}

fn failure(text: &[u8]) -> Failure {
    let reason = text.split(|&byte| byte == 0).next().unwrap();
    let behind = (reason.len() + 1).div_ceil(8) * 8;
    let extension = text.get(behind..).unwrap_or_default();
    let errno = opening(extension, b"mqfs-err").and_then(|()| int32(extension, 12)).ok();
    Failure {
        text: reason.to_vec(),
        errno: errno.map(Errno::from_raw).filter(|&errno| errno != Errno::UnknownErrno),
    }
}

fn trailer(text: &[u8]) -> Result<Trailer, Malformed> {
    opening(text, b"mqfs-end")?;
    Ok(Trailer {
        bytes: uint64(text, 16)?,
        checksum: uint32(text, 12)?,
        changed: uint16(text, 10)? % 2 == 1,
    })
}

fn meta(text: &[u8]) -> Result<Meta, Malformed> {
    opening(text, b"mqfs-met")?;
    let kind = match uint16(text, 10)? {
        0 => Kind::Unknown,
        1 => Kind::Regular,
        2 => Kind::Directory,
        3 => Kind::Link,
        4 => Kind::Fifo,
        5 => Kind::Socket,
        6 => Kind::CharacterDevice,
        7 => Kind::BlockDevice,
        _ => return Err(Malformed::Field),
    };
    Ok(Meta {
        kind,
        mode: uint32(text, 12)?,
        size: uint64(text, 16)?,
        mtime: (field(text, 24).map(i64::from_ne_bytes)?, uint32(text, 32)?),
        device: uint64(text, 40)?,
        inode: uint64(text, 48)?,
        offset: uint64(text, 56)?,
        length: length(text, 64)?,
    })
}
