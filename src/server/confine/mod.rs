//! Limits what a child may do. It becomes the caller (uid from `admission`, groups from
//! `caller_groups`). Then Landlock limits it to what it has opened, and to /proc; the child of a
//! session stays limited like the server.

mod become_caller;
mod caller_groups;
mod own_proc_files;
mod sandbox;

pub(super) use become_caller::{Confined, become_caller};
pub(super) use caller_groups::{CallerGroups, GroupFinder, UnknownGroups};
pub(super) use own_proc_files::may_reveal_this_process;
pub(super) use sandbox::Sandbox;
