//! What a child may still do: it acts as the caller, and Landlock limits it to what it has opened.

mod caller;
mod caller_groups;
mod own_proc_files;
mod sandbox;

pub(super) use caller::{Confined, become_caller};
pub(super) use caller_groups::{CallerGroups, GroupFinder, UnknownGroups};
pub(super) use own_proc_files::may_reveal_this_process;
pub(super) use sandbox::{Sandbox, Sealed};
