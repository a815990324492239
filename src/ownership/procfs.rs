//! Reading /proc. Any read may fail: a chroot may have no /proc, or that of another namespace.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

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

    /// Whether no thread of the process runs. A zombie main thread does not prove it: other
    /// threads may still run.
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

/// The inode of a process's namespace: "pid" or "time". Source: namespaces(7).
pub(crate) fn namespace(pid: &str, kind: &str) -> io::Result<u64> {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|namespace| namespace.ino())
}

/// The process's pids: one for each pid namespace that it is in, from that of this /proc down to
/// its own.
/// Source: `NSpid` in proc_pid_status(5).
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
