//! The directory that the server serves.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::path_fd::{PathFd, proc_path};
use crate::server::confine::Confined;
use crate::server::error::Error;

/// The root: every path of a request is resolved below it.
#[derive(Debug)]
pub(crate) struct Export {
    root: OwnedFd,
}

impl Export {
    /// How often to try to resolve a path while somebody renames directories on it.
    const TRIES: usize = 32;

    /// Opens the root, with the system call that will resolve every path below it.
    pub(crate) fn open_root(root: &Path) -> Result<Self, Error> {
        let failed = |errno: Errno| Error::Root { root: root.to_owned(), source: errno.into() };
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
        let root = openat2(AT_FDCWD, root, how).map_err(failed)?;
        match std::fs::symlink_metadata(proc_path(&root)) {
            Ok(_) => Ok(Self { root }),
            Err(_) => Err(Error::NoProc),
        }
    }

    /// Finds the file that a request names, with the rights of its caller. If the path ends in a
    /// symbolic link, finds its target, or without `follow` the link itself.
    pub(crate) fn find(&self, request: &Confined<'_>, follow: bool) -> Result<PathFd, Errno> {
        let no_follow = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | no_follow;
        // As in a chroot: absolute paths and links start at the root, and ".." cannot leave it.
        let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags).mode(Mode::empty()).resolve(inside);
        let mut tries = 1..Self::TRIES;
        loop {
            match openat2(&self.root, request.path(), how) {
                // A concurrent rename: the kernel could not be sure about ".."; openat2(2).
                Err(Errno::EAGAIN) if tries.next().is_some() => {}
                found => return PathFd::new(found?),
            }
        }
    }
}

impl AsFd for Export {
    /// The root. Opened with `O_PATH`, so it can only resolve paths.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
