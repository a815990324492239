//! Files and trees, written below a folder.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Opts, PROGRAM};
use crate::cli::progress::Progress;
use crate::cli::{FAILED, complain, reason};
use crate::client::save::{CleanupGuard, Dir, Event, Report, WriteOptions, write_file, write_tree};
use crate::client::{Client, Error, ErrorKind};
use crate::escape::escape;

pub(super) fn run(
    opts: &Opts,
    client: &Client,
    folder: &Path,
    cleanup: &CleanupGuard,
) -> Result<ExitCode> {
    let failed = |error| anyhow!("{}: {}", escape(folder), reason(&error));
    let folder = Dir::open(folder).map_err(failed)?;
    let options = WriteOptions::default().preserve(!opts.no_preserve).cleanup_guard(cleanup);
    let progress = Progress::start(opts.progress(), false);
    let mut status = 0;
    for path in &opts.paths {
        let name = base_name(path);
        progress.begin(path, None);
        let outcome = copy(opts, client, path, &folder, name, &options, &progress);
        progress.end();
        match outcome {
            Ok(report) if report.problems == 0 => opts.tell_of_tree(path, &report),
            Ok(report) => {
                opts.tell_of_tree(path, &report);
                opts.complain_of(escape(path), missing(report.problems));
                status = FAILED;
            }
            Err(error) => match opts.failed(path, &error) {
                Some(exit) => return Ok(exit),
                None => status = FAILED,
            },
        }
    }
    opts.tell_of_all(&progress);
    Ok(ExitCode::from(status))
}

fn copy(
    opts: &Opts,
    client: &Client,
    path: &OsStr,
    folder: &Dir,
    name: Option<&OsStr>,
    options: &WriteOptions,
    progress: &Progress,
) -> Result<Report, Error> {
    let mut on_event = |event: Event<'_>| {
        match &event {
            Event::Bytes(count) => progress.advance(*count),
            Event::Done { metadata, .. } if metadata.is_file() => progress.count_file(),
            _ => {}
        }
        tell(opts, path, &event);
    };
    if opts.recursive {
        let mut walk = client.walk(path)?;
        return write_tree(&mut walk, folder, name, options, &mut on_event);
    }
    let mut tries = opts.retries;
    loop {
        let mut transfer = client.open(path)?;
        // Only directories have no name, and those cannot be opened.
        let name = name.unwrap_or_default();
        match write_file(&mut transfer, folder, name, options, &mut on_event) {
            Err(error) if error.kind() == ErrorKind::FileChanged && tries > 0 => tries -= 1,
            Err(error) => return Err(error),
            Ok(report) => {
                progress.count_file();
                opts.tell_of(path, &transfer);
                return Ok(report);
            }
        }
    }
}

/// Says what is to be said at once.
fn tell(opts: &Opts, top: &OsStr, event: &Event<'_>) {
    match event {
        Event::Problem { path, why } => {
            opts.complain_of(escape(&joined(top, path.as_os_str())), why);
        }
        Event::Changed { path } if opts.recursive => {
            let path = joined(top, path.as_os_str());
            opts.complain_of(escape(&path), "warning: the file changed while it was read");
        }
        _ => {}
    }
}

impl Opts {
    fn tell_of_tree(&self, path: &OsStr, report: &Report) {
        if !self.verbose || !self.recursive {
            return;
        }
        let Report { files, directories, links, bytes, .. } = report;
        let path = escape(path);
        complain(
            PROGRAM,
            format!(
                "{path}: {files} files, {directories} directories, {links} links, \
                 {bytes} bytes, verified"
            ),
        );
    }
}

/// How many entries are not there, in words.
pub(super) fn missing(problems: u64) -> String {
    let entries = if problems == 1 { "entry is" } else { "entries are" };
    format!("incomplete: {problems} {entries} missing")
}

/// The path of something below the top.
pub(super) fn joined(top: &OsStr, below: &OsStr) -> OsString {
    let mut path = top.to_owned();
    if !below.is_empty() {
        if !path.as_encoded_bytes().ends_with(b"/") {
            path.push("/");
        }
        path.push(below);
    }
    path
}

/// The last name in a path; none in "/", "." and "..".
pub(super) fn base_name(path: &OsStr) -> Option<&OsStr> {
    Path::new(path).file_name()
}

/// A tree takes a descriptor for each level of it.
pub(super) fn raise_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
