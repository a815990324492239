//! What must be undone if the process ends early.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::getpid;

/// What must be undone if the process ends now. Writers keep it up to date; whatever ends the
/// process, such as a signal handler's thread, calls [`discard`](Self::discard). Clones share one
/// state.
#[derive(Debug, Clone, Default)]
pub struct CleanupGuard(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// The temporary names of the files that are being written.
    temporaries: Vec<(Arc<OwnedFd>, String)>,
    /// Directories that were made writable, and their original modes.
    opened: Vec<(Arc<OwnedFd>, Mode)>,
}

impl CleanupGuard {
    /// Removes the temporary files, and restores the modes of directories. From then on writers
    /// wait, so that none begins another file before the process ends.
    pub fn discard(&self) {
        let mut held = self.lock();
        for (dir, name) in held.temporaries.drain(..) {
            let _ = unlinkat(dir, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        for (dir, mode) in held.opened.drain(..) {
            let _ = fchmod(dir, mode);
        }
        std::mem::forget(held);
    }

    /// Makes a file under a temporary name in the directory, and notes the name.
    pub(super) fn make_temporary<T>(
        &self,
        dir: Arc<OwnedFd>,
        make: impl FnMut(&str) -> Result<T, Errno>,
    ) -> Result<(T, String), Errno> {
        let mut held = self.lock();
        let (made, name) = with_temporary_name(make)?;
        held.temporaries.push((dir, name.clone()));
        Ok((made, name))
    }

    /// Ends the use of a temporary name by a system call, such as rename(2), and forgets the name
    /// if that succeeds.
    pub(super) fn end_temporary(
        &self,
        dir: &Arc<OwnedFd>,
        name: &str,
        end: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut held = self.lock();
        end()?;
        held.temporaries.retain(|(other, found)| !(Arc::ptr_eq(other, dir) && found == name));
        Ok(())
    }

    /// Locks the state, so that [`discard`](Self::discard) waits. Hold it across a change on disk
    /// and the note of it here.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes a directory of ours writable until it is closed.
    pub(super) fn make_writable(&mut self, dir: Arc<OwnedFd>, mode: Mode) {
        if fchmod(&dir, mode | Mode::S_IRWXU).is_ok() {
            self.opened.push((dir, mode));
        }
    }

    /// The original mode of a directory that was made writable. The caller restores it.
    pub(super) fn take_original_mode(&mut self, dir: &Arc<OwnedFd>) -> Option<Mode> {
        let found = self.opened.iter().rposition(|(opened, _)| Arc::ptr_eq(opened, dir))?;
        Some(self.opened.swap_remove(found).1)
    }
}

/// Calls `make` with temporary names, which contain our pid, until one is free.
pub(super) fn with_temporary_name<T>(
    mut make: impl FnMut(&str) -> Result<T, Errno>,
) -> Result<(T, String), Errno> {
    for n in 0..100 {
        let name = format!(".mqfs-{}-{n}.part", getpid());
        match make(&name) {
            Err(Errno::EEXIST) => {}
            outcome => return outcome.map(|made| (made, name)),
        }
    }
    Err(Errno::EEXIST)
}
