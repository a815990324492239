//! Many transfers at once: their total rate, and which way of waiting is best.
//!
//! Ours are whole processes that fetch a file each. "Blocking", "trying" and "our policy" are raw
//! pairs in as many processes, which do the same work except the request: they read a file,
//! checksum it twice and write it. Only the way of waiting differs between the three.

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

/// Two messages of this size and a lease fit into a default queue.
const CHUNK: &str = "8136";
const POLICIES: [&str; 3] = ["block", "try", "adapt"];
/// Fewer runs than elsewhere: four kinds, up to 64 transfers at once.
const MOST_RUNS: usize = 5;
const TARGET: Option<Target> = Some(Target::AtLeast(0.9));

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let mqfs = Server::mqfs(stage);
    let mut curves = ["mqfs", "raw, blocking", "raw, trying", "raw, our policy"].map(Curve::new);
    let counts: &[u64] = if options.quick { &[1, 4] } else { &[1, 2, 4, 16, 64] };
    for &count in counts {
        // Enough bytes in all that the start of the processes does not matter.
        let total = options.size * if count < 16 { 1 } else { 2 };
        let rates = Transfers { stage, server: &mqfs, count, size: total / count }.measure(options);
        for (curve, rates) in curves.iter_mut().zip(&rates) {
            curve.add(count as f64, median(rates.iter().copied()));
        }
        report_against_better(report, &format!("aggregate, {count} at once"), &rates);
    }
    report.plot(Plot {
        name: "transfers",
        title: "All transfers together, by transfers at once",
        x: "transfers at once",
        y: "MB/s",
        curves: curves.into(),
    });
    on_one_core(stage, options, report);
    let spin = format!("{} worker spin", stage.path("bin/speed").display());
    match installed("chrt") {
        Some(chrt) => {
            let what = "one transfer, beside SCHED_IDLE programs";
            let line = format!("{} --idle 0 {spin}", chrt.display());
            beside_others(stage, options, report, (what, TARGET), &line);
        }
        None => eprintln!("speed: without programs at SCHED_IDLE, which need chrt"),
    }
    let what = "one transfer, beside busy programs";
    beside_others(stage, options, report, (what, None), &spin);
}

/// Where trying is worst: the process that could make room needs the core of the one that tries.
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
    report_against_blocking(report, "one transfer, all on one core", &rates, TARGET);
}

/// Beside a busy program for each core: one that runs only when a core is idle, or one that has the
/// same priority as ours.
fn beside_others(
    stage: &Stage,
    options: &Options,
    report: &mut Report,
    (what, target): (&str, Option<Target>),
    line: &str,
) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let others = BusyProcesses::start(cores, || stage.line(line));
    let mqfs = Server::mqfs(stage);
    let transfers = Transfers { stage, server: &mqfs, count: 1, size: options.size / 8 };
    let rates = transfers.measure(options);
    drop(others);
    report_against_blocking(report, what, &rates, target);
}

/// Busy processes, which end with this handle.
struct BusyProcesses(Vec<Child>);

impl BusyProcesses {
    fn start(count: usize, command: impl Fn() -> Command) -> Self {
        Self((0..count).map(|_| command().spawn().expect("the program starts")).collect())
    }
}

impl Drop for BusyProcesses {
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

/// MB/s, run by run: ours, and those of each policy.
type Rates = [Vec<f64>; 4];

impl Transfers<'_> {
    /// Ours and each policy, in turns.
    fn measure(&self, options: &Options) -> Rates {
        self.stage.make_file("part", self.size).expect("room for a file");
        let mut rates = Rates::default();
        for run in 0..options.runs.min(MOST_RUNS) {
            for turn in 0..4 {
                let kind = (run + turn) % 4;
                rates[kind].push(match kind {
                    0 => self.rate(&format!("mqfs-client --key {} /part", self.server.at)),
                    policy => self.rate(&format!(
                        "speed worker raw {} {CHUNK} {} {}",
                        POLICIES[policy - 1],
                        self.size,
                        self.stage.file("part").display()
                    )),
                });
            }
        }
        rates
    }

    fn rate(&self, line: &str) -> f64 {
        let start = Instant::now();
        let children: Vec<Child> = (0..self.count)
            .map(|_| self.stage.line(line).spawn().expect("the program starts"))
            .collect();
        for mut child in children {
            let status = child.wait().expect("our child");
            assert!(status.success(), "{status}");
        }
        (self.count * self.size) as f64 / 1e6 / start.elapsed().as_secs_f64()
    }
}

fn report_against_better(report: &mut Report, what: &str, rates: &Rates) {
    let [_, block, try_, _] = rates;
    let better: Vec<_> = block.iter().zip(try_).map(|(block, try_)| block.max(*try_)).collect();
    let [block, try_] = [block, try_].map(|rates| median(rates.iter().copied()));
    let anchor = format!("better of blocking ({block:.0}) and trying ({try_:.0})");
    report_against(report, (what, TARGET), rates, &anchor, &better);
}

fn report_against_blocking(report: &mut Report, what: &str, rates: &Rates, target: Option<Target>) {
    report_against(report, (what, target), rates, "raw, blocking", &rates[1]);
}

fn report_against(
    report: &mut Report,
    (what, target): (&str, Option<Target>),
    rates: &Rates,
    anchor: &str,
    others: &[f64],
) {
    let policy = format!("{what}: raw, our policy");
    for (what, ours) in [(what, &rates[0]), (&*policy, &rates[3])] {
        let ratios = Spread::of(ours.iter().zip(others).map(|(ours, other)| ours / other));
        let of = |rates: &[f64]| Spread::of(rates.iter().copied());
        let compared = (of(ours), of(others), ratios);
        report.add(Figure::new(what, Unit::MegabytesPerSecond, anchor, compared, target));
    }
}
