//! Programs that do the same work, against each other.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::sys::resource::UsageWho;

use crate::neighbours::cpu_of;
use crate::report::{Figure, Unit};
use crate::servers::Server;
use crate::spread::Spread;
use crate::stage::Stage;

/// One way to get files.
pub(crate) struct Contender<'a> {
    name: &'static str,
    server: Option<&'a Server>,
    /// The command line; see [`Stage::line`].
    line: String,
    /// How many of them run at once.
    count: u64,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: &'static str, server: Option<&'a Server>, line: String) -> Self {
        Self { name, server, line, count: 1 }
    }

    /// So many at once, whose output goes nowhere.
    pub(crate) fn at_once(self, count: u64) -> Self {
        Self { count, ..self }
    }
}

/// Where the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    Null,
    Pipe,
    /// A new file on the same file system.
    File,
}

/// What a contender gets, all of its processes together.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    Bytes(u64),
    Files(u64),
}

/// What it cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// From the start of the first program to the end of the last.
    seconds: f64,
    /// CPU seconds of both ends.
    cpu: f64,
}

/// The costs of ours and of an anchor, in pairs.
#[derive(Debug)]
pub(crate) struct Pairs {
    costs: Vec<(Cost, Cost)>,
    anchor: &'static str,
    amount: Amount,
}

impl Pairs {
    /// Runs the two in turns: a b, b a, a b, …
    pub(crate) fn run(
        stage: &Stage,
        ours: &Contender<'_>,
        anchor: &Contender<'_>,
        sink: Sink,
        runs: usize,
        amount: Amount,
    ) -> Self {
        let once = |contender| run(stage, contender, sink, amount);
        let costs = (0..runs).map(|run| in_turns(run, || once(ours), || once(anchor))).collect();
        Self { costs, anchor: anchor.name, amount }
    }

    /// How much came in a second.
    pub(crate) fn rate(&self, what: &str) -> Figure {
        let (amount, unit) = match self.amount {
            Amount::Bytes(bytes) => (bytes as f64 / 1e6, Unit::MegabytesPerSecond),
            Amount::Files(files) => (files as f64, Unit::FilesPerSecond),
        };
        self.figure(what, unit, |cost| amount / cost.seconds)
    }

    /// What it cost both ends.
    pub(crate) fn cpu(&self, what: &str) -> Figure {
        let (amount, unit) = match self.amount {
            Amount::Bytes(bytes) => (bytes as f64 / 1e9, Unit::SecondsPerGigabyte),
            Amount::Files(files) => (files as f64 / 1e6, Unit::MicrosecondsPerFile),
        };
        // A server's time comes in ticks: none at all may have passed.
        let of = |cost: &Cost| cost.cpu.max(1e-4) / amount;
        self.figure(&format!("CPU, both ends, {what}"), unit, of)
    }

    fn figure(&self, what: &str, unit: Unit, of: impl Fn(&Cost) -> f64) -> Figure {
        let compared = spreads(self.costs.iter().map(|(ours, anchor)| (of(ours), of(anchor))));
        Figure::new(what, unit, self.anchor, compared)
    }
}

/// Measures two figures in turns: the first's, the second's, and the ratio.
pub(crate) fn in_pairs(
    runs: usize,
    a: impl Fn() -> f64,
    b: impl Fn() -> f64,
) -> (Spread, Spread, Spread) {
    let pairs: Vec<_> = (0..runs).map(|run| in_turns(run, &a, &b)).collect();
    spreads(pairs.into_iter())
}

fn spreads(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> (Spread, Spread, Spread) {
    let each = |of: fn((f64, f64)) -> f64| Spread::of(pairs.clone().map(of));
    (each(|(a, _)| a), each(|(_, b)| b), each(|(a, b)| a / b))
}

/// Does both, in alternating order, so that neither profits from a trend.
fn in_turns<T>(run: usize, a: impl FnOnce() -> T, b: impl FnOnce() -> T) -> (T, T) {
    if run.is_multiple_of(2) {
        (a(), b())
    } else {
        let b = b();
        (a(), b)
    }
}

/// Lets a contender fetch this amount.
///
/// # Panics
/// If it fails, or if another number of bytes arrives in the sink.
pub(crate) fn run(stage: &Stage, contender: &Contender<'_>, sink: Sink, amount: Amount) -> Cost {
    let server_cpu = || contender.server.map_or(0.0, Server::cpu);
    let copy = stage.path("out/copy");
    let _ = fs::remove_file(&copy);
    let mut command = stage.line(&contender.line);
    match sink {
        Sink::Null => {}
        Sink::Pipe => {
            command.stdout(Stdio::piped());
        }
        Sink::File => {
            command.stdout(File::create(&copy).expect("our own folder"));
        }
    }
    let (own_before, server_before) = (cpu_of(UsageWho::RUSAGE_CHILDREN), server_cpu());
    let start = Instant::now();
    let mut children: Vec<Child> =
        (0..contender.count).map(|_| command.spawn().expect("the program starts")).collect();
    let drained = children[0].stdout.take().map(drain);
    for child in &mut children {
        let status = child.wait().expect("our child");
        assert!(status.success(), "{}: {status}", contender.name);
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_of(UsageWho::RUSAGE_CHILDREN) - own_before + server_cpu() - server_before;
    let arrived = match sink {
        Sink::Pipe => drained,
        Sink::File => fs::metadata(&copy).ok().map(|copy| copy.len()),
        Sink::Null => None,
    };
    if let (Some(arrived), Amount::Bytes(bytes)) = (arrived, amount) {
        assert_eq!(arrived, bytes, "{}", contender.name);
    }
    let _ = fs::remove_file(&copy);
    Cost { seconds, cpu }
}

/// Reads to the end. The CPU time of this process is not counted.
fn drain(mut pipe: impl Read) -> u64 {
    let mut bytes = vec![0; 64 << 10];
    let mut count = 0;
    while let Ok(read @ 1..) = pipe.read(&mut bytes) {
        count += read as u64;
    }
    count
}
