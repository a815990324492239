//! Reading /proc. Every answer is optional: a chroot may have no /proc, or another namespace's.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What /proc/PID/stat says, as far as it is asked here. Source: proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Field 3: `Z` for a zombie, `X` for dead.
    pub(crate) state: u8,
    /// Field 20: how many threads are left, the main thread among them even as a zombie.
    pub(crate) threads: u64,
    /// Field 22: clock ticks from boot to start, by the clock of the *reader's* time namespace.
    pub(crate) start_time: u64,
}

impl Stat {
    /// The entry of a process: a pid as text, or "self".
    pub(crate) fn read(pid: &str) -> io::Result<Self> {
        // At once: the kernel writes it anew for every reader, and it has no size to go by.
        let mut line = [0; 2048];
        let length = File::open(format!("/proc/{pid}/stat"))?.read(&mut line)?;
        Self::parse(&line[..length]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // Field 2 is the command's name in parentheses, which may hold spaces, parentheses and
        // bytes that are no UTF-8: the fields that can be told apart begin behind the last ")".
        let name_end = line.iter().rposition(|&byte| byte == b')')?;
        let fields = std::str::from_utf8(&line[name_end + 1..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let threads = fields.nth(20 - 3 - 1)?.parse().ok()?;
        let start_time = fields.nth(22 - 20 - 1)?.parse().ok()?;
        Some(Self { state, threads, start_time })
    }

    /// Whether nothing of the process runs any more. A zombie main thread alone is no proof: other
    /// threads may live on.
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

/// The inode of a process's namespace: "pid" or "time". Source: namespaces(7).
pub(crate) fn namespace(pid: &str, kind: &str) -> io::Result<u64> {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|namespace| namespace.ino())
}

/// The process's ids, one for each pid namespace that it is in, from that of this /proc to its own.
/// Source: `NSpid` in proc_pid_status(5).
pub(crate) fn ids(pid: &str) -> io::Result<Vec<i32>> {
    let status = fs::read(format!("/proc/{pid}/status"))?;
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"));
    let line = std::str::from_utf8(line.unwrap_or_default()).unwrap_or_default();
    Ok(line.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect())
}

/// Whether /proc is that of our own pid namespace, so that our pids mean there what they mean here.
/// In a namespace entered without mounting it anew, /proc/PID is some other process.
pub(crate) fn is_ours() -> bool {
    ids("self").is_ok_and(|ids| ids.len() == 1)
}

/// Whether /proc lists every process, also to those who may not look into it. Source: `hidepid` in
/// proc(5), proc_pid_mountinfo(5).
pub(crate) fn shows_everybody() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // A later mount covers an earlier one.
    let proc = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    proc.is_some_and(|line| line.contains(" - proc ") && !line.contains("hidepid="))
}

/// The processes listed in /proc, as text.
pub(crate) fn processes() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// What a thread waits on in msgsnd or msgrcv.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The queue with this id.
    On(i32),
    /// A queue that this process may not know.
    Somewhere,
}

/// What the threads of this IPC namespace wait on in msgsnd or msgrcv, as far as they are listed in
/// /proc and this process may look into them.
pub(crate) fn waiting() -> Vec<Waiting> {
    let ipc_namespace = |folder: &Path| fs::metadata(folder.join("ns/ipc")).map(|ns| ns.ino()).ok();
    // A thread can be in a namespace of its own: unshare(2).
    let here = ipc_namespace(Path::new("/proc/thread-self"));
    let is_elsewhere =
        |folder: &Path| here.zip(ipc_namespace(folder)).is_some_and(|(here, there)| here != there);
    let mut found = Vec::new();
    for pid in processes().unwrap_or_default() {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let folder = thread.path();
            found.extend(waiting_thread(&folder).filter(|_| !is_elsewhere(&folder)));
        }
    }
    found
}

fn waiting_thread(folder: &Path) -> Option<Waiting> {
    // Takes the right to trace the thread (proc_pid_syscall(5)), and a kernel that has the file.
    match fs::read_to_string(folder.join("syscall")) {
        Ok(line) => waits_on(&line).map(Waiting::On),
        // Takes less, and tells less: proc_pid_wchan(5).
        Err(_) => fs::read_to_string(folder.join("wchan"))
            .is_ok_and(|place| ["do_msgsnd", "do_msgrcv"].iter().any(|f| place.contains(f)))
            .then_some(Waiting::Somewhere),
    }
}

/// The queue in a line of /proc/PID/syscall: a number, then the arguments in hexadecimal.
fn waits_on(line: &str) -> Option<i32> {
    let mut words = line.split_ascii_whitespace();
    let call: libc::c_long = words.next()?.parse().ok()?;
    let argument = match call {
        libc::SYS_msgsnd | libc::SYS_msgrcv => 0,
        // Of 32-bit programs: msgsnd and msgrcv, and ipc(2), whose first argument says what to do.
        // Source: arch/x86/entry/syscalls/syscall_32.tbl. The same numbers of 64-bit programs are
        // not in use, or are of a call that does not wait (117, setresuid).
        400 | 401 if cfg!(target_arch = "x86_64") => 0,
        117 if cfg!(target_arch = "x86_64") => 1,
        _ => return None,
    };
    let id = u64::from_str_radix(words.nth(argument)?.trim_start_matches("0x"), 16).ok()?;
    // An int fills the lower half of its register.
    Some(id as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_that_a_thread_waits_on_is_the_first_argument_of_its_call() {
        let line = |call: libc::c_long| format!("{call} 0x18005 0x7f00 0x8 0x0 0x0 0x0 0x7ff 0x7f");
        assert_eq!(waits_on(&line(libc::SYS_msgrcv)), Some(0x18005));
        assert_eq!(waits_on(&line(libc::SYS_msgsnd)), Some(0x18005));
        assert_eq!(waits_on(&line(libc::SYS_read)), None);
        for other in ["running", "-1 0x7ffd 0x7f", "", "0", "x 0x1"] {
            assert_eq!(waits_on(other), None, "{other}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn thirty_two_bit_programs_wait_by_other_numbers() {
        assert_eq!(waits_on("401 0x7 0x1 0x8 0x0 0x0 0x0 0xff 0xf7"), Some(7));
        assert_eq!(waits_on("117 0xc 0x7 0x8 0x0 0xff 0x0 0xff 0xf7"), Some(7));
    }

    #[test]
    fn a_command_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) R 7 (\xff) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 8765 0 0\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat, Stat { state: b'S', threads: 9, start_time: 8765 });
    }

    #[test]
    fn garbage_is_no_stat() {
        for line in [&b""[..], b"1", b"1 (x", b"1 (x)", b"1 (x) S 1 2 3", b"1 (x) \xff"] {
            assert_eq!(Stat::parse(line), None);
        }
    }
}
