//! `--tar`: trees as an archive on standard output.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufWriter, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tar::{Builder, EntryType, Header};

use super::copy::raise_descriptor_limit;
use super::{Failure, Opts, joined};
use crate::cli::progress::Progress;
use crate::client::save::OutputFile;
use crate::client::{Client, Error, ErrorKind, Metadata, WalkEntry};
use crate::escape::escape;

/// Up to this size in bytes, a file is received whole before it is written: then its size is
/// certain.
const SMALL: u64 = 1 << 20;

/// The largest file, in bytes, that is received whole because its size is unknown, as in /proc.
const LARGEST_UNKNOWN: u64 = 64 << 20;

/// What became of an entry.
enum Outcome {
    Archived,
    /// Archived, but the file changed while it was read.
    Changed,
    /// The walk will bring the entry again.
    Later,
    /// No file, directory or symbolic link.
    Skipped(String),
    Missing(String),
}

/// An archive that is being written.
struct Archive<'a> {
    opts: &'a Opts,
    progress: &'a Progress,
    builder: Builder<BufWriter<OutputFile>>,
}

pub(super) fn run(opts: &Opts, client: &Client) -> Result<u8> {
    // Like tar(1): on a terminal an archive is garbage, and may hold control sequences.
    ensure!(!io::stdout().is_terminal(), "--tar does not write an archive to a terminal");
    raise_descriptor_limit();
    let stdout = OutputFile::stdout().map_err(|error| opts.sink_failed(error))?;
    let progress = Progress::start(opts.progress(), false);
    let builder = Builder::new(BufWriter::with_capacity(64 << 10, stdout));
    let mut archive = Archive { opts, progress: &progress, builder };
    let status = opts.fetch_each_tree(&progress, |path| archive.append_tree(client, path))?;
    let finished = archive.builder.into_inner().and_then(|out| out.into_inner()?.commit());
    finished.map_err(|error| opts.sink_failed(error))?;
    opts.print_summary(&progress);
    Ok(status)
}

