//! Files of /proc that tell of this very process, which may look into itself where others may not:
//! /proc/self/maps of a server's child shows where the server's memory lies.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use crate::sys::getpid;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::ownership::procfs as proc;

/// Whether an open file is one of /proc about this process, or cannot be told from one.
pub(crate) fn may_tell_of_this_process(file: &OwnedFd, device: u64) -> bool {
    if !fstatfs(file).is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC) {
        return false;
    }
    // Our number in another pid namespace's /proc is not known here: any number may be it.
    let numbers_are_ours =
        proc::is_ours() && fs::metadata("/proc").is_ok_and(|proc| proc.dev() == device);
    match fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        Ok(path) => names_process(&path, numbers_are_ours.then(|| getpid().as_raw())),
        Err(_) => true,
    }
}

/// Whether a path of /proc leads through this process, or through any if None, to more than
/// /proc/net, /proc/mounts and such, which are links to /proc/self/... and the same for many.
fn names_process(path: &Path, this: Option<i32>) -> bool {
    let names: Vec<_> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let is_process = |name: &str| match name.parse::<i32>() {
        Ok(number) => this.is_none_or(|this| this == number),
        Err(_) => false,
    };
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
    fn what_tells_of_a_process_is_told_from_what_is_the_same_for_all() {
        let names = |path: &str, this| names_process(Path::new(path), this);
        for own in ["/proc/42/maps", "/proc/42/task/43/smaps", "/proc/42", "/x/proc/42/cmdline"] {
            assert!(names(own, Some(42)), "{own}");
            assert!(names(own, None), "{own}");
            assert!(!names(own, Some(7)), "{own}");
        }
        for everybodys in ["/proc/42/net/dev", "/proc/42/mounts", "/proc/42/task/42/net/tcp"] {
            assert!(!names(everybodys, Some(42)), "{everybodys}");
        }
        assert!(!names("/proc/sys/kernel/hostname", None));
    }
}
