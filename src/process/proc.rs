//! Reading /proc. Every answer is optional: a chroot may have no /proc, or another namespace's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// What /proc/PID/stat says, as far as it is asked here. Source: proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Field 3: `Z` for a zombie, `X` for dead.
    pub(super) state: u8,
    /// Field 20: how many threads are left, the main thread among them even as a zombie.
    pub(super) threads: u64,
    /// Field 22: clock ticks from boot to start, by the clock of the *reader's* time namespace.
    pub(super) start_time: u64,
}

impl Stat {
    /// The entry of a process: a pid as text, or "self".
    pub(super) fn read(pid: &str) -> io::Result<Self> {
        let line = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&line).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
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
    pub(super) fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

/// The inode of a process's namespace: "pid" or "time". Source: namespaces(7).
pub(super) fn namespace(pid: &str, kind: &str) -> io::Result<u64> {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|namespace| namespace.ino())
}

/// The process's ids, one for each pid namespace that it is in, from that of this /proc to its own.
/// Source: `NSpid` in proc_pid_status(5).
pub(super) fn ids(pid: &str) -> io::Result<Vec<i32>> {
    let status = fs::read(format!("/proc/{pid}/status"))?;
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"));
    let line = std::str::from_utf8(line.unwrap_or_default()).unwrap_or_default();
    Ok(line.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect())
}

/// Whether /proc is that of our own pid namespace, so that our pids mean there what they mean here.
/// In a namespace entered without mounting it anew, /proc/PID is some other process.
pub(super) fn is_ours() -> bool {
    ids("self").is_ok_and(|ids| ids.len() == 1)
}

/// Whether /proc lists every process, also to those who may not look into it. Source: `hidepid` in
/// proc(5), proc_pid_mountinfo(5).
pub(super) fn shows_everybody() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // A later mount covers an earlier one.
    let proc = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    proc.is_some_and(|line| line.contains(" - proc ") && !line.contains("hidepid="))
}

/// The processes listed in /proc, as text.
pub(super) fn processes() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

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
