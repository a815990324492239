use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// What must be undone if the process ends now. Writers keep it up to date; whatever ends the
/// process calls [`discard`](Self::discard). Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct CleanupGuard(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// The temporary names of the files that are being written.
    pub(super) temporaries: Vec<(Arc<OwnedFd>, String)>,
    /// Directories that were made writable, and their original modes.
    pub(super) opened: Vec<(Arc<OwnedFd>, Mode)>,
}

impl CleanupGuard {
    /// Removes the temporary files, and restores the modes of directories. From then on writers and
    /// further calls wait for ever, so that no file is begun before the process ends.
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

    /// Makes [`discard`](Self::discard) wait. Hold it across a change on disk and the note of it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn forget_temporary(&mut self, dir: &Arc<OwnedFd>, name: &str) {
        self.temporaries.retain(|(other, found)| !(Arc::ptr_eq(other, dir) && found == name));
    }
}
