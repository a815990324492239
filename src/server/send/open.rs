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
    match request.operation() {
        Operation::Fetch(range) => open_file(&export.find(request)?, range, None),
        Operation::Resume(range, arrived) => {
            open_file(&export.find(request)?, range, Some(arrived))
        }
        Operation::Stat { follow: true } => Ok(Box::new(Listing::of_one(&export.find(request)?)?)),
        Operation::Stat { follow: false } => {
            Ok(Box::new(Listing::of_one(&export.find_no_follow(request)?)?))
        }
        Operation::List(start) => {
            let found = export.find(request)?;
            Ok(Box::new(match found.kind() {
                Kind::Directory => Listing::of_directory(&found, start)?,
                _ => Listing::of_one(&found)?,
            }))
        }
        Operation::Tree(start) => Ok(Box::new(TreeWalk::open(&export.find(request)?, start)?)),
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
