//! Threads that wait in msgsnd or msgrcv, and on which queue.
//!
//! The status of a queue does not show them: a thread that waits has neither sent nor received yet.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::procfs;

/// What a thread waits on in msgsnd or msgrcv.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    On(i32),
    /// A queue, but this process may not see which.
    Somewhere,
}

/// The waits in msgsnd and msgrcv of all threads of this IPC namespace that /proc shows to this
/// process. A process that cannot be read now may wait anywhere.
pub(super) fn waiting() -> Vec<Waiting> {
    let ipc_namespace =
        |process: &Path| fs::metadata(process.join("ns/ipc")).map(|ns| ns.ino()).ok();
    // A thread can be in another IPC namespace than its process: unshare(2).
    let here = ipc_namespace(Path::new("/proc/thread-self"));
    let is_elsewhere = move |process: &Path| {
        here.zip(ipc_namespace(process)).is_some_and(|(here, there)| here != there)
    };
    let threads_of = move |pid: &str| -> Vec<_> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let wait = |process: &Path| waiting_thread(process).filter(|_| !is_elsewhere(process));
        threads.filter_map(|thread| wait(&thread.path())).collect()
    };
    let seen = |pid: &String| procfs::in_time(pid, threads_of).unwrap_or(vec![Waiting::Somewhere]);
    procfs::processes().unwrap_or_default().iter().flat_map(seen).collect()
}

fn waiting_thread(process: &Path) -> Option<Waiting> {
    // Needs the right to trace the thread, and a kernel with this file: proc_pid_syscall(5).
    match fs::read_to_string(process.join("syscall")) {
        Ok(line) => waits_on(&line).map(Waiting::On),
        // Needs no such right, but does not name the queue: proc_pid_wchan(5).
        Err(_) => fs::read_to_string(process.join("wchan"))
            .is_ok_and(|place| ["do_msgsnd", "do_msgrcv"].iter().any(|f| place.contains(f)))
            .then_some(Waiting::Somewhere),
    }
}

/// The queue in a line of /proc/PID/syscall: the call's number, then its arguments in hexadecimal.
fn waits_on(line: &str) -> Option<i32> {
    let mut words = line.split_ascii_whitespace();
    let call: libc::c_long = words.next()?.parse().ok()?;
    let argument = match call {
        libc::SYS_msgsnd | libc::SYS_msgrcv => 0,
        // 32-bit programs: msgsnd, msgrcv, and ipc(2), whose first argument selects the call.
        // Source: arch/x86/entry/syscalls/syscall_32.tbl. In 64-bit programs these numbers are
        // unused, or belong to a call that does not wait (117, setresuid).
        400 | 401 if cfg!(target_arch = "x86_64") => 0,
        117 if cfg!(target_arch = "x86_64") => 1,
        _ => return None,
    };
    let id = u64::from_str_radix(words.nth(argument)?.trim_start_matches("0x"), 16).ok()?;
    // An int occupies the lower half of its register.
    Some(id as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_that_a_thread_waits_on_is_the_first_argument_of_its_call() {
        let line = format!("{} 0x18005 0x7f00 0x8 0x0 0x0 0x0 0x7ff 0x7f", libc::SYS_msgrcv);
        assert_eq!(waits_on(&line), Some(0x18005));
        for other in ["running", "-1 0x7ffd 0x7f", "", "0", "x 0x1"] {
            assert_eq!(waits_on(other), None, "{other}");
        }
        // 32-bit programs.
        if cfg!(target_arch = "x86_64") {
            assert_eq!(waits_on("401 0x7 0x1 0x8 0x0 0x0 0x0 0xff 0xf7"), Some(7));
            assert_eq!(waits_on("117 0xc 0x7 0x8 0x0 0xff 0x0 0xff 0xf7"), Some(7));
        }
    }
}
