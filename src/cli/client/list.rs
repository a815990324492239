//! `--list` and `--stat`: metadata as text or as JSON.

use std::ffi::OsStr;
use std::io::{self, BufWriter, IntoInnerError, Write};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use super::{Failure, Opts, joined};
use crate::cli::table::{Names, columns};
use crate::client::save::OutputFile;
use crate::client::{Client, DirEntry};
use crate::escape::{escape, escape_json};
use crate::sys::local_time;

pub(super) fn run(opts: &Opts, client: &Client) -> Result<u8> {
    let out = OutputFile::stdout()?;
    let (names, rows) = (Names::default(), Vec::new());
    let mut view = View { opts, out: BufWriter::new(out), names, rows, is_empty: true };
    let (mut paths, mut directories) = (opts.paths.clone(), Vec::new());
    if opts.list {
        paths.sort(); // like ls(1), which also shows directories after everything else
    }
    let looked_at = opts.fetch_each(&paths, |path| {
        let item = client.stat(path.as_ref(), opts.list)?;
        if opts.list && item.metadata()?.is_dir() {
            directories.push(path.to_owned());
            return Ok(true);
        }
        view.show(&item, path)
    });
    view.print_table()?;
    let looked_at = looked_at?;
    let listed = opts.fetch_each(&directories, |path| view.show_directory(client, path))?;
    view.out.into_inner().map_err(IntoInnerError::into_error)?.commit()?;
    Ok(looked_at.max(listed))
}

struct View<'a> {
    opts: &'a Opts,
    out: BufWriter<OutputFile>,
    names: Names,
    rows: Vec<[String; 7]>,
    is_empty: bool,
}

impl View<'_> {
    /// Prints an item or adds it to the table. Returns whether the server could look at it.
    fn show(&mut self, item: &DirEntry, path: &OsStr) -> Result<bool, Failure> {
        let metadata = item.metadata();
        if let Err(why) = &metadata {
            self.opts.complain_of(escape(&joined(path, item.file_name())), why);
        }
        // The item that `path` itself names comes without a name.
        let name = if item.file_name().is_empty() { path } else { item.file_name() };
        let target = item.link_target().map(|target| format!(" -> {}", escape(target)));
        let shown = format!("{}{}", escape(name), target.unwrap_or_default());
        let text = if self.opts.json {
            format!("{}\n", escape_json(&to_json(item, path).to_string()))
        } else if self.opts.stat {
            details(item, &shown, &mut self.names)
        } else {
            self.rows.push(row(item, shown, &mut self.names));
            String::new()
        };
        self.out.write_all(text.as_bytes())?;
        Ok(metadata.is_ok())
    }

    /// Shows the entries of a directory, even if the listing breaks off. Returns whether the server
    /// could look at all of them.
    fn show_directory(&mut self, client: &Client, path: &OsStr) -> Result<bool, Failure> {
        let mut all_known = true;
        let outcome = client.read_dir(path)?.try_for_each(|item| {
            all_known &= self.show(&item?, path)?;
            Ok(())
        });
        if self.opts.paths.len() > 1 && !self.opts.json {
            let gap = if self.is_empty { "" } else { "\n" };
            writeln!(self.out, "{gap}{}:", escape(path))?;
            self.is_empty = false;
        }
        self.print_table()?;
        outcome.map(|()| all_known)
    }

    /// The widest cell sets the width of a column, so a table waits for all of its rows.
    fn print_table(&mut self) -> io::Result<()> {
        let rows = mem::take(&mut self.rows);
        self.is_empty &= rows.is_empty();
        let table = columns(&rows, " ", |column| matches!(column, 1 | 4 | 5), usize::MAX, &[]);
        self.out.write_all(table.as_bytes())?;
        self.out.flush()
    }
}

/// Like a line of `ls -l`: mode, links, user, group, size, time and name.
fn row(item: &DirEntry, shown: String, names: &mut Names) -> [String; 7] {
    let Ok(metadata) = item.metadata() else {
        return ["??????????", "?", "?", "?", "?", "?", &shown].map(str::to_owned);
    };
    let mode = metadata.mode();
    let size = if unix_mode::is_char_device(mode) || unix_mode::is_block_device(mode) {
        format!("{}, {}", major(metadata.rdev()), minor(metadata.rdev()))
    } else {
        metadata.len().to_string()
    };
    [
        unix_mode::to_string(mode),
        metadata.nlink().to_string(),
        names.of(metadata.uid()).to_owned(),
        names.of_group(metadata.gid()).to_owned(),
        size,
        short_time(metadata.mtime()),
        shown,
    ]
}

/// Like stat(1).
fn details(item: &DirEntry, shown: &str, names: &mut Names) -> String {
    let Ok(metadata) = item.metadata() else { return String::new() };
    let (uid, gid, links) = (metadata.uid(), metadata.gid(), metadata.nlink());
    let (user, group) = (format!("{uid} ({})", names.of(uid)), names.of_group(gid));
    let (device, inode) = (metadata.dev(), metadata.ino());
    format!(
        "  File: {shown}\n  Size: {}  Kind: {}\n  Mode: {:04o} ({})  Uid: {user}  \
         Gid: {gid} ({group})\n  Device: {},{}  Inode: {inode}  Links: {links}\n  Modified: {}\n",
        metadata.len(),
        metadata.file_type(),
        metadata.mode() & 0o7777,
        unix_mode::to_string(metadata.mode()),
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
