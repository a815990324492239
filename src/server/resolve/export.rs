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
    /// How often a path is resolved while somebody renames directories on it.
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
    /// symbolic link, finds its target.
    pub(crate) fn find(&self, request: &Confined<'_>) -> Result<PathFd, Errno> {
        PathFd::new(self.resolve(request.path(), OFlag::empty())?)
    }

    /// Like [`find`](Self::find), but finds a symbolic link at the end of the path itself.
    pub(crate) fn find_no_follow(&self, request: &Confined<'_>) -> Result<PathFd, Errno> {
        PathFd::new(self.resolve(request.path(), OFlag::O_NOFOLLOW)?)
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        // As in a chroot: absolute paths and links start at the root, and ".." cannot leave it.
        let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | flags;
        let how = OpenHow::new().flags(flags).mode(Mode::empty()).resolve(inside);
        // EAGAIN: a concurrent rename, so the kernel could not be sure about ".."; openat2(2).
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
    /// The root. Opened with `O_PATH`, so it can only resolve paths.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn the_file_that_was_found_is_opened_and_not_what_has_its_name_by_then() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("name");
        fs::write(&path, "found").unwrap();
        let export = Export::open_root(root.path()).unwrap();
        let found = export.resolve(Path::new("/name"), OFlag::empty()).unwrap();
        let found = PathFd::new(found).unwrap();
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut content = String::new();
        found.open_file().unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "found");
    }
}
