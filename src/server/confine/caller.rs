//! Becoming the caller.

use std::path::Path;

use nix::errno::Errno;

use super::group_cache::GroupCache;
use crate::server::admission::Admitted;
use crate::sys::{credentials, geteuid};
use crate::wire::Operation;

/// An admitted request, in a process that has no more rights than its caller; or no more than the
/// server's user, if the server is not root's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confined<'a>(Admitted<'a>);

impl<'a> Confined<'a> {
    pub(crate) fn path(&self) -> &'a Path {
        self.0.path
    }

    pub(crate) fn operation(&self) -> Operation<'a> {
        self.0.operation
    }
}

/// Becomes the caller, if this process is root's. Only root's own requests keep capabilities.
///
/// Unmaps the group cache first, so that no caller can read or change it.
pub(crate) fn become_caller(
    request: Admitted<'_>,
    groups: Option<GroupCache>,
) -> Result<Confined<'_>, Errno> {
    let caller = request.caller;
    match (geteuid().is_root(), caller.uid.is_root()) {
        (true, true) => {}
        (true, false) => {
            let cache = groups.ok_or(Errno::EPERM)?;
            let groups = cache.groups_of(caller.uid, caller.gid)?;
            drop(cache);
            credentials::become_user(caller.uid, caller.gid, &groups)?;
        }
        (false, _) => credentials::drop_capabilities()?,
    }
    Ok(Confined(request))
}
