//! `--tar`: trees as an archive on standard output.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufWriter, IsTerminal, Read, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tar::{Builder, EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{Failure, Opts, joined};
use crate::cli::progress;
use crate::client::save::OutputFile;
use crate::client::{Client, Error, ErrorKind, Metadata, WalkEntry};
use crate::escape::escape;
use crate::wire::Extent;

/// A file of at most this many bytes is received whole, so that its size is certain.
const SMALL: u64 = 1 << 20;

/// The largest file, in bytes, that is received whole because its size is unknown, as in /proc.
const LARGEST_UNKNOWN: u64 = 64 << 20;

enum Outcome {
    Archived,
    /// Archived, but the file changed while it was read.
    Changed,
    /// No file, directory or symbolic link.
    Skipped(String),
    Missing(String),
}

struct Archive<'a> {
    opts: &'a Opts,
    builder: Builder<BufWriter<OutputFile>>,
}

pub(super) fn run(opts: &Opts, client: &Client) -> Result<u8> {
    // Like tar(1): on a terminal an archive is garbage, and may hold control sequences.
    ensure!(!io::stdout().is_terminal(), "--tar does not write an archive to a terminal");
    let stdout = OutputFile::stdout()?;
    progress::start(opts.progress(), false);
    let builder = Builder::new(BufWriter::with_capacity(64 << 10, stdout));
    let mut archive = Archive { opts, builder };
    let status = opts.fetch_each_tree(|path| archive.append_tree(client, path))?;
    archive.builder.into_inner().and_then(|out| out.into_inner()?.commit())?;
    Ok(status)
}

