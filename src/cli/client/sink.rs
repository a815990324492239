//! The output of concatenated files: standard output or a file.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow};

use super::Opts;
use crate::cli::reason;
use crate::client::save::{CleanupGuard, OutputFile};
use crate::escape::escape;

/// The output of concatenated files.
pub(super) enum Sink {
    Stdout(File),
    File(OutputFile),
}

impl Sink {
    pub(super) fn create(opts: &Opts, cleanup: &CleanupGuard) -> Result<Self> {
        match &opts.output {
            // Not io::stdout(), which searches for line ends.
            None => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                Ok(Self::Stdout(stdout.context("standard output")?.into()))
            }
            Some(path) => {
                let file = OutputFile::create(path, cleanup);
                let file = file.map_err(|error| anyhow!("{}: {}", escape(path), reason(&error)))?;
                Ok(Self::File(file))
            }
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.write_all(bytes),
            Self::File(file) => file.write_all(bytes),
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdout(stdout) if stdout.is_terminal())
    }

    /// How much was written. None: it cannot be taken back.
    pub(super) fn position(&self) -> Option<u64> {
        match self {
            Self::Stdout(_) => None,
            Self::File(file) => file.position(),
        }
    }

    pub(super) fn rewind(&mut self, position: u64) -> io::Result<()> {
        match self {
            Self::Stdout(_) => Ok(()),
            Self::File(file) => file.rewind(position),
        }
    }

    pub(super) fn commit(self) -> io::Result<()> {
        match self {
            Self::Stdout(_) => Ok(()),
            Self::File(file) => file.commit(),
        }
    }
}
