//! `--list` and `--stat`: metadata as text or as JSON.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;
use std::{iter, mem};

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use super::{Failure, Opts, joined};
use crate::cli::json::escape_json;
use crate::cli::table::{Names, columns};
use crate::client::{Client, DirEntry, Error, Metadata};
use crate::escape::escape;
use crate::sys::local_time;

pub(super) fn run(opts: &Opts, client: &Client) -> Result<u8> {
    let (mut names, mut is_first) = (Names::default(), true);
    opts.fetch_each(|path| opts.show(client, path, mem::take(&mut is_first), &mut names))
}

/// What to show; that of the path that was asked for has no name.
type Items = Box<dyn Iterator<Item = Result<DirEntry, Error>>>;

impl Opts {
    /// What `--stat` or `--list` shows of a path.
    fn items(&self, client: &Client, path: &OsStr) -> Result<Items, Error> {
        let itself = |follow| -> Result<Items, Error> {
            Ok(Box::new(iter::once(Ok(client.stat(path.as_ref(), follow)?))))
        };
        if self.stat {
            return itself(false);
        }
        match client.read_dir(path) {
            Ok(entries) => Ok(Box::new(entries)),
            Err(error) if error.raw_os_error() == Some(Errno::ENOTDIR as i32) => itself(true),
            Err(error) => Err(error),
        }
    }

    /// Shows the items of a path, even if the listing breaks off. Returns whether it is complete.
    fn show(
        &self,
        client: &Client,
        path: &OsStr,
        is_first: bool,
        names: &mut Names,
    ) -> Result<bool, Failure> {
        let mut out = BufWriter::new(io::stdout().lock());
        let (mut rows, mut all_known) = (Vec::new(), true);
        let mut items = self.items(client, path)?;
        let outcome = items.try_for_each(|item| {
            let item = item?;
            if let Err(why) = item.metadata() {
                self.complain_of(escape(&joined(path, item.file_name())), why);
                all_known = false;
            }
            let text = if self.json {
                format!("{}\n", escape_json(&to_json(&item, path).to_string()))
            } else if self.stat {
                details(&item, path, names)
            } else {
                rows.push(row(&item, path, names));
                return Ok(());
            };
            out.write_all(text.as_bytes()).map_err(Failure::Sink)
        });
        // The widest cell sets the width of a column, so the table waits for all rows.
        if !self.json && !self.stat && (outcome.is_ok() || !rows.is_empty()) {
            out.write_all(self.table(&rows, path, is_first).as_bytes()).map_err(Failure::Sink)?;
        }
        out.flush().map_err(Failure::Sink)?;
        outcome.map(|()| all_known)
    }

    fn table(&self, rows: &[Row], path: &OsStr, is_first: bool) -> String {
        let mut text = String::new();
        if self.paths.len() > 1 {
            let _ = writeln!(text, "{}{}:", if is_first { "" } else { "\n" }, escape(path));
        }
        text + &columns(rows, " ", |column| matches!(column, 1 | 4 | 5), usize::MAX, &[])
    }
}

/// Mode, links, user, group, size, time and name.
type Row = [String; 7];

/// Like a line of `ls -l`.
fn row(item: &DirEntry, path: &OsStr, names: &mut Names) -> Row {
    let name = if item.file_name().is_empty() { path } else { item.file_name() };
    let mut shown = escape(name).to_string();
    if let Some(target) = item.link_target() {
        let _ = write!(shown, " -> {}", escape(target));
    }
    let Ok(metadata) = item.metadata() else {
        return ["??????????", "?", "?", "?", "?", "?", &shown].map(str::to_owned);
    };
    let file_type = metadata.file_type();
    let size = if file_type.is_char_device() || file_type.is_block_device() {
        format!("{}, {}", major(metadata.rdev()), minor(metadata.rdev()))
    } else {
        metadata.len().to_string()
    };
    [
        mode_letters(&metadata),
        metadata.nlink().to_string(),
        names.of(metadata.uid()).to_owned(),
        names.of_group(metadata.gid()).to_owned(),
        size,
        short_time(metadata.mtime()),
        shown,
    ]
}

