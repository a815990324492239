//! The directory that the server serves.

use std::cell::OnceCell;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::dev_t;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, Statfs, TMPFS_MAGIC,
    XFS_SUPER_MAGIC, fstatfs,
};
use smallvec::SmallVec;

use super::path_fd::PathFd;
use crate::server::confine::Confined;
use crate::server::error::Error;
use crate::sys::fstat;
use crate::wire::{Kind, Operation, Question};

const OWN_DESCRIPTORS: &str = "/proc/self/fd";

/// The root: every path of a question is resolved below it.
pub(crate) struct Export {
    root: OwnedFd,
    /// See [`Self::is_local`].
    local_device: Option<dev_t>,
    /// Whether it had links (`st_nlink`) at first: on some file systems no directory has any.
    had_links: bool,
    /// /proc/self/fd of the child of a session.
    own_descriptors: OnceCell<OwnedFd>,
}

/// The directory that a client entered last; None: the root. An error: it could not be entered, so
/// the client must get nothing of the one before.
pub(crate) type Entered = Result<Option<PathFd>, Errno>;

impl Export {
    /// How often to try to resolve a path while somebody renames directories on it.
    const TRIES: usize = 32;

    /// File systems whose modes and lists of extended attributes tell who may do what.
    const TRUE_MODES: [FsType; 5] =
        [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC];

