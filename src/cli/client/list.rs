//! What a directory holds, and what one thing is: for people, and as JSON.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};
use sysv_ipc::{Gid, Uid};

use super::tree::joined;
use super::{Opts, Stop};
use crate::cli::FAILED;
use crate::cli::json::escape_json;
use crate::cli::table::{Names, columns};
use crate::client::{Client, DirEntry, Error, Metadata};
use crate::escape::escape;
use crate::sys::local_time::Local;
use crate::wire::Kind;

pub(super) fn run(opts: &Opts, client: &Client) -> ExitCode {
    let (mut status, mut names) = (0, Names::default());
    for (i, path) in opts.paths.iter().enumerate() {
        match opts.show(client, path, i, &mut names) {
            Ok(true) => {}
            Ok(false) => status = FAILED,
            Err(Stop::Sink(error)) => return opts.sink_failed(&error),
            Err(Stop::Source(error)) => match opts.failed(path, &error) {
                Some(exit) => return exit,
                None => status = FAILED,
            },
        }
    }
    ExitCode::from(status)
}

type Entries = Box<dyn Iterator<Item = Result<DirEntry, Error>>>;

impl Opts {
    fn look(&self, client: &Client, path: &OsStr) -> Result<Entries, Error> {
        Ok(match self.stat {
            true => Box::new(iter::once(Ok(client.symlink_metadata(path)?))),
            false => Box::new(client.read_dir(path)?),
        })
    }

    /// Shows what there is, as far as it comes; false if of some of it nothing is known.
    fn show(
        &self,
        client: &Client,
        path: &OsStr,
        i: usize,
        names: &mut Names,
    ) -> Result<bool, Stop> {
        let mut out = BufWriter::new(io::stdout().lock());
        let (mut rows, mut all_known) = (Vec::new(), true);
        let mut entries = self.look(client, path).map_err(Stop::Source)?;
        let outcome = entries.try_for_each(|entry| {
            let entry = entry.map_err(Stop::Source)?;
            if let Some(why) = entry.error() {
                self.complain_of(escape(&joined(path, entry.name())), why);
                all_known = false;
            }
            match (self.json, self.stat) {
                (true, _) => {
                    let object = to_json(&entry, path).to_string();
                    writeln!(out, "{}", escape_json(&object)).map_err(Stop::Sink)?;
                }
                (false, true) => {
                    out.write_all(details(&entry, path, names).as_bytes()).map_err(Stop::Sink)?;
                }
                (false, false) => rows.push(row(&entry, path, names)),
            }
            Ok(())
        });
        // A table is as wide as what is widest in it, so it has to wait.
        if !self.json && !self.stat && (outcome.is_ok() || !rows.is_empty()) {
            out.write_all(self.table(&rows, path, i).as_bytes()).map_err(Stop::Sink)?;
        }
        out.flush().map_err(Stop::Sink)?;
        outcome.map(|()| all_known)
    }

    fn table(&self, rows: &[Row], path: &OsStr, i: usize) -> String {
        let mut text = String::new();
        if self.paths.len() > 1 {
            let _ = writeln!(text, "{}{}:", if i > 0 { "\n" } else { "" }, escape(path));
        }
        text + &columns(rows, " ", |column| matches!(column, 1 | 4 | 5))
    }
}

/// Mode, links, user, group, size, time and name.
type Row = [String; 7];

/// A line of `ls -l`.
fn row(entry: &DirEntry, path: &OsStr, names: &mut Names) -> Row {
    let metadata = entry.metadata();
    let name = if entry.name().is_empty() { path } else { entry.name() };
    let mut shown = escape(name).to_string();
    if let Some(target) = entry.target() {
        let _ = write!(shown, " -> {}", escape(target));
    }
    if metadata.kind() == Kind::Unknown {
        return ["??????????", "?", "?", "?", "?", "?", &shown].map(str::to_owned);
    }
    let size = match metadata.kind() {
        Kind::CharacterDevice | Kind::BlockDevice => {
            format!("{}, {}", major(metadata.rdev()), minor(metadata.rdev()))
        }
        _ => metadata.len().to_string(),
    };
    [
        mode_letters(metadata),
        metadata.nlink().to_string(),
        names.of(Uid::from_raw(metadata.uid())).to_owned(),
        names.of_group(Gid::from_raw(metadata.gid())).to_owned(),
        size,
        short_time(metadata.mtime().0),
        shown,
    ]
}

/// What stat(1) would show.
fn details(entry: &DirEntry, path: &OsStr, names: &mut Names) -> String {
    let metadata = entry.metadata();
    let mut file = escape(path).to_string();
    if let Some(target) = entry.target() {
        let _ = write!(file, " -> {}", escape(target));
    }
    let (uid, gid) = (metadata.uid(), metadata.gid());
    let user = names.of(Uid::from_raw(uid)).to_owned();
    let group = names.of_group(Gid::from_raw(gid));
    let (device, inode) = (metadata.dev(), metadata.ino());
    format!(
        "  File: {file}\n  Size: {}  Kind: {}\n  Mode: {:04o} ({})  Uid: {uid} ({user})  \
         Gid: {gid} ({group})\n  Device: {},{}  Inode: {inode}  Links: {}\n  Modified: {}\n",
        metadata.len(),
        metadata.kind(),
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
        "kind": metadata.kind().to_string(),
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
    if let Some(target) = entry.target() {
        object["target"] = json!(lossy(target.as_os_str()));
    }
    // JSON has text alone.
    let target = entry.target().map_or(OsStr::new(""), Path::as_os_str);
    for (key, bytes) in [("name_hex", entry.name()), ("target_hex", target)] {
        if bytes.to_str().is_none() {
            object[key] = json!(hex(bytes.as_bytes()));
        }
    }
    if let Some(why) = entry.error() {
        object["error"] = json!(why.to_string());
    }
    object
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
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

/// `Nov 21 10:07`, or `Nov 21  2025` of what is half a year away, as ls(1).
fn short_time(time: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const HALF_A_YEAR: i64 = 31_556_952 / 2;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let Some(Local { year, month, day, hour, minute, .. }) = Local::at(time) else {
        return format!("@{time}"); // as date(1) reads it
    };
    let month = MONTHS[month];
    match now.saturating_sub(time) {
        0..HALF_A_YEAR => format!("{month} {day:2} {hour:02}:{minute:02}"),
        _ => format!("{month} {day:2} {year:5}"),
    }
}

/// `2026-11-21 10:07:20.000000000 +0000`.
fn long_time((seconds, nanoseconds): (i64, u32)) -> String {
    let Some(Local { year, month, day, hour, minute, second, offset }) = Local::at(seconds) else {
        return format!("@{seconds}.{nanoseconds:09}");
    };
    let month = month + 1;
    let sign = if offset < 0 { '-' } else { '+' };
    let (hours, minutes) = (offset.abs() / 3600, offset.abs() / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{nanoseconds:09} \
         {sign}{hours:02}{minutes:02}"
    )
}

#[cfg(test)]
mod tests {
    use super::{long_time, short_time};

    #[test]
    fn any_time_that_a_server_may_say_can_be_shown() {
        for time in [i64::MIN, -62_135_596_800, -1, 0, 253_402_300_799, 1 << 55, i64::MAX] {
            assert!(!short_time(time).is_empty());
            assert!(!long_time((time, u32::MAX)).is_empty());
        }
        assert_eq!(long_time((i64::MAX, 7)), "@9223372036854775807.000000007");
        assert!(long_time((1_000_000_000, 0)).starts_with("2001-09-0"));
    }
}
