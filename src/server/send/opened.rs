//! Opens what a request names, and sends it.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::failure::{SendFailure, Unanswerable};
use super::file::OpenedFile;
use super::listing::Listing;
use super::outbox::Outbox;
use super::transfer::{Sent, send_all};
use super::tree::TreeWalk;
use crate::server::admission::Dialect;
use crate::server::confine::{Confined, Sealed};
use crate::server::resolve::{Export, PathFd};
use crate::wire::{Arrived, Kind, Operation, Range};

/// What a request names, opened with the caller's rights.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    File(OpenedFile),
    Listing(Listing),
    Tree(Box<TreeWalk<'a>>),
}

impl<'a> Opened<'a> {
    pub(crate) fn open(export: &Export, request: &Confined<'a>) -> Result<Self, Unanswerable> {
        match request.operation() {
            Operation::Fetch(range) => Self::file(&export.find(request)?, range, None),
            Operation::Resume(range, arrived) => {
                Self::file(&export.find(request)?, range, Some(arrived))
            }
            Operation::Stat { follow: true } => Self::entry(&export.find(request)?),
            Operation::Stat { follow: false } => Self::entry(&export.find_no_follow(request)?),
            Operation::List(start) => match export.find(request)? {
                found if found.kind() == Kind::Directory => {
                    Ok(Self::Listing(Listing::of_directory(&found, start)?))
                }
                found => Self::entry(&found),
            },
            Operation::Tree(start) => {
                Ok(Self::Tree(Box::new(TreeWalk::open(export.find(request)?, start)?)))
            }
            // Admission refuses unknown operations.
            _ => Err(Errno::EPROTONOSUPPORT.into()),
        }
    }

    /// Opens a regular file. It checks the kind before: opening a FIFO lets its writer continue,
    /// and opening a device may have any effect.
    fn file(found: &PathFd, range: Range, arrived: Option<Arrived>) -> Result<Self, Unanswerable> {
        match found.kind() {
            Kind::Regular => Ok(Self::File(OpenedFile::new(found.open_file()?, range, arrived)?)),
            Kind::Directory => Err(Errno::EISDIR.into()),
            kind => {
                let text = format!("Is a {kind}, not a regular file");
                Err(Unanswerable::new(text, Errno::EOPNOTSUPP))
            }
        }
    }

    fn entry(found: &PathFd) -> Result<Self, Unanswerable> {
        Ok(Self::Listing(Listing::of_one(found)?))
    }

    /// The directory below which a tree opens more.
    pub(crate) fn tree(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tree(walk) => walk.directory(),
            Self::File(_) | Self::Listing(_) => None,
        }
    }

    /// Sends it, from a process that can open nothing else.
    pub(crate) fn send(
        self,
        _sealed: Sealed,
        dialect: Dialect,
        outbox: &mut Outbox<'_>,
    ) -> Result<Sent, SendFailure> {
        match self {
            Self::File(mut file) => send_all(&mut file, dialect, outbox),
            Self::Listing(mut listing) => send_all(&mut listing, dialect, outbox),
            Self::Tree(mut walk) => send_all(&mut *walk, dialect, outbox),
        }
    }
}
