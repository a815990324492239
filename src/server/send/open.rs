//! Opens what a request names, with the rights of its caller.

use nix::errno::Errno;

use super::failure::Unanswerable;
use super::file::OpenedFile;
use super::listing::Listing;
use super::source::Source;
use super::tree::TreeWalk;
use crate::server::confine::Confined;
use crate::server::resolve::{Export, PathFd};
use crate::wire::{Arrived, Kind, Operation, Range};

/// Opens what a request names.
pub(crate) fn open(
    export: &Export,
    request: &Confined<'_>,
) -> Result<Box<dyn Source>, Unanswerable> {
    let operation = request.operation();
    let follow = !matches!(operation, Operation::Stat { follow: false });
    let found = export.find(request, follow)?;
    match operation {
        Operation::Fetch(range) => open_file(&found, range, None),
        Operation::Resume(range, arrived) => open_file(&found, range, Some(arrived)),
        Operation::List(start) if found.kind() == Kind::Directory => {
            Ok(Box::new(Listing::of_directory(&found, start)?))
        }
        Operation::Stat { .. } | Operation::List(_) => Ok(Box::new(Listing::of_one(&found)?)),
        Operation::Tree(start) => Ok(Box::new(TreeWalk::open(&found, start)?)),
        // Admission refuses unknown operations.
        _ => Err(Errno::EPROTONOSUPPORT.into()),
    }
}

/// Opens a regular file. It checks the kind before: opening a FIFO lets its writer continue, and
/// opening a device may have any effect.
fn open_file(
    found: &PathFd,
    range: Range,
    arrived: Option<Arrived>,
) -> Result<Box<dyn Source>, Unanswerable> {
    match found.kind() {
        Kind::Regular => Ok(Box::new(OpenedFile::new(found.open_file()?, range, arrived)?)),
        Kind::Directory => Err(Errno::EISDIR.into()),
        kind => {
            let text = format!("Is a {kind}, not a regular file");
            Err(Unanswerable::new(text, Errno::EOPNOTSUPP))
        }
    }
}
