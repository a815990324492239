//! Sends a source as messages: META, DATA, DATA, …, END.

use sysv_ipc::MessageBuffer;

use super::failure::{SendFailure, Unanswerable};
use super::outbox::Outbox;
use super::source::{Progress, Source, at_most};
use crate::server::confine::Sealed;
use crate::wire::{Reply, Trailer};

/// Sends all of a source, from a process that can open nothing else. Plain clients get neither META
/// nor a trailer.
pub(crate) fn send(
    _sealed: Sealed,
    source: &mut dyn Source,
    outbox: &mut Outbox<'_>,
) -> Result<Trailer, SendFailure> {
    if outbox.is_plain() {
        let trailer = send_data(source, outbox)?;
        outbox.send(&MessageBuffer::with_text(Reply::END, &[]))?;
        return Ok(trailer);
    }
    outbox.send(&MessageBuffer::with_text(Reply::META, &source.meta().encode()))?;
    let trailer = send_data(source, outbox)?;
    outbox.send(&MessageBuffer::with_text(Reply::END, &trailer.encode()))?;
    Ok(trailer)
}

fn send_data(source: &mut dyn Source, outbox: &mut Outbox<'_>) -> Result<Trailer, SendFailure> {
    let mut checksum = crc32fast::Hasher::new();
    // No larger than the file, since each page of the buffer costs a page fault.
    let size = at_most(source.length(), outbox.batch(source.length().is_some()));
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