    pub(crate) fn open_root(root: &Path) -> Result<Self, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let failed = |errno: Errno| match open(root, flags, Mode::empty()) {
            Ok(_) => Error::NoOpenat2 { source: errno.into() },
            Err(_) => Error::Root { root: root.to_owned(), source: errno.into() },
        };
        let root = openat2(AT_FDCWD, root, OpenHow::new().flags(flags)).map_err(failed)?;
        match std::fs::symlink_metadata(format!("{OWN_DESCRIPTORS}/{}", root.as_raw_fd())) {
            Ok(_) => {
                // A file system that does not answer holds the server here, before it has a queue.
                let stat = fstat(&root).map_err(failed)?;
                let has_true_modes =
                    |found: Statfs| Self::TRUE_MODES.contains(&found.filesystem_type());
                let local_device = fstatfs(&root).is_ok_and(has_true_modes).then_some(stat.st_dev);
                let had_links = stat.st_nlink > 0;
                Ok(Self { root, local_device, had_links, own_descriptors: OnceCell::new() })
            }
            Err(_) => Err(Error::NoProc),
        }
    }

    /// Whether the root was removed since it was opened.
    pub(crate) fn is_removed(&self) -> bool {
        self.had_links && fstat(&self.root).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Makes opening files cheaper, in a child that will open many: it resolves /proc/self/fd once.
    pub(crate) fn keep_own_descriptors(&self) {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        if let Ok(directory) = open(OWN_DESCRIPTORS, flags, Mode::empty()) {
            let _ = self.own_descriptors.set(directory);
        }
    }

    pub(crate) fn open_file(&self, found: &PathFd) -> Result<File, Errno> {
        // Files of /proc have the size 0: skip the check for all others.
        if found.stat.st_size == 0 {
            found.refuse_own_proc_files()?;
        }
        Ok(self.open(found.as_fd(), OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?.into())
    }

    /// Opens the file by its path once more, which is cheaper. None, in a session, or if another
    /// user could have swapped in a FIFO or a device since: some directory on the way lets others
    /// rename, or is on a file system whose modes may not be true.
    pub(crate) fn open_again(
        &self,
        caller: &Confined,
        found: &PathFd,
        question: &Question<'_>,
    ) -> Option<File> {
        /// With more directories, /proc/self/fd is cheaper.
        const MOST: usize = 8;
        if question.below || self.own_descriptors.get().is_some() || !self.is_local(&found.stat) {
            return None;
        }
        let open = |directory: BorrowedFd<'_>, name: &[u8], flags| {
            let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
            resolve_path(directory, Path::new(OsStr::from_bytes(name)), how).ok()
        };
        let names = question.path.as_os_str().as_bytes().split(|&byte| byte == b'/');
        let mut names = names.filter(|&name| !matches!(name, b"" | b"."));
        let mut name = names.next()?;
        let mut directory: Option<OwnedFd> = None;
        for _ in 0..MOST {
            let at = directory.as_ref().map_or(self.as_fd(), AsFd::as_fd);
            let stat = fstat(at).ok()?;
            let is_owned = [0, caller.user().as_raw()].contains(&stat.st_uid);
            if !is_owned || stat.st_mode & 0o022 != 0 || !self.is_local(&stat) {
                return None;
            }
            let Some(next) = names.next() else {
                let file = open(at, name, OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
                return found.is(&file).then(|| file.into());
            };
            directory = Some(open(at, name, OFlag::O_PATH | OFlag::O_DIRECTORY)?);
            name = next;
        }
        None
    }

    /// Whether it lies on the file system of the root, and that is one of [`Self::TRUE_MODES`].
    pub(crate) fn is_local(&self, stat: &FileStat) -> bool {
        self.local_device == Some(stat.st_dev)
    }

    pub(crate) fn open_directory(&self, found: &PathFd) -> Result<OwnedFd, Errno> {
        if found.kind() != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        found.refuse_own_proc_files()?;
        self.open(found.as_fd(), OFlag::O_DIRECTORY)
    }

    /// Opens this very file, whatever its path leads to by now: proc_pid_fd(5).
    fn open(&self, file: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
        let path = own_descriptor(file.as_raw_fd().unsigned_abs());
        let (directory, path) = match self.own_descriptors.get() {
            Some(directory) => (directory.as_fd(), &path[OWN_DESCRIPTORS.len() + 1..]),
            None => (AT_FDCWD, &path[..]),
        };
        let path = CStr::from_bytes_until_nul(path).map_err(|_| Errno::EINVAL)?;
        loop {
            match openat(directory, path, flags | OFlag::O_CLOEXEC, Mode::empty()) {
                Err(Errno::EINTR) => {} // the timer's signal
                opened => return opened,
            }
        }
    }

    /// Finds the file that a question names. Unless it may wait, it fails with `EAGAIN` if the path
    /// is not in the kernel's cache: a file system may hang.
    pub(crate) fn find(
        &self,
        _: &Confined,
        question: &Question<'_>,
        entered: &Entered,
        may_wait: bool,
    ) -> Result<PathFd, Errno> {
        let (directory, mut resolve) = if question.below {
            let entered = entered.as_ref().map_err(|&errno| errno)?;
            // The client walks a tree: nothing may lead it out.
            let below = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            (entered.as_ref().map_or(self.as_fd(), PathFd::as_fd), below)
        } else {
            // As in a chroot: absolute paths and links start at the root, ".." cannot leave it.
            (self.as_fd(), ResolveFlag::RESOLVE_IN_ROOT)
        };
        let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        if question.below || question.operation == (Operation::Stat { follow: false }) {
            flags |= OFlag::O_NOFOLLOW;
        }
        resolve |= ResolveFlag::RESOLVE_NO_MAGICLINKS;
        if !may_wait {
            resolve |= ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED);
        }
        // The kernel mounts what is mounted on demand (autofs) if a directory is asked for.
        if matches!(question.operation, Operation::List | Operation::Enter) {
            flags |= OFlag::O_DIRECTORY;
        }
        let how = |flags| OpenHow::new().flags(flags).resolve(resolve);
        let mut tries = 1..if may_wait { Self::TRIES } else { 1 };
        loop {
            match resolve_path(directory, question.path, how(flags)).and_then(PathFd::new) {
                // The timer's signal: some file systems answer so.
                Err(Errno::EINTR) => {}
                // It is no directory. The answer says what it is.
                Err(Errno::ENOTDIR) if flags.contains(OFlag::O_DIRECTORY) => {
                    flags.remove(OFlag::O_DIRECTORY);
                }
                // A concurrent rename: the kernel could not be sure about ".."; openat2(2).
                Err(Errno::EAGAIN) if tries.next().is_some() => {}
                // Linux before 5.12 cannot tell whether a path is in its cache.
                Err(Errno::EINVAL) if !may_wait => return Err(Errno::EAGAIN),
                found => return found,
            }
        }
    }
}

/// `openat2(2)`. Not by way of nix, whose way to end a path in NUL is two more page faults.
fn resolve_path(directory: BorrowedFd<'_>, path: &Path, how: OpenHow) -> Result<OwnedFd, Errno> {
    let mut text = SmallVec::<[u8; 256]>::from_slice(path.as_os_str().as_bytes());
    text.push(0);
    let path = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::EINVAL)?;
    openat2(directory, path, how)
}

/// `/proc/self/fd/NUMBER` and NULs. Not by `write!`, whose code costs a child four page faults.
fn own_descriptor(number: u32) -> [u8; 32] {
    let mut path = [0; 32];
    path[..OWN_DESCRIPTORS.len()].copy_from_slice(OWN_DESCRIPTORS.as_bytes());
    path[OWN_DESCRIPTORS.len()] = b'/';
    let mut at = OWN_DESCRIPTORS.len() + 1 + number.checked_ilog10().unwrap_or(0) as usize;
    let mut rest = number;
    while path[at] == 0 {
        path[at] = b'0' + (rest % 10) as u8;
        (at, rest) = (at - 1, rest / 10);
    }
    path
}

impl AsFd for Export {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
