//! What a directory holds, and what one thing is: for people, and as JSON.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{major, minor};
use nix::unistd::{Gid, Group, Uid, User};
use serde_json::{Value, json};

use super::{Opts, Stop};
use crate::cli::FAILED;
use crate::client::{Client, DirEntry, Error, Metadata};
use crate::process::clock::local_offset;
use crate::text::printable;
use crate::wire::Kind;

pub(super) fn run(opts: &Opts, client: &Client) -> ExitCode {
    let (mut status, mut names) = (0, Names::default());
    for (i, path) in opts.paths.iter().enumerate() {
        let shown = match opts.stat {
            true => {
                client.symlink_metadata(path).map(|entry| opts.show_one(&entry, path, &mut names))
            }
            false => opts.list(client, path, i, &mut names),
        };
        let shown = shown
            .map_err(Stop::Source)
            .and_then(|text| io::stdout().lock().write_all(text.as_bytes()).map_err(Stop::Sink));
        match shown {
            Ok(()) => {}
            Err(Stop::Sink(error)) => return opts.sink_failed(&error),
            Err(Stop::Source(error)) => match opts.failed(path, &error) {
                Some(exit) => return exit,
                None => status = FAILED,
            },
        }
    }
    ExitCode::from(status)
}

impl Opts {
    fn show_one(&self, entry: &DirEntry, path: &OsStr, names: &mut Names) -> String {
        if self.json { format!("{}\n", to_json(entry, path)) } else { details(entry, path, names) }
    }

    fn list(
        &self,
        client: &Client,
        path: &OsStr,
        index: usize,
        names: &mut Names,
    ) -> Result<String, Error> {
        let entries = client.read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
        let mut text = String::new();
        if self.json {
            for entry in &entries {
                let _ = writeln!(text, "{}", to_json(entry, path));
            }
            return Ok(text);
        }
        if self.paths.len() > 1 {
            let _ = writeln!(text, "{}{}:", if index > 0 { "\n" } else { "" }, printable(path));
        }
        let rows: Vec<_> = entries.iter().map(|entry| row(entry, path, names)).collect();
        let mut widths = [0; COLUMNS];
        for (cells, _) in &rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        let [mode, links, user, group, size, time] = widths;
        for ([a, b, c, d, e, f], name) in &rows {
            let _ = writeln!(
                text,
                "{a:mode$} {b:>links$} {c:user$} {d:group$} {e:>size$} {f:>time$} {name}"
            );
        }
        Ok(text)
    }
}

const COLUMNS: usize = 6;

/// A line of `ls -l`.
fn row(entry: &DirEntry, path: &OsStr, names: &mut Names) -> ([String; COLUMNS], String) {
    let metadata = entry.metadata();
    let name = if entry.name().is_empty() { path } else { entry.name() };
    let mut shown = printable(name).to_string();
    if let Some(target) = entry.target() {
        let _ = write!(shown, " -> {}", printable(target));
    }
    if metadata.kind() == Kind::Unknown {
        return (
            ["?????????? ", "?", "?", "?", "?", "?"].map(|cell| cell.trim().to_owned()),
            shown,
        );
    }
    let size = match metadata.kind() {
        Kind::CharacterDevice | Kind::BlockDevice => {
            format!("{}, {}", major(metadata.rdev()), minor(metadata.rdev()))
        }
        _ => metadata.len().to_string(),
    };
    let cells = [
        mode_letters(metadata),
        metadata.nlink().to_string(),
        names.user(metadata.uid()),
        names.group(metadata.gid()),
        size,
        short_time(metadata.mtime().0),
    ];
    (cells, shown)
}

/// What stat(1) would show.
fn details(entry: &DirEntry, path: &OsStr, names: &mut Names) -> String {
    let metadata = entry.metadata();
    let mut file = printable(path).to_string();
    if let Some(target) = entry.target() {
        let _ = write!(file, " -> {}", printable(target));
    }
    let (uid, gid) = (metadata.uid(), metadata.gid());
    let (user, group) = (names.user(uid), names.group(gid));
    let (device, inode) = (metadata.dev(), metadata.ino());
    format!(
        "  File: {file}\n  Size: {}  Kind: {}\n  Mode: {:04o} ({})  Uid: {uid} ({user})  \
         Gid: {gid} ({group})\n  Device: {},{}  Inode: {inode}  Links: {}\n  Modified: {}\n",
        metadata.len(),
        kind_name(metadata.kind()),
        metadata.mode() & 0o7777,
        mode_letters(metadata),
        major(device),
        minor(device),
        metadata.nlink(),
        long_time(metadata.mtime()),
    )
}