impl Archive<'_> {
    /// Returns how many entries are missing.
    fn append_tree(&mut self, client: &Client, path: &OsStr) -> Result<u64, Failure> {
        let mut problems = 0;
        let top = Path::new(path).file_name().map(PathBuf::from).unwrap_or_default();
        let mut walk = client.walk(path)?;
        while let Some(mut entry) = walk.next_entry()? {
            let below = entry.path().to_owned();
            let name = if below.as_os_str().is_empty() { top.clone() } else { top.join(&below) };
            let path = joined(path, below.as_os_str());
            let archive = self.builder.get_ref().get_ref();
            let outcome = match entry.metadata() {
                Ok(metadata) if metadata.is_file() && archive.is(&metadata) => {
                    self.opts.complain_of(escape(&path), "is the archive, which is left out");
                    continue;
                }
                Ok(metadata) => self.append(&mut entry, &metadata, &name),
                Err(error) => Err(error.into()),
            };
            if entry.has_changed() || matches!(outcome, Ok(Outcome::Changed)) {
                self.opts.warn_of_change(&path);
            }
            let (missing, why) = match outcome {
                Ok(Outcome::Archived | Outcome::Changed) => continue,
                // It changed while the server was away. The walk brings it again.
                Err(Failure::Source(error)) if error.kind() == ErrorKind::FileChanged => continue,
                Ok(Outcome::Skipped(why)) => (0, why),
                Ok(Outcome::Missing(why)) => (1, why),
                Err(Failure::Source(error)) => (1, error.to_string()),
                Err(sink) => return Err(sink),
            };
            problems += missing;
            self.opts.complain_of(escape(&path), why);
        }
        Ok(problems)
    }

    fn append(
        &mut self,
        entry: &mut WalkEntry<'_>,
        metadata: &Metadata,
        name: &Path,
    ) -> Result<Outcome, Failure> {
        let mut header = header(metadata, self.opts.no_preserve);
        if name.as_os_str().is_empty() {
            return Ok(Outcome::Archived); // the server's root itself has no name
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

    fn append_file(
        &mut self,
        header: &mut Header,
        entry: &mut WalkEntry<'_>,
        size: u64,
        name: &Path,
    ) -> Result<Outcome, Failure> {
        // Promise nothing before the first bytes are here: the caller may not read the file at all.
        entry.fill_buf().map_err(Error::from_read)?;
        if size > SMALL || entry.extents().next().is_some() {
            return self.append_large_file(header, entry, size, name);
        }
        let mut content = Vec::new();
        entry.take(LARGEST_UNKNOWN + 1).read_to_end(&mut content).map_err(Error::from_read)?;
        if content.len() as u64 > LARGEST_UNKNOWN {
            let why = "its size is unknown, and it is too large to receive it whole first";
            return Ok(Outcome::Missing(why.to_owned()));
        }
        header.set_size(content.len() as u64);
        self.builder.append_data(header, name, &content[..])?;
        progress::advance(content.len());
        progress::count_file();
        Ok(Outcome::Archived)
    }

    /// The header comes first and promises `size` bytes, so zeros replace missing bytes.
    fn append_large_file(
        &mut self,
        header: &mut Header,
        entry: &mut WalkEntry<'_>,
        size: u64,
        name: &Path,
    ) -> Result<Outcome, Failure> {
        let mut extents: Vec<_> = entry.extents().collect();
        let mut map = Vec::new();
        // Of very many holes, only the first are known yet.
        if extents.iter().map(|extent| extent.hole + extent.data).sum::<u64>() == size {
            map = set_extents(header, &extents, size);
        } else {
            extents = vec![Extent { hole: 0, data: size }];
        }
        let mut left = extents.iter().map(|extent| extent.data).sum();
        header.set_size(left);
        let padding = left.wrapping_neg() % 512;
        self.builder.append_data(header, name, &map[..])?;
        let outcome = match self.append_extents(entry, &extents, &mut left) {
            Err(Failure::Sink(error)) => return Err(error.into()),
            Err(Failure::Source(error)) if left > MOST_ZEROS => {
                let name = escape(name);
                let end = "bytes are missing, so the archive ends here";
                return Err(io::Error::other(format!("{name}: {error}: {left} {end}")).into());
            }
            Err(Failure::Source(error)) if error.kind() != ErrorKind::FileChanged => {
                let why = format!("{error} (the archive has zeros in place of the rest)");
                Ok(Outcome::Missing(why))
            }
            Err(changed) => Err(changed),
            // The server says how the transfer ended only after the last byte. The next server
            // sends the file as it is then, which may be longer.
            Ok(()) => match entry.fill_buf().map(<[u8]>::is_empty) {
                Ok(true) => Ok(Outcome::Archived),
                Ok(false) => Ok(Outcome::Changed),
                Err(error) => Err(Error::from_read(error).into()),
            },
        };
        io::copy(&mut io::repeat(0).take(left + padding), self.builder.get_mut())?;
        if matches!(outcome, Ok(Outcome::Archived | Outcome::Changed)) {
            progress::count_file();
        }
        outcome
    }

    /// Appends the data between the holes, of which `left` bytes are missing yet.
    fn append_extents(
        &mut self,
        entry: &mut WalkEntry<'_>,
        extents: &[Extent],
        left: &mut u64,
    ) -> Result<(), Failure> {
        let parts = extents.iter().flat_map(|extent| [(extent.hole, true), (extent.data, false)]);
        for (mut part, is_hole) in parts {
            while part > 0 {
                let zeros = entry.extents().next().map_or(0, |extent| extent.hole);
                let bytes = entry.fill_buf().map_err(Error::from_read)?;
                let mut count = part.min(bytes.len() as u64);
                if bytes.is_empty() {
                    return Err(Error::corrupt("the file is shorter than announced").into());
                } else if !is_hole {
                    self.builder.get_mut().write_all(&bytes[..count as usize])?;
                    *left -= count;
                } else if bytes[..count as usize].iter().any(|&byte| byte != 0) {
                    // The next server may know of other holes.
                    return Err(Error::corrupt("data in place of a hole").into());
                } else {
                    count = part.min(zeros.max(count));
                }
                entry.consume(count as usize);
                progress::advance(count as usize);
                part -= count;
            }
        }
        Ok(())
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
    match (metadata.mtime(), header.as_gnu_mut()) {
        // Before 1970: two's complement, of 12 bytes: tar(5), GNU format.
        (time @ ..0, Some(gnu)) => {
            gnu.mtime[..4].fill(0xff);
            gnu.mtime[4..].copy_from_slice(&time.to_be_bytes());
        }
        (time, _) => header.set_mtime(time.unsigned_abs()),
    }
    header.set_uid(metadata.uid().as_raw().into());
    header.set_gid(metadata.gid().as_raw().into());
    header
}

/// Most zeros that replace missing bytes. If more are missing, the archive ends.
const MOST_ZEROS: u64 = 1 << 30;

/// Makes an entry one with holes: tar(5), GNU format. Returns the blocks between the header and the
/// data: they name the extents for which the header has no room.
fn set_extents(header: &mut Header, extents: &[Extent], size: u64) -> Vec<u8> {
    header.set_entry_type(EntryType::GNUSparse);
    let gnu = header.as_gnu_mut().expect("made as one of GNU's");
    gnu.set_real_size(size);
    let (mut end, mut blocks) = (0, Vec::new());
    let place = |&Extent { hole, data }: &Extent| {
        end += hole + data;
        (end - data, data)
    };
    let places = extents.iter().map(place).filter(|&(_, data)| data > 0);
    // As GNU tar does it: empty data at the end stands for the size.
    let mut places = places.chain([(size, 0)]).peekable();
    let mut fill = |fields: &mut [GnuSparseHeader]| {
        for (field, (start, length)) in fields.iter_mut().zip(&mut places) {
            field.set_offset(start);
            field.set_length(length);
        }
        places.peek().is_some()
    };
    let mut is_extended = fill(&mut gnu.sparse);
    gnu.set_is_extended(is_extended);
    while is_extended {
        let mut block = GnuExtSparseHeader::new();
        is_extended = fill(block.sparse_mut());
        block.set_is_extended(is_extended);
        blocks.extend_from_slice(block.as_bytes());
    }
    blocks
}
