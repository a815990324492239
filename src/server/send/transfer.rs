//! What was opened as messages: META, DATA, DATA, …, END; or FAILURE, as soon as it cannot be finished.

use std::io;
use std::time::Duration;

use nix::errno::Errno;

use super::file::at_most;
use super::outbox::{Outbox, Undelivered};
use crate::server::admission::reply_to::Dialect;
use crate::server::confine::sandbox::Sealed;
use crate::server::resolve::export::Opened;
use crate::sys::errno_of;
use crate::wire::{Meta, Reply, Trailer};
use sysv_ipc::MessageBuffer;

/// A transfer that came to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) changed: bool,
}

/// A transfer that did not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendFailure {
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    /// To be told to the client.
    #[error("{text}")]
    Unreadable { text: String, errno: Errno },
}

/// For how long a source may be at work before the client is given a sign of life.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// Where the bytes of a transfer come from.
pub(crate) trait Source {
    /// Whether bytes come about as fast as they are copied.
    const IS_QUICK: bool = false;

    /// What opens the reply.
    fn meta(&self) -> Meta;

    /// How many bytes are to come, if that is known.
    fn length(&self) -> Option<u64> {
        None
    }

    /// Writes the next bytes into the room.
    fn fill(&mut self, room: &mut [u8]) -> Result<Progress, SendFailure>;

    /// Whether, at its end, it is another than at its beginning.
    fn has_changed(&mut self) -> Result<bool, SendFailure> {
        Ok(false)
    }
}

/// How far a source came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There are bytes in the room, so many.
    Bytes(usize),
    /// There will be, but it takes a while.
    Working,
    /// There are no more.
    Ended,
}

/// Sends what was opened.
pub(crate) fn stream(
    sealed: Sealed<'_>,
    dialect: Dialect,
    outbox: &mut Outbox,
) -> Result<Sent, SendFailure> {
    match sealed.into_opened() {
        Opened::File(mut file) => send_all(&mut file, dialect, outbox),
        Opened::Listing(mut listing) => send_all(&mut listing, dialect, outbox),
        Opened::Tree(mut walk) => send_all(&mut *walk, dialect, outbox),
    }
}

fn send_all(
    source: &mut impl Source,
    dialect: Dialect,
    outbox: &mut Outbox,
) -> Result<Sent, SendFailure> {
    if let Dialect::Extended(_) = dialect {
        let meta = MessageBuffer::with_text(Reply::META, &source.meta().encode());
        outbox.send(&meta)?;
    }
    let trailer = send_data(source, outbox)?;
    let end = match dialect {
        Dialect::Plain => MessageBuffer::with_text(Reply::END, &[]),
        Dialect::Extended(_) => MessageBuffer::with_text(Reply::END, &trailer.encode()),
    };
    outbox.send(&end)?;
    Ok(Sent { changed: trailer.changed })
}

fn send_data<S: Source>(source: &mut S, outbox: &mut Outbox) -> Result<Trailer, SendFailure> {
    let mut checksum = crc32fast::Hasher::new();
    // No more memory than the file takes: each page of it is one to fault in.
    let most = at_most(source.length(), outbox.batch(S::IS_QUICK));
    let mut bytes = MessageBuffer::with_capacity(most);
    loop {
        let mut progress = Progress::Ended;
        bytes.fill(Reply::DATA, |room| {
            progress = source.fill(room)?;
            Ok::<_, SendFailure>(if let Progress::Bytes(count) = progress { count } else { 0 })
        })?;
        let count = match progress {
            Progress::Bytes(count) => count,
            // A disk may take longer than the client waits for a sign of life.
            Progress::Working => {
                outbox.keep_alive()?;
                continue;
            }
            Progress::Ended => break,
        };
        for start in (0..count).step_by(outbox.chunk()) {
            let part = start..count.min(start + outbox.chunk());
            checksum.update(&bytes.text()[part.clone()]); // while the bytes are in the cache
            let sent = part.len() as u64;
            outbox.send(bytes.part(Reply::DATA, part))?;
            outbox.sent += sent;
        }
    }
    let changed = source.has_changed()?;
    Ok(Trailer { bytes: outbox.sent, checksum: checksum.finalize(), changed })
}

pub(crate) fn unreadable(error: io::Error) -> SendFailure {
    let errno = errno_of(&error);
    SendFailure::Unreadable { text: format!("read: {}", errno.desc()), errno }
}
