//! Limits what a child may do. It becomes the caller, and then Landlock limits it to what it has
//! opened, and to /proc; the child of a session stays limited like the server.

mod caller_groups;
mod own_proc_files;
mod sandbox;

use nix::errno::Errno;
use sysv_ipc::Uid;

use super::admission::Caller;
use crate::sys::credentials;

pub(super) use caller_groups::{CallerGroups, GroupFinder, UnknownGroups};
pub(super) use own_proc_files::may_reveal_this_process;
pub(super) use sandbox::Sandbox;

/// Proof that this process has no more rights than the caller or, if the server is not root's, than
/// the server's user: it acts as this user. Only such a process opens what a question names.
pub(crate) struct Confined(Uid);

impl Confined {
    pub(crate) fn user(&self) -> Uid {
        self.0
    }
}

/// Becomes the caller, if the server is root's. Only root's own requests keep capabilities.
pub(crate) fn become_caller(
    caller: Caller,
    server: Uid,
    groups: Option<&CallerGroups>,
) -> Result<Confined, Errno> {
    match (server.is_root(), caller.uid.is_root()) {
        (true, true) => {}
        (true, false) => {
            // The kernel counts this CPU time as the server's: let other processes go first.
            credentials::lower_priority();
            let CallerGroups { gid, supplementary, .. } = groups.ok_or(Errno::EPERM)?;
            credentials::become_user(caller.uid, *gid, supplementary)?;
        }
        (false, _) => credentials::drop_capabilities()?,
    }
    Ok(Confined(if server.is_root() { caller.uid } else { server }))
}
