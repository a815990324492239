//! Trials: what mqfs promises, tried under fire. Each prints what it counted, and exits with 0 only
//! if everything held. `cargo run --release --example trials -- faults --faults 2000 --seed 1`
//!
//! They run in an IPC namespace of their own as root, and under a key of their own in any case. They
//! end no process and remove no queue that they did not make; the reapers that they run remove
//! orphans, as any do.

#![allow(unreachable_pub, missing_docs)]

mod crowd;
mod endurance;
mod faults;
mod resume;
mod support;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use support::Report;

/// Trials of mqfs under fire
#[derive(Debug, Parser)]
#[command(name = "trials", after_help = "Exit status: 0 everything held; 1 something did not.")]
struct Opts {
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Debug, Subcommand)]
enum Trial {
    Faults(faults::Opts),
    Resume(resume::Opts),
    Crowd(crowd::Opts),
    Endurance(endurance::Opts),
}

fn main() -> ExitCode {
    let opts = Opts::parse();
    let report = match &opts.trial {
        Trial::Faults(opts) => faults::run(opts),
        Trial::Resume(opts) => resume::run(opts),
        Trial::Crowd(opts) => crowd::run(opts),
        Trial::Endurance(opts) => endurance::run(opts),
    };
    support::go_on();
    report
        .unwrap_or_else(|error| {
            let mut report = Report::default();
            report.wrong(format!("{error:#}"));
            report
        })
        .finish()
}
