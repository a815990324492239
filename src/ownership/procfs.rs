//! Reading /proc. Any read may fail: a chroot may have no /proc, or that of another namespace.
//!
//! Many files of another process, such as `stat`, `wchan` and `ns/pid`, wait while that process is
//! in execve(2), where a file system that does not answer holds it for ever. Read them by
//! [`in_time`]. The files `status` and `comm` and the list of threads never wait. Source:
//! `exec_update_lock` in fs/proc/base.c.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys;

/// What `read` returns for a process. None: the process does not let itself be read.
///
/// A thread reads. If it takes too long, it is left behind, and ends with that process or with this
/// one. A process that a thread still waits for is not read again.
pub(super) fn in_time<T: Send + 'static>(
    pid: &str,
    read: impl FnOnce(&str) -> T + Send + 'static,
) -> Option<T> {
    /// A user can have thousands of processes that do not let themselves be read.
    const MOST_LEFT: usize = 64;
    static LEFT_BEHIND: Mutex<Vec<(String, JoinHandle<()>)>> = Mutex::new(Vec::new());
    // Not locked while this waits: a child that is forked meanwhile would find it locked for ever.
    let lock = || LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
    let time_limit = {
        let mut left = lock();
        left.retain(|(_, thread)| !thread.is_finished());
        if left.len() >= MOST_LEFT || left.iter().any(|(other, _)| other == pid) {
            return None;
        }
        // The more processes do not answer, the shorter, or a user could make it take minutes.
        (Duration::from_secs(1) / (1 + left.len() as u32)).max(Duration::from_millis(10))
    };
    let (sender, receiver) = mpsc::channel();
    let of = pid.to_owned();
    // Sending fails once nobody waits for the answer.
    let run = move || sender.send(read(&of)).unwrap_or(());
    let thread = thread::Builder::new().spawn(run).ok()?;
    let answer = receiver.recv_timeout(time_limit).ok();
    if answer.is_none() {
        lock().push((pid.to_owned(), thread));
    }
    answer
}

/// The fields of /proc/PID/stat that mqfs uses. Source: proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Field 3: `Z` for a zombie, `X` for dead.
    pub(crate) state: u8,
    /// Field 20: the number of threads, which includes a main thread that is a zombie.
    pub(crate) threads: u64,
    /// Field 22: clock ticks from boot to start, by the clock of the *reader's* time namespace.
    pub(crate) start_time: u64,
}

impl Stat {
    /// Reads the entry of a process: a pid as text, or "self".
    pub(crate) fn read(pid: &str) -> io::Result<Self> {
        Self::read_from(File::open(format!("/proc/{pid}/stat"))?)
    }

    pub(crate) fn read_from(mut file: File) -> io::Result<Self> {
        // One read, for a consistent state: the kernel writes the line anew for each read.
        let mut line = [0; 2048];
        let length = file.read(&mut line)?;
        Self::parse(&line[..length]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // Field 2 is the command's name in parentheses. It may contain spaces, parentheses and
        // bytes that are not UTF-8, so field 3 begins after the last ")".
        let name_end = line.iter().rposition(|&byte| byte == b')')?;
        let fields = std::str::from_utf8(&line[name_end + 1..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let threads = fields.nth(20 - 3 - 1)?.parse().ok()?;
        let start_time = fields.nth(22 - 20 - 1)?.parse().ok()?;
        Some(Self { state, threads, start_time })
    }

    /// Whether no thread of the process runs: others may run on if the main one is a zombie.
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

/// The inode of a process's namespace: "pid" or "time". Source: namespaces(7).
pub(crate) fn namespace(pid: &str, kind: &str) -> io::Result<u64> {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|namespace| namespace.ino())
}

/// The inode of this process's pid namespace; 0 if neither /proc nor the kernel tells.
pub(super) fn own_pid_namespace() -> u64 {
    namespace("self", "pid").ok().or_else(sys::own_pid_namespace).unwrap_or(0)
}

/// The process's pids: one for each pid namespace that it is in, from that of this /proc down to
/// its own. Source: `NSpid` in proc_pid_status(5).
pub(crate) fn ids(pid: &str) -> io::Result<Vec<i32>> {
    Ok(numbers(&fs::read(format!("/proc/{pid}/status"))?, "NSpid:"))
}

/// The numbers in a line of /proc/PID/status. The first line, the command's name, cannot look like
/// another: the kernel escapes line breaks.
pub(crate) fn numbers<T: FromStr>(status: &[u8], field: &str) -> Vec<T> {
    let mut lines = status.split(|&byte| byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(field.as_bytes())).unwrap_or_default();
    let words = std::str::from_utf8(line).unwrap_or_default().split_ascii_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Whether /proc shows our own pid namespace, so that a pid means the same process there and here.
/// A process that enters a pid namespace and does not mount /proc again sees other pids there.
pub(crate) fn is_ours() -> bool {
    ids("self").is_ok_and(|ids| ids.len() == 1)
}

/// Whether /proc lists every process to every user. Source: `hidepid` in proc(5),
/// proc_pid_mountinfo(5).
pub(crate) fn shows_everybody() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The last mount hides earlier ones.
    let proc = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    proc.is_some_and(|line| line.contains(" - proc ") && !line.contains("hidepid="))
}

/// The pids of the processes listed in /proc, as text.
pub(crate) fn processes() -> io::Result<Vec<String>> {
    let names: io::Result<Vec<_>> = fs::read_dir("/proc")?.map(|it| Ok(it?.file_name())).collect();
    let is_pid = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    Ok(names?.into_iter().filter_map(|name| name.into_string().ok()).filter(is_pid).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) R 7 (\xff) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 8765 0 0\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat, Stat { state: b'S', threads: 9, start_time: 8765 });
        for line in [&b""[..], b"1", b"1 (x", b"1 (x)", b"1 (x) S 1 2 3", b"1 (x) \xff"] {
            assert_eq!(Stat::parse(line), None);
        }
    }
}
