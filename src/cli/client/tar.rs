//! A tree as a tar archive on standard output.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufWriter, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use tar::{Builder, EntryType, Header};

use super::tree::{base_name, joined, missing};
use super::{Opts, Stop};
use crate::cli::FAILED;
use crate::cli::progress::Progress;
use crate::client::{Client, Error, ErrorKind, Metadata, WalkEntry};
use crate::escape::escape;

/// A file of at most so many bytes is written once it is there: then its size is known for certain.
const SMALL: u64 = 1 << 20;

/// How large a file may be whose size nobody knows before its end, such as those of /proc.
const MOST_UNKNOWN: u64 = 64 << 20;

const SHORTER: &str = "incomplete: the file is shorter than it was to be";

/// What became of an entry.
enum Outcome {
    There,
    /// It is there, but was written to meanwhile.
    Changed,
    /// It comes again.
    Later,
    Missing(String),
}

/// An archive that is being written.
struct Packer<'a> {
    opts: &'a Opts,
    progress: &'a Progress,
    archive: Builder<BufWriter<File>>,
}

pub(super) fn run(opts: &Opts, client: &Client) -> Result<ExitCode> {
    // It would be garbage there, and could be commands: tar(1) refuses, too.
    ensure!(!io::stdout().is_terminal(), "--tar does not write an archive to a terminal");
    let stdout = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
    let progress = Progress::start(opts.progress(), false);
    let archive = Builder::new(BufWriter::with_capacity(64 << 10, File::from(stdout)));
    let mut packer = Packer { opts, progress: &progress, archive };
    let mut status = 0;
    for path in &opts.paths {
        progress.begin(path, None);
        let outcome = packer.append_tree(client, path);
        progress.end();
        match outcome {
            Ok(0) => {}
            Ok(problems) => {
                opts.complain_of(escape(path), missing(problems));
                status = FAILED;
            }
            Err(Stop::Source(error)) => match opts.failed(path, &error) {
                Some(exit) => return Ok(exit),
                None => status = FAILED,
            },
            Err(Stop::Sink(error)) => return Ok(opts.sink_failed(&error)),
        }
    }
    if let Err(error) = packer.archive.into_inner().and_then(|mut out| out.flush()) {
        return Ok(opts.sink_failed(&error));
    }
    opts.tell_of_all(&progress);
    Ok(ExitCode::from(status))
}

