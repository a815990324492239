//! A second implementation of the decoders, from docs/protocol.md alone, with offsets and plain
//! numbers.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mqfs::wire::{
    Cookie, Entry, Extension, Failure, Kind, Lease, Malformed, Operation, OwnerId, Question, Range,
    Request, Stat, Trailer,
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
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let whole = Operation::Fetch(Range { offset: 0, length: None });
    let is_plain = field(extension, 0) != Ok(*b"mqfs-req");
    Ok(Request {
        reply_queue: QueueId::new(id),
        question: match is_plain {
            true => Question { path, operation: whole, number: 0, below: false },
            false => asked(extension.get(32..).unwrap_or_default(), path)?,
        },
        extension: if is_plain { None } else { Some(request_extension(extension)?) },
    })
}

fn request_extension(text: &[u8]) -> Result<Extension, Malformed> {
    let (version, flags) = (uint16(text, 8)?, uint16(text, 10)?);
    Ok(Extension {
        cookie: Cookie::new(field(text, 16)?),
        session: flags % 2 == 1,
        unknown_version: if version == 1 && flags < 2 { None } else { Some(version) },
    })
}

/// The first question of a message, and the bytes of the others.
pub fn question(text: &[u8]) -> Result<(Question<'_>, &[u8]), Malformed> {
    field::<24>(text, 0)?;
    let end = match uint16(text, 6)?.into() {
        length @ 0..=4095_usize => 24 + length,
        _ => return Err(Malformed::TooLong),
    };
    let path = text.get(24..end).ok_or(Malformed::TooShort)?;
    if path.contains(&0) {
        return Err(Malformed::Field);
    }
    Ok((asked(text, Path::new(OsStr::from_bytes(path)))?, &text[end..]))
}

fn asked<'a>(text: &[u8], path: &'a Path) -> Result<Question<'a>, Malformed> {
    let range = Range { offset: uint64(text, 8)?, length: length(text, 16)? };
    let (operation, flags) = (uint16(text, 0)?, uint16(text, 2)?);
    let operation = match (operation, flags) {
        (1, 0 | 2) => Operation::Fetch(range),
        (2, 0 | 2) => Operation::Stat { follow: true },
        (2, 1 | 3) => Operation::Stat { follow: false },
        (3, 0 | 2) => Operation::List,
        (4, 0 | 2) => Operation::Enter,
        _ => Operation::Unknown { operation, flags },
    };
    Ok(Question { path, operation, number: uint16(text, 4)?, below: flags / 2 % 2 == 1 })
}

/// The length and the type of a frame.
pub fn frame(text: &[u8]) -> Result<(u32, u16), Malformed> {
    let (length, frame_type) = (uint32(text, 0)?, uint16(text, 4)?);
    field::<2>(text, 6)?;
    match frame_type {
        2 => Ok((length, frame_type)),
        1..=5 if length <= 16_384 => Ok((length, frame_type)),
        1..=5 => Err(Malformed::TooLong),
        _ => Err(Malformed::Type(frame_type.into())),
    }
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

pub fn failure(text: &[u8]) -> Failure {
    let reason = text.split(|&byte| byte == 0).next().unwrap();
    let behind = (reason.len() + 1).div_ceil(8) * 8;
    let extension = text.get(behind..).unwrap_or_default();
    let errno = opening(extension, b"mqfs-err").and_then(|()| int32(extension, 12)).ok();
    Failure {
        text: reason.to_vec(),
        errno: errno.map(Errno::from_raw).filter(|&errno| errno != Errno::UnknownErrno),
    }
}

pub fn trailer(text: &[u8]) -> Result<Option<Trailer>, Malformed> {
    if !text.starts_with(b"mqfs-end") {
        return Ok(None);
    }
    opening(text, b"mqfs-end")?;
    Ok(Some(Trailer {
        bytes: uint64(text, 16)?,
        checksum: uint32(text, 12)?,
        changed: uint16(text, 10)? % 2 == 1,
    }))
}

pub fn entry(text: &[u8]) -> Result<Entry<'_>, Malformed> {
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
    let end = 104 + usize::from(uint16(text, 96)?);
    let errno = int32(text, 36)?;
    let stat = Stat {
        kind,
        mode: uint32(text, 12)?,
        size: uint64(text, 16)?,
        mtime: (field(text, 24).map(i64::from_ne_bytes)?, uint32(text, 32)?),
        device: uint64(text, 40)?,
        inode: uint64(text, 48)?,
        uid: uint32(text, 72)?,
        gid: uint32(text, 76)?,
        links: uint64(text, 80)?,
        special: uint64(text, 88)?,
    };
    Ok(Entry {
        stat,
        errno: if errno == 0 { None } else { Some(Errno::from_raw(errno)) },
        offset: uint64(text, 56)?,
        length: length(text, 64)?,
        name: text.get(104..end).ok_or(Malformed::TooShort)?,
        target: text.get(end..end + usize::from(uint16(text, 98)?)).ok_or(Malformed::TooShort)?,
    })
}
