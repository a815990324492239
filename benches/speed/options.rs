//! What is to be measured, and how thoroughly.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
usage: cargo bench --bench speed -- [--quick] [--only SECTION,…] [--runs N] [--size MIB] [--write DIR]
sections: bulk, raised, requests, latency, sizes, aggregate, tree, idle";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Bulk,
    Raised,
    Requests,
    Latency,
    Sizes,
    Aggregate,
    Tree,
    Idle,
}

impl Section {
    const ALL: [Section; 8] = [
        Section::Bulk,
        Section::Raised,
        Section::Requests,
        Section::Latency,
        Section::Sizes,
        Section::Aggregate,
        Section::Tree,
        Section::Idle,
    ];
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_lowercase())
    }
}

impl FromStr for Section {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|section| section.to_string() == name);
        found.ok_or_else(|| format!("{name}: no such section"))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// In seconds, to see that everything works. Its figures mean nothing.
    pub(crate) quick: bool,
    pub(crate) sections: Vec<Section>,
    /// How many pairs to a figure.
    pub(crate) runs: usize,
    /// The bytes of the large file.
    pub(crate) size: u64,
    /// How long closed-loop clients are counted.
    pub(crate) window: Duration,
    /// Where performance.md and the plots go.
    pub(crate) write: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut quick, mut sections, mut write) = (false, Section::ALL.to_vec(), None);
        let (mut runs, mut mebibytes) = (None, None);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument}: a value is missing"));
            match &*argument {
                "--bench" => {} // from cargo
                "--quick" => quick = true,
                "--only" => {
                    sections = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--runs" => runs = Some(number(&value()?)?),
                "--size" => mebibytes = Some(number(&value()?)?),
                "--write" => write = Some(value()?.into()),
                _ => return Err(format!("{argument}: not an option")),
            }
        }
        let runs = runs.unwrap_or(if quick { 2 } else { 7 }) as usize;
        let mebibytes = mebibytes.unwrap_or(if quick { 32 } else { 1024 });
        let window = Duration::from_millis(if quick { 100 } else { 400 });
        Ok(Self { quick, sections, runs, size: mebibytes << 20, window, write })
    }
}

fn number(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{text}: a number above 0 is expected")),
    }
}
