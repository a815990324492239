//! What would stay behind if the process ended now.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// What would stay behind if the process ended now; shared with whatever ends it.
#[derive(Debug, Clone, Default)]
pub struct Unfinished(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) temporary: Option<Temporary>,
    /// Folders that may be written to for now, and the modes that they had.
    opened: Vec<(Arc<OwnedFd>, Mode)>,
}

/// A file with a name of our making.
#[derive(Debug)]
pub(super) enum Temporary {
    At(PathBuf),
    Below(Arc<OwnedFd>, String),
}

impl Unfinished {
    /// Removes the file, if there is one, and gives folders their modes back.
    pub fn discard(&self) {
        self.remove_temporary();
        for (folder, mode) in self.hold().opened.drain(..) {
            let _ = fchmod(folder, mode);
        }
    }

    pub(super) fn remove_temporary(&self) {
        match self.hold().temporary.take() {
            Some(Temporary::At(path)) => drop(fs::remove_file(path)),
            Some(Temporary::Below(folder, name)) => {
                let _ = unlinkat(folder, name.as_str(), UnlinkatFlags::NoRemoveDir);
            }
            None => {}
        }
    }

    /// Keeps whoever wants to [`discard`](Self::discard) waiting, for what is over in a moment.
    pub(super) fn hold(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, path: &Path) {
        self.hold().temporary = Some(Temporary::At(path.to_owned()));
    }

    pub(super) fn forget(&self) {
        self.hold().temporary = None;
    }
}

impl State {
    /// Lets a folder be written to, of which it is known that we may.
    pub(super) fn open(&mut self, folder: &Arc<OwnedFd>, mode: Mode) {
        if fchmod(folder, mode | Mode::S_IRWXU).is_ok() {
            self.opened.push((Arc::clone(folder), mode));
        }
    }

    /// What mode a folder had before it was opened, which is for the caller to give back now.
    pub(super) fn close(&mut self, folder: &Arc<OwnedFd>) -> Option<Mode> {
        let found = self.opened.iter().rposition(|(opened, _)| Arc::ptr_eq(opened, folder))?;
        Some(self.opened.swap_remove(found).1)
    }
}
