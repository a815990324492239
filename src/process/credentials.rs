//! Becoming another user, for good.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, setgroups, setresgid, setresuid};

/// Becomes another user, irrevocably: supplementary groups, then group, then user, since each needs
/// a right that the next takes away. Afterwards the kernel checks every access as that user's.
///
/// # Errors
/// `EPERM`: the process is not privileged. Anything may be half done then: end the process.
pub fn become_user(uid: Uid, gid: Gid) -> Result<(), Errno> {
    setgroups(&groups_of(uid, gid)?)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // Never serve with rights that were to be given up: setuid(2), NOTES.
    if geteuid() != uid || (!uid.is_root() && setresuid(Uid::from_raw(0), uid, uid).is_ok()) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// The user's groups by the group database, with `gid`; just that where the user is unknown.
fn groups_of(uid: Uid, gid: Gid) -> Result<Vec<Gid>, Errno> {
    let user = match User::from_uid(uid) {
        // A root folder without a user database knows nobody: getpwuid(3), ERRORS.
        Err(Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR) => None,
        found => found?,
    };
    match user {
        Some(user) => {
            let name = CString::new(user.name).map_err(|_| Errno::EINVAL)?;
            getgrouplist(&name, gid)
        }
        None => Ok(vec![gid]),
    }
}

/// The uid that stands for every user without a mapping into this user namespace.
///
/// Source: /proc/sys/kernel/overflowuid, user_namespaces(7).
pub fn overflow_uid() -> Uid {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    Uid::from_raw(text.trim().parse().unwrap_or(65534))
}
