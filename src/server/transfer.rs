//! A file as messages: META, DATA, DATA, …, END; or FAILURE, as soon as it cannot be finished.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use super::admit::Dialect;
use super::export::Opened;
use super::outbox::{Outbox, Undelivered};
use super::sandbox::Sealed;
use crate::sysv::MessageBuffer;
use crate::wire::{Reply, Trailer};

/// A transfer that came to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) changed: bool,
}

/// A transfer that did not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    /// To be told to the client.
    #[error("{text}")]
    Unreadable { text: String, errno: Errno },
}

/// Sends the opened file's range.
pub(super) fn stream(
    sealed: Sealed,
    dialect: Dialect,
    outbox: &mut Outbox,
) -> Result<Sent, Broken> {
    let mut opened = sealed.into_opened();
    if opened.range.offset > 0 && opened.length() != Some(0) {
        opened.file.seek(SeekFrom::Start(opened.range.offset)).map_err(unreadable)?;
    }
    if let Dialect::Extended(_) = dialect {
        outbox.send(&MessageBuffer::with_text(Reply::META, &opened.meta().encode()))?;
    }
    let trailer = send_data(&mut opened, outbox)?;
    let end = match dialect {
        Dialect::Plain => MessageBuffer::with_text(Reply::END, &[]),
        Dialect::Extended(_) => MessageBuffer::with_text(Reply::END, &trailer.encode()),
    };
    outbox.send(&end)?;
    Ok(Sent { changed: trailer.changed })
}

fn send_data(opened: &mut Opened, outbox: &mut Outbox) -> Result<Trailer, Broken> {
    let mut left = opened.length();
    let mut checksum = crc32fast::Hasher::new();
    let mut message = MessageBuffer::with_capacity(outbox.chunk());
    while left != Some(0) {
        let most = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
        let read = message
            .fill(Reply::DATA, |room| {
                let room_len = room.len().min(most);
                read_some(&mut opened.file, &mut room[..room_len])
            })
            .map_err(unreadable)?;
        if read == 0 {
            break;
        }
        checksum.update(message.text()); // while the bytes are in the cache
        outbox.send(&message)?;
        outbox.sent += read as u64;
        left = left.map(|left| left - read as u64);
    }
    let now = fstat(&opened.file).map_err(|errno| unreadable(errno.into()))?;
    let changed = differ(&opened.stat, &now);
    // A file that ends early and did not change is one whose size never meant much, as in /sys.
    if left.is_some_and(|left| left > 0) && changed {
        let text = "the file shrank while it was read".to_owned();
        return Err(Broken::Unreadable { text, errno: Errno::EIO });
    }
    Ok(Trailer { bytes: outbox.sent, checksum: checksum.finalize(), changed })
}

fn read_some(file: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(room) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn differ(before: &FileStat, now: &FileStat) -> bool {
    let of = |stat: &FileStat| {
        let mtime = (stat.st_mtime, stat.st_mtime_nsec);
        (stat.st_size, mtime, (stat.st_ctime, stat.st_ctime_nsec))
    };
    of(before) != of(now)
}

fn unreadable(error: io::Error) -> Broken {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32));
    Broken::Unreadable { text: format!("read: {}", errno.desc()), errno }
}
