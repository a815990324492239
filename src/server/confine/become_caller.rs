//! Becoming the caller.

use std::path::Path;

use nix::errno::Errno;

use super::caller_groups::CallerGroups;
use crate::server::admission::Admitted;
use crate::sys::{credentials, geteuid};
use crate::wire::Operation;

/// An admitted request, in a process that has no more rights than the caller or, if the server is
/// not root's, than the server's user.
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
pub(crate) fn become_caller<'a>(
    request: Admitted<'a>,
    groups: Option<&CallerGroups>,
) -> Result<Confined<'a>, Errno> {
    let caller = request.caller.uid;
    match (geteuid().is_root(), caller.is_root()) {
        (true, true) => {}
        (true, false) => {
            let CallerGroups { gid, supplementary, .. } = groups.ok_or(Errno::EPERM)?;
            credentials::become_user(caller, *gid, supplementary)?;
        }
        (false, _) => credentials::drop_capabilities()?,
    }
    Ok(Confined(request))
}
