//! What lies below the root: opened there and nowhere else, and only if it is a regular file, or a
//! directory to be listed.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::{PathFd, itself};
use crate::server::Error;
use crate::server::admission::Confined;
use crate::server::send::file::OpenedFile;
use crate::server::send::{Listing, Walk};
use crate::wire::{Kind, Operation};

/// The folder whose content is served.
#[derive(Debug)]
pub(crate) struct Export {
    root: OwnedFd,
}

/// What was asked for, opened with the caller's rights, and what is to be sent of it.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    File(OpenedFile),
    Listing(Listing),
    Tree(Box<Walk<'a>>),
}

impl Opened<'_> {
    /// The directory below which more is to be opened.
    pub(crate) fn walked(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tree(walk) => walk.directory(),
            Self::File(_) | Self::Listing(_) => None,
        }
    }
}

/// Why there is nothing to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{}", .0.desc())]
    Os(#[from] Errno),
    #[error("Is a directory")]
    Directory,
    #[error("Is a {0}, not a regular file")]
    Special(Kind),
}

impl OpenError {
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Os(errno) => errno,
            Self::Directory => Errno::EISDIR,
            Self::Special(_) => Errno::EOPNOTSUPP,
        }
    }
}

impl Export {
    /// How often a path is resolved while somebody renames folders on it.
    const TRIES: usize = 32;

    /// Opens the root, by the same call that will resolve every path below it.
    pub(crate) fn open_root(root: &Path) -> Result<Self, Error> {
        let failed = |errno| Error::Root { root: root.to_owned(), errno };
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
        let root = openat2(AT_FDCWD, root, how).map_err(failed)?;
        match fs::symlink_metadata(itself(&root)) {
            Ok(_) => Ok(Self { root }),
            Err(_) => Err(Error::NoProc),
        }
    }

    /// Opens what an admitted caller asked for.
    pub(crate) fn open<'a>(&self, request: &Confined<'a>) -> Result<Opened<'a>, OpenError> {
        let find = |flags| {
            PathFd::new(self.resolve(request.path(), OFlag::O_PATH | OFlag::O_CLOEXEC | flags)?)
        };
        let file = |range, arrived| {
            // Looked at before it is opened: opening a FIFO lets its writer go on, and a device may
            // do anything.
            let found = find(OFlag::empty())?;
            check_regular(found.kind())?;
            Ok(Opened::File(OpenedFile::new(found.open_file()?, range, arrived)?))
        };
        match request.operation() {
            Operation::Fetch(range) => file(range, None),
            Operation::Resume(range, arrived) => file(range, Some(arrived)),
            Operation::Stat { follow } => {
                let flags = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
                Ok(Opened::Listing(Listing::of_one(&find(flags)?)?))
            }
            Operation::List(start) => {
                let found = find(OFlag::empty())?;
                Ok(Opened::Listing(match found.kind() {
                    Kind::Directory => Listing::of_directory(&found, start)?,
                    _ => Listing::of_one(&found)?,
                }))
            }
            Operation::Tree(start) => {
                Ok(Opened::Tree(Box::new(Walk::open(find(OFlag::empty())?, start)?)))
            }
            // Admission refuses it.
            _ => Err(OpenError::Os(Errno::EPROTONOSUPPORT)),
        }
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        // As in a chroot: absolute paths and links begin at the root, and ".." stays in it.
        let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags).mode(Mode::empty()).resolve(inside);
        // EAGAIN: something was renamed meanwhile, and ".." could not be trusted; openat2(2).
        for _ in 1..Self::TRIES {
            match openat2(&self.root, path, how) {
                Err(Errno::EAGAIN) => {}
                outcome => return outcome,
            }
        }
        openat2(&self.root, path, how)
    }
}

impl AsFd for Export {
    /// The root, for nothing but finding what lies below it (`O_PATH`).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

fn check_regular(kind: Kind) -> Result<(), OpenError> {
    match kind {
        Kind::Regular => Ok(()),
        Kind::Directory => Err(OpenError::Directory),
        kind => Err(OpenError::Special(kind)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_was_found_is_opened_and_not_what_stands_there_by_then() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("name");
        fs::write(&path, "found").unwrap();
        let export = Export::open_root(root.path()).unwrap();
        let name = Path::new("/name");
        let found = PathFd::new(export.resolve(name, OFlag::O_PATH).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut content = String::new();
        found.open_file().unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "found");
    }
}