impl Archive<'_> {
    /// Appends a tree. Returns how many entries are missing.
    fn append_tree(&mut self, client: &Client, path: &OsStr) -> Result<u64, Failure> {
        let mut problems = 0;
        let top = Path::new(path).file_name().map(PathBuf::from).unwrap_or_default();
        let mut walk = client.walk(path)?;
        while let Some(mut entry) = walk.next_entry()? {
            let below = entry.path().to_owned();
            let name = if below.as_os_str().is_empty() { top.clone() } else { top.join(&below) };
            let outcome = match entry.metadata() {
                Ok(metadata) => self.append(&mut entry, &metadata, &name).map_err(Failure::Sink)?,
                Err(error) => outcome_of(&error),
            };
            let path = joined(path, below.as_os_str());
            if entry.has_changed() || matches!(outcome, Outcome::Changed) {
                self.opts.warn_of_change(&path);
            }
            problems += u64::from(matches!(outcome, Outcome::Missing(_)));
            if let Outcome::Missing(why) | Outcome::Skipped(why) = outcome {
                self.opts.complain_of(escape(&path), why);
            }
        }
        Ok(problems)
    }

    fn append(
        &mut self,
        entry: &mut WalkEntry<'_>,
        metadata: &Metadata,
        name: &Path,
    ) -> io::Result<Outcome> {
        let mut header = header(metadata, self.opts.no_preserve);
        if name.as_os_str().is_empty() {
            return Ok(Outcome::Archived); // the server's root itself has no name
        }
        if metadata.is_file() && metadata.len() > SMALL {
            return self.append_large_file(&mut header, entry, metadata.len(), name);
        } else if metadata.is_file() {
            return self.append_small_file(&mut header, entry, name);
        } else if metadata.is_dir() {
            header.set_entry_type(EntryType::Directory);
        } else if let Some(target) = entry.link_target() {
            header.set_entry_type(EntryType::Symlink);
            self.set_target(&mut header, target)?;
        } else {
            let kind = metadata.file_type();
            return Ok(Outcome::Skipped(format!("Is a {kind}, which is not copied")));
        }
        self.builder.append_data(&mut header, name, io::empty())?;
        Ok(Outcome::Archived)
    }

    /// Sets a link's target unchanged. `Builder::append_link` would normalise it.
    fn set_target(&mut self, header: &mut Header, target: &Path) -> io::Result<()> {
        let target = target.as_os_str().as_bytes();
        if header.set_link_name_literal(target).is_ok() {
            return Ok(());
        }
        // A target that is too long for its field goes into an entry before it: tar(5), GNU format.
        let mut long = Header::new_gnu();
        long.set_path("@LongLink")?;
        long.set_entry_type(EntryType::GNULongLink);
        long.set_size(target.len() as u64 + 1);
        long.set_cksum();
        self.builder.append(&long, target.chain(&b"\0"[..]))
    }

    fn append_small_file(
        &mut self,
        header: &mut Header,
        entry: &mut WalkEntry<'_>,
        name: &Path,
    ) -> io::Result<Outcome> {
        let mut content = Vec::new();
        if let Err(error) = entry.take(LARGEST_UNKNOWN + 1).read_to_end(&mut content) {
            return Ok(outcome_of(&Error::from_read(error)));
        }
        if content.len() as u64 > LARGEST_UNKNOWN {
            let why = "its size is unknown, and it is too large to receive it whole first";
            return Ok(Outcome::Missing(why.to_owned()));
        }
        header.set_size(content.len() as u64);
        self.builder.append_data(header, name, &content[..])?;
        self.progress.advance(content.len());
        self.progress.count_file();
        Ok(Outcome::Archived)
    }

    /// The header comes first and promises `size` bytes, so zeros replace missing bytes.
    fn append_large_file(
        &mut self,
        header: &mut Header,
        entry: &mut WalkEntry<'_>,
        size: u64,
        name: &Path,
    ) -> io::Result<Outcome> {
        // Promise nothing before the first bytes are here: the caller may not read the file at all.
        if let Err(error) = entry.fill_buf() {
            return Ok(outcome_of(&Error::from_read(error)));
        }
        header.set_size(size);
        let progress = self.progress;
        let mut padded = Padded { entry, name, progress, left: size, failed: None };
        self.builder.append_data(header, name, &mut padded)?;
        if let Some(failed) = padded.failed {
            return Ok(match outcome_of(&failed) {
                Outcome::Missing(why) => {
                    Outcome::Missing(format!("{why} (the archive has zeros in place of the rest)"))
                }
                outcome => outcome,
            });
        }
        // The server says how the transfer ended only after the last byte.
        let is_over = match entry.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => return Ok(outcome_of(&Error::from_read(error))),
        };
        self.progress.count_file();
        // The next server sends the file as it is then, which may be longer.
        Ok(if is_over { Outcome::Archived } else { Outcome::Changed })
    }
}

/// What an error means for an entry. If a file changed while the server was away, the walk brings
/// it again.
fn outcome_of(error: &Error) -> Outcome {
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
    header.set_uid(metadata.uid().as_raw().into());
    header.set_gid(metadata.gid().as_raw().into());
    header
}

/// A file of exactly the size that the archive promises, with zeros for what is missing.
struct Padded<'a, 'b> {
    entry: &'a mut WalkEntry<'b>,
    name: &'a Path,
    progress: &'a Progress,
    left: u64,
    /// Why the rest is zeros.
    failed: Option<Error>,
}

/// Most zeros that replace missing bytes. If more are missing, the archive ends.
const MOST_ZEROS: u64 = 1 << 30;

impl Read for Padded<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let room = &mut buffer[..most];
        if self.failed.is_none() && most > 0 {
            match self.entry.read(room) {
                Ok(0) => self.failed = Some(Error::corrupt("the file is shorter than announced")),
                Ok(read) => {
                    self.progress.advance(read);
                    self.left -= read as u64;
                    return Ok(read);
                }
                Err(error) => self.failed = Some(Error::from_read(error)),
            }
        }
        if let Some(why) = self.failed.as_ref().filter(|_| self.left > MOST_ZEROS) {
            let (name, left) = (escape(self.name), self.left);
            let end = format!("{name}: {why}: {left} bytes are missing, so the archive ends here");
            return Err(io::Error::other(end));
        }
        room.fill(0);
        self.left -= most as u64;
        Ok(most)
    }
}
