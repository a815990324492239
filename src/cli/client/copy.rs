//! Files and trees, written into a directory under their own names.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Result, anyhow};
use nix::sys::stat::{Mode, umask};

use super::{Failure, Opts, PROGRAM, joined};
use crate::cli::remedy::explain_output;
use crate::cli::{complain, progress};
use crate::client::save::{CleanupGuard, Dir, Event, Report, WriteOptions, write_file, write_tree};
use crate::client::{Client, Files, Transfer};
use crate::escape::escape;

pub(super) fn run(
    opts: &Opts,
    client: &Client,
    directory: &Path,
    cleanup: &CleanupGuard,
) -> Result<u8> {
    let failed = |error| anyhow!(explain_output(directory, &error));
    let directory = Dir::open(directory).map_err(failed)?;
    let options = WriteOptions { no_preserve: opts.no_preserve, cleanup: cleanup.clone() };
    progress::start(opts.progress(), false);
    let copy = Copy { opts, directory, options };
    let mut files = client.open_all(&opts.paths);
    if opts.recursive {
        // The owner of a new directory must be able to write into it.
        let mask = umask(Mode::empty());
        umask(mask - Mode::S_IRWXU);
    }
    opts.fetch_each_tree(|path| match opts.recursive {
        true => copy.fetch_tree(client, path),
        false => copy.fetch_file(&mut files, path),
    })
}

struct Copy<'a> {
    opts: &'a Opts,
    directory: Dir,
    options: WriteOptions,
}

impl Copy<'_> {
    /// Fetches a tree. Returns how many entries are missing.
    fn fetch_tree(&self, client: &Client, path: &OsStr) -> Result<u64, Failure> {
        let name = Path::new(path).file_name();
        let mut on_event = |event: Event<'_>| self.on_event(path, &event);
        let mut walk = client.walk(path)?;
        let report = write_tree(&mut walk, &self.directory, name, &self.options, &mut on_event)?;
        let Report { files, directories, links, bytes, problems, .. } = report;
        if self.opts.verbose {
            let counts = format!("{files} files, {directories} directories, {links} links");
            complain(PROGRAM, format!("{}: {counts}, {bytes} bytes, verified", escape(path)));
        }
        Ok(problems)
    }

    fn fetch_file(&self, files: &mut Files, path: &OsStr) -> Result<u64, Failure> {
        let mut on_event = |event: Event<'_>| self.on_event(path, &event);
        // Only directories have no name, and those cannot be opened.
        let name = Path::new(path).file_name().unwrap_or_default();
        let write = |transfer: &mut Transfer| {
            Ok(write_file(transfer, &self.directory, name, &self.options, &mut on_event)?)
        };
        self.opts.fetch_file(files, path, self.opts.retries, write).map(|()| 0)
    }

    fn on_event(&self, top: &OsStr, event: &Event<'_>) {
        match event {
            Event::Bytes(count) => progress::advance(*count),
            Event::Done(_, metadata) if metadata.is_file() => progress::count_file(),
            Event::Problem(path, why) | Event::Skipped(path, why) => {
                self.opts.complain_of(escape(&joined(top, path.as_os_str())), why);
            }
            Event::Changed(path) => self.opts.warn_of_change(&joined(top, path.as_os_str())),
            _ => {}
        }
    }
}