impl Packer<'_> {
    /// Appends a tree, and says how many of its entries are missing.
    fn append_tree(&mut self, client: &Client, path: &OsStr) -> Result<u64, Stop> {
        let mut problems = 0;
        let top = base_name(path).map(PathBuf::from).unwrap_or_default();
        let mut walk = client.walk(path).map_err(Stop::Source)?;
        while let Some(mut entry) = walk.next_entry().map_err(Stop::Source)? {
            let below = entry.path().to_owned();
            let name = if below.as_os_str().is_empty() { top.clone() } else { top.join(&below) };
            let outcome = match entry.metadata() {
                Ok(metadata) => self.append(&mut entry, &metadata, &name).map_err(Stop::Sink)?,
                Err(error) => missing_for(&error),
            };
            let path = joined(path, below.as_os_str());
            if entry.has_changed() || matches!(outcome, Outcome::Changed) {
                let warning = "warning: the file changed while it was read";
                self.opts.complain_of(escape(&path), warning);
            }
            if let Outcome::Missing(why) = outcome {
                self.opts.complain_of(escape(&path), why);
                problems += 1;
            }
        }
        Ok(problems)
    }

    /// Appends an entry, or says why it is missing.
    fn append(
        &mut self,
        entry: &mut WalkEntry<'_>,
        metadata: &Metadata,
        name: &Path,
    ) -> io::Result<Outcome> {
        let mut header = header(metadata, self.opts.no_preserve);
        if name.as_os_str().is_empty() {
            return Ok(Outcome::There); // the root itself
        }
        if metadata.is_file() {
            return self.append_file(&mut header, entry, metadata.len(), name);
        } else if metadata.is_dir() {
            header.set_entry_type(EntryType::Directory);
        } else if let Some(target) = entry.link_target() {
            header.set_entry_type(EntryType::Symlink);
            self.set_target(&mut header, target)?;
        } else {
            let kind = metadata.file_type();
            return Ok(Outcome::Missing(format!("Is a {kind}, which is not copied")));
        }
        self.archive.append_data(&mut header, name, io::empty())?;
        Ok(Outcome::There)
    }

    /// As it is: `append_link` would tidy it up.
    fn set_target(&mut self, header: &mut Header, target: &Path) -> io::Result<()> {
        let target = target.as_os_str().as_bytes();
        if header.set_link_name_literal(target).is_ok() {
            return Ok(());
        }
        // What is longer than its field stands in an entry before it: tar(5), GNU tar archives.
        let mut long = Header::new_gnu();
        long.set_path("@LongLink")?;
        long.set_entry_type(EntryType::GNULongLink);
        long.set_size(target.len() as u64 + 1);
        long.set_cksum();
        self.archive.append(&long, target.chain(&b"\0"[..]))
    }

    fn append_file(
        &mut self,
        header: &mut Header,
        entry: &mut WalkEntry<'_>,
        known: u64,
        name: &Path,
    ) -> io::Result<Outcome> {
        if known > SMALL {
            // Nothing is promised of what does not come at all: the caller may not read it, say.
            if let Err(error) = entry.fill_buf() {
                return Ok(missing_for(&Error::from_read(error)));
            }
            header.set_size(known);
            let progress = self.progress;
            let mut padded = Padded { entry, name, progress, left: known, failed: None };
            self.archive.append_data(header, name, &mut padded)?;
            if let Some(failed) = padded.failed {
                let zeros = "the archive has zeros in place of the rest";
                return Ok(match failed.as_ref().map(missing_for) {
                    Some(Outcome::Missing(why)) => Outcome::Missing(format!("{why} ({zeros})")),
                    Some(outcome) => outcome,
                    None => Outcome::Missing(format!("{SHORTER} ({zeros})")),
                });
            }
            // How it ended stands behind its last byte.
            let is_over = match entry.fill_buf() {
                Ok(rest) => rest.is_empty(),
                Err(error) => return Ok(missing_for(&Error::from_read(error))),
            };
            self.progress.count_file();
            // It grew while another server took over, which sends what there is by now.
            return Ok(if is_over { Outcome::There } else { Outcome::Changed });
        }
        let mut content = Vec::new();
        if let Err(error) = entry.take(MOST_UNKNOWN + 1).read_to_end(&mut content) {
            return Ok(missing_for(&Error::from_read(error)));
        }
        if content.len() as u64 > MOST_UNKNOWN {
            let why = "its size is not known, and too large to wait for its end";
            return Ok(Outcome::Missing(why.to_owned()));
        }
        header.set_size(content.len() as u64);
        self.archive.append_data(header, name, &content[..])?;
        self.progress.advance(content.len());
        self.progress.count_file();
        Ok(Outcome::There)
    }
}

/// What becomes of an entry whose bytes do not come. One that changed while the server was away comes
/// again.
fn missing_for(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::FileChanged => Outcome::Later,
        _ => Outcome::Missing(error.to_string()),
    }
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
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_uid(metadata.uid().map_or(0, |uid| uid.as_raw().into()));
    header.set_gid(metadata.gid().map_or(0, |gid| gid.as_raw().into()));
    header
}

/// A file of which the archive was promised so many bytes.
struct Padded<'a, 'b> {
    entry: &'a mut WalkEntry<'b>,
    name: &'a Path,
    progress: &'a Progress,
    left: u64,
    /// Why the rest is zeros: an error, or None if the file ended early.
    failed: Option<Option<Error>>,
}

impl Padded<'_, '_> {
    /// How many zeros may stand for what is missing, in bytes.
    const MOST: u64 = 1 << 30;
}

impl Read for Padded<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let room = &mut buffer[..most];
        if self.failed.is_none() && most > 0 {
            match self.entry.read(room) {
                Ok(0) => self.failed = Some(None),
                Ok(read) => {
                    self.progress.advance(read);
                    self.left -= read as u64;
                    return Ok(read);
                }
                Err(error) => self.failed = Some(Some(Error::from_read(error))),
            }
        }
        if let Some(failed) = self.failed.as_ref().filter(|_| self.left > Self::MOST) {
            let why = failed.as_ref().map_or(SHORTER.to_owned(), Error::to_string);
            let (name, left) = (escape(self.name), self.left);
            let end = format!("{name}: {why}: {left} bytes are missing, so the archive ends here");
            return Err(io::Error::other(end));
        }
        room.fill(0);
        self.left -= most as u64;
        Ok(most)
    }
}
