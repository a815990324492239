//! Many transfers at once: how much arrives in all, and which way of waiting serves that best.
//!
//! Ours are whole processes that fetch a file each. Always blocking, always trying and mqfs's policy
//! are raw pairs that do the same work but for the asking (a file read, two checksums, written out),
//! in as many processes; so only the waiting differs between the three.

use std::process::{Child, Command};
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::options::Options;
use crate::plot::{Curve, Plot};
use crate::report::{Figure, Report, Target, Unit};
use crate::servers::Server;
use crate::spread::{Spread, median};
use crate::stage::{Stage, installed};

/// What fits twice into a default queue, beside a lease.
const CHUNK: &str = "8136";
const POLICIES: [&str; 3] = ["block", "try", "adapt"];
/// Four kinds at up to 64 at once take their time.
const MOST_RUNS: usize = 5;
const TARGET: Option<Target> = Some(Target::AtLeast(0.9));

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let mqfs = Server::mqfs(stage);
    let mut curves = ["mqfs", "raw, blocking", "raw, trying", "raw, our policy"].map(Curve::new);
    let counts: &[u64] = if options.quick { &[1, 4] } else { &[1, 2, 4, 16, 64] };
    for &count in counts {
        // What all of them fetch: enough that starting the processes does not matter.
        let total = options.size * if count < 16 { 1 } else { 2 };
        let rates = Transfers { stage, server: &mqfs, count, size: total / count }.measure(options);
        let each = [&rates.ours, &rates.block, &rates.try_, &rates.adapt];
        for (curve, rates) in curves.iter_mut().zip(each) {
            curve.add(count as f64, median(rates.iter().copied()));
        }
        rates.report_against_better(report, &format!("aggregate, {count} at once"));
    }
    report.plot(Plot {
        name: "transfers",
        title: "All transfers together, by transfers at once",
        x: "transfers at once",
        y: "MB/s",
        curves: curves.into(),
    });
    on_one_core(stage, options, report);
    in_idle_company(stage, options, report);
    in_busy_company(stage, options, report);
}

/// Where trying is worst: whoever is to make room needs the core of who tries.
fn on_one_core(stage: &Stage, options: &Options, report: &mut Report) {
    let us = Pid::from_raw(0);
    let all = sched_getaffinity(us).expect("our own affinity");
    let Some(first) = (0..CpuSet::count()).find(|&cpu| all.is_set(cpu) == Ok(true)) else { return };
    let mut one = CpuSet::new();
    one.set(first).expect("a core's number");
    sched_setaffinity(us, &one).expect("our own affinity"); // inherited by what is started
    let mqfs = Server::mqfs(stage);
    let transfers = Transfers { stage, server: &mqfs, count: 1, size: options.size };
    let rates = transfers.measure(options);
    sched_setaffinity(us, &all).expect("our own affinity");
    rates.report_against_blocking(report, "one transfer, all on one core", TARGET);
}

/// Beside programs that take every moment that nobody else wants.
fn in_idle_company(stage: &Stage, options: &Options, report: &mut Report) {
    let Some(chrt) = installed("chrt") else {
        eprintln!("speed: without company at SCHED_IDLE, which takes chrt");
        return;
    };
    let what = "one transfer, beside SCHED_IDLE programs";
    in_company(stage, options, report, (what, TARGET), || {
        let mut command = stage.command(&chrt);
        command.args(["--idle", "0"]).arg(stage.path("bin/speed")).args(["worker", "spin"]);
        command
    });
}

/// Beside programs that want every core all the time, and have as much right to it.
fn in_busy_company(stage: &Stage, options: &Options, report: &mut Report) {
    let what = "one transfer, beside busy programs";
    in_company(stage, options, report, (what, None), || stage.worker("spin"));
}

fn in_company(
    stage: &Stage,
    options: &Options,
    report: &mut Report,
    (what, target): (&str, Option<Target>),
    command: impl Fn() -> Command,
) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let company = Company::invite(cores, command);
    let mqfs = Server::mqfs(stage);
    let transfers = Transfers { stage, server: &mqfs, count: 1, size: options.size / 8 };
    let rates = transfers.measure(options);
    drop(company);
    rates.report_against_blocking(report, what, target);
}

/// Processes that do nothing, with all their might, until this goes.
struct Company(Vec<Child>);

impl Company {
    fn invite(count: usize, command: impl Fn() -> Command) -> Self {
        Self((0..count).map(|_| command().spawn().expect("the program starts")).collect())
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A number of transfers at once, of a file of this size.
struct Transfers<'a> {
    stage: &'a Stage,
    server: &'a Server,
    count: u64,
    size: u64,
}

/// MB/s, run by run.
#[derive(Debug, Default)]
struct Rates {
    ours: Vec<f64>,
    block: Vec<f64>,
    try_: Vec<f64>,
    adapt: Vec<f64>,
}

impl Transfers<'_> {
    /// Ours and each policy, in turns.
    fn measure(&self, options: &Options) -> Rates {
        self.stage.make_file("part", self.size).expect("room for a file");
        let mut rates = Rates::default();
        for run in 0..options.runs.min(MOST_RUNS) {
            for turn in 0..4 {
                match (run + turn) % 4 {
                    0 => rates.ours.push(self.rate(|| self.fetch())),
                    1 => rates.block.push(self.rate(|| self.raw(POLICIES[0]))),
                    2 => rates.try_.push(self.rate(|| self.raw(POLICIES[1]))),
                    _ => rates.adapt.push(self.rate(|| self.raw(POLICIES[2]))),
                }
            }
        }
        rates
    }

    fn fetch(&self) -> Command {
        let mut command = self.stage.command("mqfs-client");
        command.args(["--key", &self.server.key(), "/part"]);
        command
    }

    fn raw(&self, policy: &str) -> Command {
        let mut command = self.stage.worker("raw");
        command.args([policy, CHUNK, &self.size.to_string()]).arg(self.stage.file("part"));
        command
    }

    fn rate(&self, command: impl Fn() -> Command) -> f64 {
        let start = Instant::now();
        let children: Vec<Child> =
            (0..self.count).map(|_| command().spawn().expect("the program starts")).collect();
        for mut child in children {
            let status = child.wait().expect("our child");
            assert!(status.success(), "{status}");
        }
        (self.count * self.size) as f64 / 1e6 / start.elapsed().as_secs_f64()
    }
}

impl Rates {
    fn report_against_better(&self, report: &mut Report, what: &str) {
        let pairs = self.block.iter().zip(&self.try_);
        let better: Vec<_> = pairs.map(|(block, try_)| block.max(*try_)).collect();
        let [block, try_] = [&self.block, &self.try_].map(|rates| median(rates.iter().copied()));
        let anchor = format!("better of blocking ({block:.0}) and trying ({try_:.0})");
        self.report(report, (what, TARGET), &anchor, &better);
    }

    fn report_against_blocking(&self, report: &mut Report, what: &str, target: Option<Target>) {
        self.report(report, (what, target), "raw, blocking", &self.block);
    }

    fn report(
        &self,
        report: &mut Report,
        (what, target): (&str, Option<Target>),
        anchor: &str,
        others: &[f64],
    ) {
        let policy = format!("{what}: raw, our policy");
        for (what, ours) in [(what, &self.ours), (&*policy, &self.adapt)] {
            let ratios = Spread::of(ours.iter().zip(others).map(|(ours, other)| ours / other));
            let of = |rates: &[f64]| Spread::of(rates.iter().copied());
            let compared = (of(ours), of(others), ratios);
            report.add(Figure::new(what, Unit::MegabytesPerSecond, anchor, compared, target));
        }
    }
}
