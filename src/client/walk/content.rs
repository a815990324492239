//! Counting and verifying the bytes of one file of a tree.

use crate::client::error::Error;
use crate::wire::Trailer;

/// What has arrived of an entry.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// How many bytes of the current packed DATA are still to come.
    pub(super) left: u64,
    whole: Tally,
    /// The part since the last request, which END will describe. Equal to `whole` until there is a
    /// second request, and not counted until then.
    part: Option<Tally>,
    /// Whether another request was sent, so that the server must announce the entry anew.
    pub(super) is_interrupted: bool,
}

#[derive(Debug, Default)]
struct Tally {
    bytes: u64,
    checksum: crc32fast::Hasher,
}

impl Tally {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.checksum.update(bytes);
    }
}

impl Content {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.left -= bytes.len() as u64;
        self.whole.add(bytes);
        if let Some(part) = &mut self.part {
            part.add(bytes);
        }
    }

    /// How many bytes have arrived, and their CRC-32.
    pub(super) fn arrived(&self) -> (u64, u32) {
        (self.whole.bytes, self.whole.checksum.clone().finalize())
    }

    /// Notes that another request was sent for the rest.
    pub(super) fn interrupt(&mut self) {
        self.left = 0;
        self.part = Some(Tally::default());
        self.is_interrupted = true;
    }

    /// Checks that what arrived since the last request is what the server sent.
    pub(super) fn verify(&self, trailer: &Trailer) -> Result<(), Error> {
        let part = self.part.as_ref().unwrap_or(&self.whole);
        if trailer.bytes != part.bytes {
            return Err(Error::corrupt("not as many bytes arrived as were sent"));
        }
        if trailer.checksum != part.checksum.clone().finalize() {
            return Err(Error::corrupt("the checksum is not that of the bytes sent"));
        }
        Ok(())
    }
}