/// Like stat(1).
fn details(item: &DirEntry, path: &OsStr, names: &mut Names) -> String {
    let Ok(metadata) = item.metadata() else { return String::new() };
    let mut file = escape(path).to_string();
    if let Some(target) = item.link_target() {
        let _ = write!(file, " -> {}", escape(target));
    }
    let (uid, gid, links) = (metadata.uid(), metadata.gid(), metadata.nlink());
    let (user, group) = (format!("{uid} ({})", names.of(uid)), names.of_group(gid));
    let (device, inode) = (metadata.dev(), metadata.ino());
    format!(
        "  File: {file}\n  Size: {}  Kind: {}\n  Mode: {:04o} ({})  Uid: {user}  \
         Gid: {gid} ({group})\n  Device: {},{}  Inode: {inode}  Links: {links}\n  Modified: {}\n",
        metadata.len(),
        metadata.file_type(),
        metadata.mode() & 0o7777,
        mode_letters(&metadata),
        major(device),
        minor(device),
        long_time(metadata.mtime(), metadata.mtime_nsec()),
    )
}

fn to_json(item: &DirEntry, path: &OsStr) -> Value {
    let lossy = |text: &OsStr| text.to_string_lossy().into_owned();
    let mut object = json!({ "path": lossy(path), "name": lossy(item.file_name()) });
    match item.metadata() {
        Ok(metadata) => {
            object["kind"] = json!(metadata.file_type().to_string());
            object["mode"] = json!(format!("{:04o}", metadata.mode() & 0o7777));
            object["uid"] = json!(metadata.uid().as_raw());
            object["gid"] = json!(metadata.gid().as_raw());
            object["links"] = json!(metadata.nlink());
            object["size"] = json!(metadata.len());
            object["mtime"] = json!(metadata.mtime());
            object["mtime_nsec"] = json!(metadata.mtime_nsec());
            object["device"] = json!(metadata.dev());
            object["inode"] = json!(metadata.ino());
        }
        Err(why) => {
            object["kind"] = json!("unknown");
            object["error"] = json!(why.to_string());
        }
    }
    // JSON holds only text, so other bytes are added in hexadecimal.
    let target = item.link_target().map_or(OsStr::new(""), Path::as_os_str);
    if !target.is_empty() {
        object["target"] = json!(lossy(target));
    }
    for (key, bytes) in [("name_hex", item.file_name()), ("target_hex", target)] {
        if bytes.to_str().is_none() {
            let digits = bytes.as_bytes().iter().map(|byte| format!("{byte:02x}"));
            object[key] = json!(digits.collect::<String>());
        }
    }
    object
}

/// `drwxr-xr-x`.
fn mode_letters(metadata: &Metadata) -> String {
    let (mode, mut letters) = (metadata.mode(), String::with_capacity(10));
    letters.push(match metadata.file_type() {
        kind if kind.is_file() => '-',
        kind if kind.is_dir() => 'd',
        kind if kind.is_symlink() => 'l',
        kind if kind.is_fifo() => 'p',
        kind if kind.is_socket() => 's',
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => '?',
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

/// `Nov 21 10:07`, or `Nov 21  2025` for the future and for more than half a year ago, like ls(1).
fn short_time(time: i64) -> String {
    const HALF_A_YEAR: i64 = 31_556_952 / 2;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let age = (now.as_secs() as i64).saturating_sub(time);
    let form = if (0..HALF_A_YEAR).contains(&age) { c"%b %e %H:%M" } else { c"%b %e  %Y" };
    local_time(time, form).unwrap_or_else(|| format!("@{time}")) // as date(1) reads it
}

/// `2026-11-21 10:07:20.000000000 +0000`.
fn long_time(seconds: i64, nanoseconds: u32) -> String {
    match (local_time(seconds, c"%F %T"), local_time(seconds, c"%z")) {
        (Some(time), Some(zone)) => format!("{time}.{nanoseconds:09} {zone}"),
        _ => format!("@{seconds}.{nanoseconds:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{long_time, short_time};

    #[test]
    fn every_time_can_be_shown() {
        for time in [i64::MIN, -62_135_596_800, -1, 0, 253_402_300_799, 1 << 55, i64::MAX] {
            assert!(!short_time(time).is_empty());
            assert!(!long_time(time, u32::MAX).is_empty());
        }
        assert_eq!(long_time(i64::MAX, 7), "@9223372036854775807.000000007");
        assert!(long_time(1_000_000_000, 0).starts_with("2001-09-0"));
    }
}
