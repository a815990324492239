//! POSIX ACLs, acl(5): a file's mode shows their mask in place of the group's rights.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The rights (rwx bits) that a file's ACL gives to all but the owner. None: it has no ACL.
pub fn common_rights(file: impl AsFd) -> Option<u32> {
    const OWNER: [u8; 2] = 1_u16.to_le_bytes();
    // Room for 63 entries. A larger buffer costs a child of the server more pages of its stack.
    let (name, mut acl) = (c"system.posix_acl_access".as_ptr(), [0; 4 + 63 * 8]);
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the buffer outlives the call and is as long as said; getxattr(2).
    let read = unsafe { libc::fgetxattr(fd, name, acl.as_mut_ptr().cast(), acl.len()) };
    let Ok(length) = usize::try_from(read) else {
        // Not a nix::Errno, whose table would be another page of code.
        let errno = io::Error::last_os_error().raw_os_error();
        let has_none = matches!(errno, Some(libc::ENODATA | libc::EOPNOTSUPP));
        return (!has_none).then_some(0); // longer than the buffer, or unknown
    };
    // A version, and then for each entry a tag, its rights and a uid or gid.
    let entries = acl[4..length.max(4)].chunks_exact(8);
    let rights = entries.filter(|entry| entry[..2] != OWNER).map(|entry| u32::from(entry[2] & 7));
    Some(rights.reduce(|one, other| one & other).unwrap_or(0))
}

/// A file's mode; but if it has an ACL, group and others have only what the ACL lets everybody do.
/// So nobody gets more rights by a copy of this mode, which has no ACL.
/// `lists_acls`: the list of extended attributes tells whether it has one. A new child asks that at
/// half the price, but not every file system tells, and files in /sys are changed by the question.
pub fn mode_without_acl(file: impl AsFd, mode: u32, lists_acls: bool) -> u32 {
    let is_private = mode & 0o077 == 0; // and so is the ACL's mask
    // SAFETY: without a buffer it tells the length of the list; listxattr(2).
    let list = || unsafe { libc::flistxattr(file.as_fd().as_raw_fd(), std::ptr::null_mut(), 0) };
    let has_none = is_private || lists_acls && list() == 0;
    let rights = if has_none { None } else { common_rights(&file) };
    rights.map_or(mode, |rights| mode & !0o077 | rights << 3 | rights)
}
