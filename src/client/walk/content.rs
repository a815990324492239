//! What has arrived of one file of a tree.

use crate::client::tally::Tally;

/// What has arrived of an entry.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// How many bytes of the current packed DATA are still to come.
    pub(super) left: u64,
    pub(super) whole: Tally,
    /// The part since the last request, which END will describe. Equal to `whole` until there is a
    /// second request, and not counted until then.
    part: Option<Tally>,
    /// Whether another request was sent, so that the server must announce the entry anew.
    pub(super) is_interrupted: bool,
}

impl Content {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.left -= bytes.len() as u64;
        self.whole.add(bytes);
        if let Some(part) = &mut self.part {
            part.add(bytes);
        }
    }

    pub(super) fn part(&self) -> &Tally {
        self.part.as_ref().unwrap_or(&self.whole)
    }

    /// Notes that another request was sent for the rest.
    pub(super) fn interrupt(&mut self) {
        self.left = 0;
        self.part = Some(Tally::default());
        self.is_interrupted = true;
    }
}
