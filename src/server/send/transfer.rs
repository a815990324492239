//! Sends a source as messages: META, DATA, DATA, …, END.

use super::failure::{SendFailure, Unanswerable};
use super::outbox::Outbox;
use super::source::{Progress, Source, at_most};
use crate::server::admission::Dialect;
use crate::wire::{Reply, Trailer};
use sysv_ipc::MessageBuffer;

/// A complete transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Whether the file changed meanwhile.
    pub(crate) changed: bool,
}

/// Sends all of a source. Plain clients get neither META nor a trailer.
pub(super) fn send_all(
    source: &mut impl Source,
    dialect: Dialect,
    outbox: &mut Outbox<'_>,
) -> Result<Sent, SendFailure> {
    if let Dialect::Extended(_) = dialect {
        outbox.send(&MessageBuffer::with_text(Reply::META, &source.meta().encode()))?;
    }
    let trailer = send_data(source, outbox)?;
    let end = match dialect {
        Dialect::Plain => MessageBuffer::with_text(Reply::END, &[]),
        Dialect::Extended(_) => MessageBuffer::with_text(Reply::END, &trailer.encode()),
    };
    outbox.send(&end)?;
    Ok(Sent { changed: trailer.changed })
}

fn send_data<S: Source>(source: &mut S, outbox: &mut Outbox<'_>) -> Result<Trailer, SendFailure> {
    let mut checksum = crc32fast::Hasher::new();
    // No larger than the file, since each page of the buffer costs a page fault.
    let size = at_most(source.length(), outbox.batch(S::IS_QUICK));
    let mut buffer = MessageBuffer::with_capacity(size);
    loop {
        let mut progress = Progress::Ended;
        buffer.fill(Reply::DATA, |bytes| {
            progress = source.fill(bytes)?;
            Ok::<_, Unanswerable>(if let Progress::Bytes(count) = progress { count } else { 0 })
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
            checksum.update(&buffer.text()[part.clone()]); // while the bytes are in the cache
            outbox.send_data(&mut buffer, part)?;
        }
    }
    let changed = source.has_changed()?;
    Ok(Trailer { bytes: outbox.sent(), checksum: checksum.finalize(), changed })
}