fn to_json(entry: &DirEntry, path: &OsStr) -> Value {
    let metadata = entry.metadata();
    let lossy = |text: &OsStr| text.to_string_lossy().into_owned();
    let mut object = json!({
        "path": lossy(path),
        "name": lossy(entry.name()),
        "kind": kind_name(metadata.kind()),
        "mode": format!("{:04o}", metadata.mode() & 0o7777),
        "uid": metadata.uid(),
        "gid": metadata.gid(),
        "links": metadata.nlink(),
        "size": metadata.len(),
        "mtime": metadata.mtime().0,
        "mtime_nsec": metadata.mtime().1,
        "device": metadata.dev(),
        "inode": metadata.ino(),
    });
    if entry.name().to_str().is_none() {
        object["name_hex"] = json!(hex(entry.name().as_bytes())); // JSON has text alone
    }
    if let Some(target) = entry.target() {
        object["target"] = json!(lossy(target.as_os_str()));
    }
    object
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Regular => "regular file",
        Kind::Directory => "directory",
        Kind::Link => "symbolic link",
        Kind::Fifo => "FIFO",
        Kind::Socket => "socket",
        Kind::CharacterDevice => "character device",
        Kind::BlockDevice => "block device",
        Kind::Unknown => "unknown",
    }
}

/// `drwxr-xr-x`.
fn mode_letters(metadata: &Metadata) -> String {
    let (mode, mut letters) = (metadata.mode(), String::with_capacity(10));
    letters.push(match metadata.kind() {
        Kind::Regular => '-',
        Kind::Directory => 'd',
        Kind::Link => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharacterDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Unknown => '?',
    });
    for (shift, special, marks) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        letters.push(if mode >> shift & 4 != 0 { 'r' } else { '-' });
        letters.push(if mode >> shift & 2 != 0 { 'w' } else { '-' });
        letters.push(match (mode >> shift & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (runs, true) => char::from(marks.as_bytes()[usize::from(!runs)]),
        });
    }
    letters
}

/// Names of users and groups, looked up once.
#[derive(Debug, Default)]
struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    fn user(&mut self, uid: u32) -> String {
        let look_up = || match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => printable(&user.name).to_string(),
            _ => uid.to_string(),
        };
        self.users.entry(uid).or_insert_with(look_up).clone()
    }

    fn group(&mut self, gid: u32) -> String {
        let look_up = || match Group::from_gid(Gid::from_raw(gid)) {
            Ok(Some(group)) => printable(&group.name).to_string(),
            _ => gid.to_string(),
        };
        self.groups.entry(gid).or_insert_with(look_up).clone()
    }
}

/// Year, month from 1, day, hour, minute, second; in the Gregorian calendar.
fn civil(time: i64) -> (i64, usize, i64, i64, i64, i64) {
    let (days, second) = (time.div_euclid(86_400), time.rem_euclid(86_400));
    // From 0000-03-01 on, in eras of 400 years: Howard Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms".
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month as usize, day_of_month, second / 3600, second / 60 % 60, second % 60)
}

/// `Nov 21 10:07`, or `Nov 21  2025` of what is half a year away, as ls(1).
fn short_time(time: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const HALF_A_YEAR: i64 = 31_556_952 / 2;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (year, month, day, hour, minute, _) = civil(local(time).0);
    let month = MONTHS[month - 1];
    match now.saturating_sub(time) {
        0..HALF_A_YEAR => format!("{month} {day:2} {hour:02}:{minute:02}"),
        _ => format!("{month} {day:2} {year:5}"),
    }
}

/// A moment by the local clock, and how far that is ahead of UTC. A server may say any number.
fn local(time: i64) -> (i64, i64) {
    const LARGEST: i64 = 1 << 50;
    let time = time.clamp(-LARGEST, LARGEST);
    let offset = local_offset(time);
    (time + offset, offset)
}

/// `2026-11-21 10:07:20.000000000 +0000`.
fn long_time((seconds, nanoseconds): (i64, u32)) -> String {
    let (time, offset) = local(seconds);
    let (year, month, day, hour, minute, second) = civil(time);
    let sign = if offset < 0 { '-' } else { '+' };
    let (hours, minutes) = (offset.abs() / 3600, offset.abs() / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{nanoseconds:09} \
         {sign}{hours:02}{minutes:02}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (time, date) in [
            (0, (1970, 1, 1, 0, 0, 0)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (1_700_000_000, (2023, 11, 14, 22, 13, 20)),
            (-1, (1969, 12, 31, 23, 59, 59)),
            (-62_135_596_800, (1, 1, 1, 0, 0, 0)),
            (253_402_300_799, (9999, 12, 31, 23, 59, 59)),
        ] {
            assert_eq!(civil(time), date);
        }
        for time in [i64::MIN, i64::MAX] {
            short_time(time);
            long_time((time, u32::MAX));
        }
    }
}
