//! The options: what to measure, and how thoroughly.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    Bulk,
    Requests,
    Cost,
    Latency,
    Sizes,
    Aggregate,
    Waiting,
    Threshold,
    Paths,
    Tree,
    Crowd,
    Single,
    Idle,
}

/// Compare mqfs with other ways to fetch files
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Take seconds, to see that everything works; the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Measure only these
    #[arg(long, value_enum, value_name = "SECTION,…", value_delimiter = ',')]
    only: Vec<Section>,
    /// At most N pairs to a figure
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// The size of the large file
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    size: Option<u64>,
    /// Write the table into this folder's performance.md, and the plots beside it
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) sections: Vec<Section>,
    /// At most how many pairs to a figure.
    pub(crate) runs: usize,
    /// The bytes of the large file.
    pub(crate) size: u64,
    /// For how long the requests of closed-loop clients are counted.
    pub(crate) window: Duration,
    pub(crate) write: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse() -> Self {
        let Arguments { quick, only, runs, size, write, bench: _ } = Arguments::parse();
        let sections = if only.is_empty() { Section::value_variants().to_vec() } else { only };
        let runs = runs.unwrap_or(if quick { 2 } else { 7 }) as usize;
        let size = size.unwrap_or(if quick { 32 } else { 1024 }) << 20;
        let window = Duration::from_millis(if quick { 100 } else { 400 });
        Self { quick, sections, runs, size, window, write }
    }
}
