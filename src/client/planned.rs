//! Questions that will be asked, perhaps more than once.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Cause, Error};
use crate::wire::{MAX_PATH, Operation, Question};

#[derive(Debug)]
pub(super) struct PlannedQuestion {
    /// Below the base, of any length; without a base, as the user named it.
    pub(super) path: PathBuf,
    pub(super) operation: Operation,
    pub(super) base: Option<Arc<Base>>,
}

/// A directory that must be entered before a question about what is below it.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) path: PathBuf,
    /// Device and inode. If another server finds another directory there, the walk cannot go on.
    pub(super) identity: (u64, u64),
}

/// The directory that a session entered last.
#[derive(Debug, Clone)]
pub(super) struct Entered {
    pub(super) base: Arc<Base>,
    /// Its path below the base; empty for the base itself.
    below: Vec<u8>,
}

impl Entered {
    pub(super) fn base(base: &Arc<Base>) -> Self {
        Self { base: Arc::clone(base), below: Vec::new() }
    }

    /// The identity of the base, if this is the base itself.
    pub(super) fn top(&self) -> Option<(u64, u64)> {
        self.below.is_empty().then_some(self.base.identity)
    }

    /// The part of `path` (below the base) that is below this directory. None: it is elsewhere.
    fn rest_of<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let rest = path.strip_prefix(&self.below[..])?;
        if self.below.is_empty() || rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
    }
}

impl PlannedQuestion {
    /// In bytes. For longer paths, the client first enters a directory on the way.
    const MAX_LEN: usize = 2048;

    pub(super) fn new(path: &Path, operation: Operation) -> Self {
        Self { path: path.to_owned(), operation, base: None }
    }

    /// The next question to ask of a server that has `entered` a directory; and, if it only enters
    /// a directory on the way, that directory.
    pub(super) fn next_question(
        &self,
        entered: Option<&Entered>,
    ) -> (Question<'_>, Option<Entered>) {
        let Some(base) = &self.base else {
            return (Question::new(&self.path, self.operation), None);
        };
        let path = self.path.as_os_str().as_bytes();
        let here = entered.filter(|entered| Arc::ptr_eq(&entered.base, base));
        let Some((here, rest)) = here.and_then(|here| Some((here, here.rest_of(path)?))) else {
            return (Question::new(&base.path, Operation::Enter), Some(Entered::base(base)));
        };
        let is_far = rest.len() > Self::MAX_LEN;
        let cut = rest.iter().take(Self::MAX_LEN).rposition(|&byte| byte == b'/');
        let Some(cut) = cut.filter(|_| is_far) else {
            let path = Path::new(OsStr::from_bytes(if rest.is_empty() { b"." } else { rest }));
            let question = Question::new(path, self.operation);
            return (Question { below: true, ..question }, None);
        };
        let below = path[..path.len() - rest.len() + cut].to_vec();
        let path = Path::new(OsStr::from_bytes(&rest[..cut]));
        let question = Question { below: true, ..Question::new(path, Operation::Enter) };
        (question, Some(Entered { base: Arc::clone(&here.base), below }))
    }
}

pub(super) fn check_path(path: &Path) -> Result<(), Error> {
    const { assert!(MAX_PATH == 4095) } // the message below says so
    let bytes = path.as_os_str().as_bytes();
    let wrong = match bytes.len() {
        0 => "a path must not be empty",
        length if length > MAX_PATH => "the path is longer than 4095 bytes",
        _ if bytes.contains(&0) => "a path must not hold a NUL",
        _ => return Ok(()),
    };
    Err(Cause::InvalidPath(wrong).into())
}
