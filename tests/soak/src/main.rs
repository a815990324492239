//! Soak tests: what mqfs promises, tried for long and under faults. Each prints what it counted,
//! and exits with 0 only if everything held.
//!
//! ```sh
//! cargo run --release -p mqfs-soak -- faults --faults 2000 --seed 1
//! ```
//!
//! As root they run in an IPC namespace of their own, otherwise under a key of their own. They end
//! no process and remove no queue that they did not make; the reapers that they run remove orphans,
//! as any reaper does.

#![allow(unreachable_pub, missing_docs)]

mod endurance;
mod faults;
mod namespace;
mod report;
mod site;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use report::Report;

/// Soak tests of mqfs
#[derive(Debug, Parser)]
#[command(name = "mqfs-soak", after_help = "Exit status: 0 everything held; 1 something did not.")]
struct Opts {
    #[command(subcommand)]
    test: SoakTest,
}

#[derive(Debug, Subcommand)]
enum SoakTest {
    Faults(faults::Opts),
    Endurance(endurance::Opts),
}

fn main() -> ExitCode {
    let opts = Opts::parse();
    let report = match &opts.test {
        SoakTest::Faults(opts) => faults::run(opts),
        SoakTest::Endurance(opts) => endurance::run(opts),
    };
    site::park_if_interrupted();
    report
        .unwrap_or_else(|error| {
            let mut report = Report::default();
            report.wrong(format!("{error:#}"));
            report
        })
        .finish()
}
