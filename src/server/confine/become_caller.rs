//! Becoming the caller.

use nix::errno::Errno;

use super::caller_groups::CallerGroups;
use crate::server::admission::Caller;
use crate::sys::{credentials, geteuid};

/// Proof that this process has no more rights than the caller or, if the server is not root's, than
/// the server's user. Only such a process opens what a question names.
pub(crate) struct Confined(());

/// Becomes the caller, if this process is root's. Only root's own requests keep capabilities.
pub(crate) fn become_caller(
    caller: Caller,
    groups: Option<&CallerGroups>,
) -> Result<Confined, Errno> {
    match (geteuid().is_root(), caller.uid.is_root()) {
        (true, true) => {}
        (true, false) => {
            // The kernel counts this CPU time as the server's: let other processes go first.
            credentials::step_back();
            let CallerGroups { gid, supplementary, .. } = groups.ok_or(Errno::EPERM)?;
            credentials::become_user(caller.uid, *gid, supplementary)?;
        }
        (false, _) => credentials::drop_capabilities()?,
    }
    Ok(Confined(()))
}
