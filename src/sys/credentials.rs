//! Becoming another user for good, with no rights left of the old one.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{setgroups, setresgid, setresuid};
use sysv_ipc::{Gid, Uid};

use super::geteuid;

/// Becomes another user, irrevocably: supplementary groups, then group, then user, because each
/// step takes away a right that the step before needs. Then it drops all capabilities, and hides
/// this process's memory from others of that user. `EPERM`: the process is not privileged. After
/// an error, some steps may be done already: end the process.
pub fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), Errno> {
    let groups: Vec<_> = groups.iter().map(|&gid| nix_gid(gid)).collect();
    setgroups(&groups)?;
    let (new_gid, new_uid) = (nix_gid(gid), nix::unistd::Uid::from_raw(uid.as_raw()));
    setresgid(new_gid, new_gid, new_gid)?;
    setresuid(new_uid, new_uid, new_uid)?;
    // A change of uid sets this flag from fs.suid_dumpable: proc_sys_fs(5).
    hide_memory()?;
    drop_capabilities()?;
    // Verify that there is no way back: setuid(2), NOTES.
    let root = nix::unistd::Uid::from_raw(0);
    if geteuid() != uid || (!uid.is_root() && setresuid(root, new_uid, new_uid).is_ok()) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

fn nix_gid(gid: Gid) -> nix::unistd::Gid {
    nix::unistd::Gid::from_raw(gid.as_raw())
}

/// Lets others have more of the CPU: nice(2). By 5, many clients at once would get a third less.
/// Nothing depends on it, so it may fail.
pub fn lower_priority() {
    // SAFETY: takes an integer.
    let _ = unsafe { libc::nice(2) };
}

/// Gives up every capability; the ambient ones go with the inheritable ones. A change of uid drops
/// them too, unless securebits forbid it: capabilities(7).
pub fn drop_capabilities() -> Result<(), Errno> {
    /// `struct __user_cap_header_struct`, capget(2).
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    static NONE: [u32; 6] = [0; 6]; // two `struct __user_cap_data_struct`
    let mut header = Header { version: VERSION, pid: 0 };
    let mut before = NONE;
    // SAFETY: both structures have the size of this version, and outlive the call; capget(2).
    let known = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut before) };
    if known == 0 && before == NONE {
        return Ok(()); // asking is cheaper than setting
    }
    // SAFETY: as above; capset(2).
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const NONE) })
        .map(drop)
}

/// Hides this process's memory and descriptors from other processes of its user: nobody can trace
/// it, its files in /proc belong to root, and it leaves no core dump. Children inherit this.
/// Source: `PR_SET_DUMPABLE`, prctl(2).
pub fn hide_memory() -> Result<(), Errno> {
    prctl::set_dumpable(false)
}

/// Replaces the session keyring by an empty one: the users that children become must not get the
/// keys of the session that started this process. `ENOSYS`: a kernel without keys. Source:
/// keyctl_join_session_keyring(3).
pub fn leave_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1; // linux/keyctl.h
    // SAFETY: takes a number and, for a keyring without a name, a null pointer; keyctl(2).
    Errno::result(unsafe {
        libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    })
    .map(drop)
}

/// Adds the restrictions of a Landlock ruleset to those of this thread, and closes it. `E2BIG`: it
/// has 16 already. `ENOMEM`: no memory. Source: landlock_restrict_self(2).
pub fn enter_landlock(ruleset: OwnedFd) -> Result<(), Errno> {
    let ruleset = libc::c_long::from(ruleset.into_raw_fd());
    // SAFETY: takes two integers.
    let entered = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) };
    let entered = Errno::result(entered).map(drop);
    // SAFETY: the descriptor is ours; close(2). By syscall(2), as in exit_now.
    unsafe { libc::syscall(libc::SYS_close, ruleset) };
    entered
}

/// The uid that stands for every user without a number in this user namespace. None: all users have
/// numbers, so that uid is a user like others.
pub fn unknown_uid() -> Option<Uid> {
    Some(Uid::from_raw(overflow_id("uid"))).filter(|&uid| is_unknown_uid(uid))
}

/// Whether this uid may stand for any user without a number in this user namespace.
pub fn is_unknown_uid(uid: Uid) -> bool {
    uid.as_raw() == overflow_id("uid") && !maps_all("uid")
}

/// As [`unknown_uid`], for groups.
pub fn unknown_gid() -> Option<Gid> {
    Some(overflow_gid()).filter(|_| !maps_all("gid"))
}

pub fn overflow_gid() -> Gid {
    Gid::from_raw(overflow_id("gid"))
}

/// Whether this user namespace has a number for each of the 2^32 - 1 users or groups. If /proc
/// cannot tell, it counts as one that has not.
fn maps_all(kind: &str) -> bool {
    let map = std::fs::read_to_string(format!("/proc/self/{kind}_map")).unwrap_or_default();
    // Its ranges do not overlap, and the third number is a range's length: user_namespaces(7).
    let length = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
    map.lines().filter_map(length).sum::<u64>() == u64::from(u32::MAX)
}

/// Source: /proc/sys/kernel/overflowuid and overflowgid, user_namespaces(7). They are read once:
/// clients ask for each request, and nobody changes them while programs run.
fn overflow_id(kind: &str) -> u32 {
    static IDS: [OnceLock<u32>; 2] = [const { OnceLock::new() }; 2];
    *IDS[usize::from(kind == "gid")].get_or_init(|| {
        let file = format!("/proc/sys/kernel/overflow{kind}");
        std::fs::read_to_string(file).unwrap_or_default().trim().parse().unwrap_or(65534)
    })
}
