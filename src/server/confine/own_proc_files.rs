//! Files of /proc about the child itself. A process may read its own such files, others may not:
//! /proc/self/maps in a child would reveal where the server's memory lies.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::ownership::procfs;
use crate::sys::getpid;

/// Whether an open file is in /proc and may be about this process.
pub(crate) fn may_reveal_this_process(file: &OwnedFd, device: u64) -> bool {
    if !fstatfs(file).is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC) {
        return false;
    }
    // In the /proc of another pid namespace, any process may be this one.
    let shows_our_pids =
        procfs::is_ours() && fs::metadata("/proc").is_ok_and(|proc| proc.dev() == device);
    match fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        Ok(path) => is_about_process(&path, shows_our_pids.then(|| getpid().as_raw())),
        Err(_) => true,
    }
}

/// Whether a path in /proc leads through this process (through any, if None) to a file of its own.
/// /proc/net, /proc/mounts and such are links to /proc/self/..., the same for many.
fn is_about_process(path: &Path, this: Option<i32>) -> bool {
    let names: Vec<_> = path.iter().filter_map(OsStr::to_str).collect();
    let is_process =
        |name: &str| name.parse::<i32>().is_ok_and(|pid| this.is_none_or(|this| this == pid));
    names.iter().position(|name| is_process(name)).is_some_and(|process| {
        !matches!(
            &names[process + 1..],
            ["net", ..]
                | ["mounts" | "mountinfo" | "mountstats"]
                | ["task", _, "net", ..]
                | ["task", _, "mounts" | "mountinfo"]
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_about_one_process_are_told_from_files_that_are_the_same_for_all() {
        let about = |path: &str, this| is_about_process(Path::new(path), this);
        for own in ["/proc/42/maps", "/proc/42/task/43/smaps", "/proc/42", "/x/proc/42/cmdline"] {
            assert!(about(own, Some(42)), "{own}");
            assert!(about(own, None), "{own}");
            assert!(!about(own, Some(7)), "{own}");
        }
        for everybodys in ["/proc/42/net/dev", "/proc/42/mounts", "/proc/42/task/42/net/tcp"] {
            assert!(!about(everybodys, Some(42)), "{everybodys}");
        }
        assert!(!about("/proc/sys/kernel/hostname", None));
    }
}
