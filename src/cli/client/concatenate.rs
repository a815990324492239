//! Files one after the other, to standard output or into one file.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use anyhow::{Result, anyhow};

use super::Opts;
use crate::cli::progress;
use crate::cli::remedy::explain_output;
use crate::client::save::{CleanupGuard, OutputFile};
use crate::client::{Client, Transfer};
use crate::escape::escape;
use crate::wire::Range;

pub(super) fn run(opts: &Opts, client: &Client, cleanup: &CleanupGuard) -> Result<u8> {
    let mut sink = match &opts.output {
        // Not io::stdout(), which searches for line ends.
        None => OutputFile::stdout()?,
        Some(path) => OutputFile::create(path, cleanup)
            .map_err(|error| anyhow!(explain_output(path, &error)))?,
    };
    let into_terminal = opts.output.is_none() && io::stdout().is_terminal();
    progress::start(opts.progress(), into_terminal);
    let range = Range { offset: opts.offset, length: opts.length };
    let mut files = client.fetch_all(&opts.paths, range);
    let status = opts.fetch_each(&opts.paths, |path| {
        let start = sink.position();
        // Standard output cannot take back what was written.
        let retries = start.map_or(0, |_| opts.retries);
        let fetch = |transfer: &mut Transfer| {
            start.map_or(Ok(()), |start| sink.rewind(start))?;
            if let Some(original) = transfer.metadata() {
                if sink.is(&original) {
                    let why = format!("it is {} itself, the file to fetch", escape(path));
                    return Err(io::Error::other(why).into());
                }
                sink.limit_rights(&original)?;
            }
            while transfer.wait()? {
                progress::advance(transfer.write_to(sink.as_fd(), start.is_some())?);
            }
            Ok(())
        };
        opts.fetch_file(&mut files, path, retries, fetch).map(|()| true)
    })?;
    if status == 0 {
        sink.commit()?;
    }
    Ok(status)
}
