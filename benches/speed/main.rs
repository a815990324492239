//! How fast mqfs is beside its anchors. Each figure and its anchor run in interleaved pairs; the
//! result is the median of the pairs' ratios, with minimum and maximum.
//!
//! ```text
//! cargo bench --bench speed -- [--quick] [--only SECTION,…] [--runs N] [--size MIB] [--write DIR]
//! ```
//!
//! This process starts programs and takes the time. What it measures runs in other processes:
//! mqfs's programs, the textbook pair of `examples/`, other people's programs, and [`workers`] of
//! this one. If root starts it, it puts them into an IPC namespace of their own and runs them as a
//! user without privileges; otherwise it says what it leaves out.

#![allow(missing_docs)]

mod aggregate;
mod bulk;
mod contender;
mod cost;
mod files;
mod idle;
mod latency;
mod neighbours;
mod options;
mod plot;
mod report;
mod requests;
mod servers;
mod sizes;
mod spread;
mod stage;
mod threshold;
mod waiting;
mod workers;

use std::process::ExitCode;

use files::Site;
use options::{Options, Section};
use report::Report;
use stage::Stage;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if_eq("worker").is_some() {
        return workers::main(arguments);
    }
    let options = Options::parse();
    let stage = Stage::set(&options);
    let mut report = Report::new(&stage, &options);
    for &section in &options.sections {
        eprintln!("speed: {section:?}");
        match section {
            Section::Bulk => bulk::measure(&stage, &options, &mut report),
            Section::Requests => requests::measure(&stage, &options, &mut report),
            Section::Cost => cost::measure(&stage, &options, &mut report),
            Section::Latency => latency::measure(&stage, &options, &mut report),
            Section::Sizes => sizes::measure(&stage, &options, &mut report),
            Section::Aggregate => aggregate::measure(&stage, &options, &mut report),
            Section::Waiting => waiting::measure(&stage, &options, &mut report),
            Section::Threshold => threshold::measure(&stage, &options, &mut report),
            Section::Paths => files::measure(&stage, &options, &mut report, Site::paths),
            Section::Tree => files::measure(&stage, &options, &mut report, Site::tree),
            Section::Crowd => files::measure(&stage, &options, &mut report, Site::crowd),
            Section::Single => files::measure(&stage, &options, &mut report, Site::single),
            Section::Idle => idle::measure(&stage, &mut report),
        }
    }
    report.end();
    println!("{}", report.to_text());
    if let Some(folder) = &options.write
        && let Err(error) = report.write(folder)
    {
        eprintln!("speed: {}: {error}", folder.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
