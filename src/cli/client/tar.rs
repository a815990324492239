//! A tree as a tar archive on standard output.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use super::tree::{base_name, joined, missing};
use super::{Opts, Stop};
use crate::cli::FAILED;
use crate::client::{Client, Error, Metadata, WalkEntry};
use crate::text::printable;
use crate::wire::Kind;

/// A file of at most so many bytes is written once it is there: then its size is known for certain.
const SMALL: u64 = 1 << 20;

/// How large a file may be whose size nobody knows before its end, such as those of /proc.
const MOST_UNKNOWN: u64 = 64 << 20;

type Archive = Builder<BufWriter<File>>;

pub(super) fn run(opts: &Opts, client: &Client) -> Result<ExitCode> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
    let mut archive = Builder::new(BufWriter::with_capacity(64 << 10, File::from(stdout)));
    let mut status = 0;
    for path in &opts.paths {
        match append_tree(opts, client, path, &mut archive) {
            Ok(0) => {}
            Ok(problems) => {
                opts.complain_of(printable(path), missing(problems));
                status = FAILED;
            }
            Err(Stop::Source(error)) => match opts.failed(path, &error) {
                Some(exit) => return Ok(exit),
                None => status = FAILED,
            },
            Err(Stop::Sink(error)) => return Ok(opts.sink_failed(&error)),
        }
    }
    match archive.into_inner().and_then(|mut out| out.flush()) {
        Ok(()) => Ok(ExitCode::from(status)),
        Err(error) => Ok(opts.sink_failed(&error)),
    }
}

/// Appends a tree, and says how many of its entries are missing.
fn append_tree(
    opts: &Opts,
    client: &Client,
    path: &OsStr,
    archive: &mut Archive,
) -> Result<u64, Stop> {
    let mut problems = 0;
    let top = base_name(path).map(PathBuf::from).unwrap_or_default();
    let mut walk = client.walk(path).map_err(Stop::Source)?;
    while let Some(mut entry) = walk.next_entry().map_err(Stop::Source)? {
        let below = entry.path().to_owned();
        let name = if below.as_os_str().is_empty() { top.clone() } else { top.join(&below) };
        let why = match entry.error() {
            Some(error) => Some(error.to_string()),
            None => append(opts, &mut entry, &name, archive).map_err(Stop::Sink)?,
        };
        let path = joined(path, below.as_os_str());
        if entry.has_changed() {
            opts.complain_of(printable(&path), "warning: the file changed while it was read");
        }
        if let Some(why) = why {
            opts.complain_of(printable(&path), why);
            problems += 1;
        }
    }
    Ok(problems)
}

/// Appends an entry, or says why it is missing.
fn append(
    opts: &Opts,
    entry: &mut WalkEntry<'_>,
    name: &Path,
    archive: &mut Archive,
) -> io::Result<Option<String>> {
    let metadata = *entry.metadata();
    let mut header = header(&metadata, opts.no_preserve);
    if name.as_os_str().is_empty() {
        return Ok(None); // the root itself
    }
    match metadata.kind() {
        Kind::Regular => return append_file(&mut header, entry, name, archive),
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, name, io::empty())?;
        }
        Kind::Link => {
            let target = entry.target().unwrap_or(Path::new(""));
            if !target.as_os_str().is_empty() {
                header.set_entry_type(EntryType::Symlink);
                archive.append_link(&mut header, name, target)?;
            }
        }
        Kind::Unknown => {} // why comes behind it
        kind => {
            let kind = format!("{kind:?}").replace("Device", " device").to_lowercase();
            return Ok(Some(format!("Is a {}, which is not copied", kind.replace("fifo", "FIFO"))));
        }
    }
    Ok(None)
}

fn append_file(
    header: &mut Header,
    entry: &mut WalkEntry<'_>,
    name: &Path,
    archive: &mut Archive,
) -> io::Result<Option<String>> {
    let known = entry.metadata().len();
    if known > SMALL {
        header.set_size(known);
        let mut padded = Padded { entry, left: known, why: None };
        archive.append_data(header, name, &mut padded)?;
        return Ok(padded
            .why
            .map(|why| format!("{why} (the archive has zeros in place of the rest)")));
    }
    let mut content = Vec::new();
    if let Err(error) = entry.take(MOST_UNKNOWN + 1).read_to_end(&mut content) {
        // One that changed while the server was away comes again.
        let changed = is_changed(&error);
        return Ok((!changed).then(|| error.to_string()));
    }
    if content.len() as u64 > MOST_UNKNOWN {
        return Ok(Some("its size is not known, and too large to wait for its end".to_owned()));
    }
    header.set_size(content.len() as u64);
    archive.append_data(header, name, &content[..])?;
    Ok(None)
}

fn is_changed(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(Error::FileChanged))
}

fn header(metadata: &Metadata, no_preserve: bool) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(0);
    if no_preserve {
        header.set_mode(if metadata.is_dir() { 0o755 } else { 0o644 });
        header.set_mtime(0);
        return header;
    }
    header.set_mode(metadata.mode() & 0o7777);
    header.set_mtime(u64::try_from(metadata.mtime().0).unwrap_or(0));
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header
}

/// A file of which the archive was promised so many bytes.
struct Padded<'a, 'b> {
    entry: &'a mut WalkEntry<'b>,
    left: u64,
    why: Option<String>,
}

impl Read for Padded<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let room = &mut buffer[..most];
        if self.why.is_none() && most > 0 {
            match self.entry.read(room) {
                Ok(0) => self.why = Some("the file is shorter than it was to be".to_owned()),
                Ok(read) => {
                    self.left -= read as u64;
                    return Ok(read);
                }
                Err(error) => self.why = Some(error.to_string()),
            }
        }
        room.fill(0);
        self.left -= most as u64;
        Ok(most)
    }
}
