//! Becoming another user, for good, with nothing left of what one was.

use std::ffi::CString;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{User, getgrouplist, setgroups, setresgid, setresuid};
use sysv_ipc::{Gid, Uid};

use super::{getegid, geteuid};

/// Becomes another user, irrevocably: supplementary groups, then group, then user, since each needs
/// a right that the next takes away; then no capability is left, and no process of that user may
/// look into this one. Afterwards the kernel checks every access as that user's.
///
/// # Errors
/// `EPERM`: the process is not privileged. Anything may be half done then: end the process.
pub fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), Errno> {
    let groups: Vec<_> = groups.iter().map(|&gid| nix_gid(gid)).collect();
    setgroups(&groups)?;
    let (new_gid, new_uid) = (nix_gid(gid), nix::unistd::Uid::from_raw(uid.as_raw()));
    setresgid(new_gid, new_gid, new_gid)?;
    setresuid(new_uid, new_uid, new_uid)?;
    // What another uid means for this flag is for fs.suid_dumpable to say: proc_sys_fs(5).
    close_memory()?;
    drop_capabilities()?;
    // Never serve with rights that were to be given up: setuid(2), NOTES.
    let root = nix::unistd::Uid::from_raw(0);
    if geteuid() != uid || (!uid.is_root() && setresuid(root, new_uid, new_uid).is_ok()) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

fn nix_gid(gid: Gid) -> nix::unistd::Gid {
    nix::unistd::Gid::from_raw(gid.as_raw())
}

/// Loads what the C library looks users up with, so that no child has to: nss(5).
pub fn load_name_services() {
    let _ = groups_of(geteuid(), getegid());
}

/// The user's groups by the group database, with `gid`; just that where the user is unknown.
pub fn groups_of(uid: Uid, gid: Gid) -> Result<Vec<Gid>, Errno> {
    let user = match User::from_uid(uid.as_raw().into()) {
        // A root folder without a user database knows nobody: getpwuid(3), ERRORS.
        Err(Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR) => None,
        found => found?,
    };
    match user {
        Some(user) => {
            let name = CString::new(user.name).map_err(|_| Errno::EINVAL)?;
            let groups = getgrouplist(&name, nix_gid(gid))?;
            Ok(groups.iter().map(|gid| Gid::from_raw(gid.as_raw())).collect())
        }
        None => Ok(vec![gid]),
    }
}

/// Gives up every capability, and with the inheritable ones the ambient. A change of uid drops them
/// too, unless securebits say otherwise: capabilities(7).
///
/// # Errors
/// None are known: fewer are always allowed.
pub fn drop_capabilities() -> Result<(), Errno> {
    /// `struct __user_cap_header_struct`, capget(2).
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    // Two `struct __user_cap_data_struct`, of which every field is empty.
    let none = [0_u32; 6];
    // SAFETY: both structures are of the size that this version has, and outlive the call; capset(2).
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const none) })
        .map(drop)
}

/// Keeps other processes of the same user out of this one's memory and descriptors: it cannot be
/// traced, its files in /proc are root's, and it leaves no core. Children inherit it.
///
/// Source: `PR_SET_DUMPABLE`, prctl(2).
///
/// # Errors
/// None are known.
pub fn close_memory() -> Result<(), Errno> {
    prctl::set_dumpable(false)
}

/// Leaves the keys of the session that this process was started in, for a new and empty one, so that
/// they are not for those whom its children become. Source: keyctl_join_session_keyring(3).
///
/// # Errors
/// `ENOSYS`: a kernel without keys. `EDQUOT`.
pub fn leave_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1; // linux/keyctl.h
    // SAFETY: takes a number and, for a keyring without a name, a null pointer; keyctl(2).
    Errno::result(unsafe {
        libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    })
    .map(drop)
}

/// The gid that stands for every group without a mapping into this user namespace; None where all
/// have one, and it is a group like others.
///
/// Source: /proc/sys/kernel/overflowgid and /proc/self/gid_map, user_namespaces(7).
pub fn overflow_gid() -> Option<Gid> {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    if map.split_whitespace().eq(["0", "0", "4294967295"]) {
        return None;
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowgid").unwrap_or_default();
    Some(Gid::from_raw(text.trim().parse().unwrap_or(65534)))
}

/// The uid that stands for every user without a mapping into this user namespace.
///
/// Source: /proc/sys/kernel/overflowuid, user_namespaces(7).
pub fn overflow_uid() -> Uid {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    Uid::from_raw(text.trim().parse().unwrap_or(65534))
}
