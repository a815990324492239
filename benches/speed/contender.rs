//! Programs that do the same work, against each other.

use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::resource::UsageWho;

use crate::neighbours::cpu_of;
use crate::servers::Server;
use crate::spread::Spread;
use crate::stage::{Space, Stage};

/// One way to get the large file.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    pub(crate) server: Option<&'a Server>,
    pub(crate) space: Space,
    /// The command line; see [`Stage::line`].
    line: String,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: &'static str, server: Option<&'a Server>, line: String) -> Self {
        Self { name, server, space: Space::Default, line }
    }

    pub(crate) fn in_space(self, space: Space) -> Self {
        Self { space, ..self }
    }
}

/// Where the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    Null,
    Pipe,
    /// A new file on the same file system.
    File,
    /// The same, but the program makes the file.
    OwnFile,
}

/// The cost of a transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// From the start of the program to its end.
    pub(crate) seconds: f64,
    /// CPU seconds of both ends.
    pub(crate) cpu: f64,
}

/// The costs of transfers, in pairs.
#[derive(Debug)]
pub(crate) struct Pairs(Vec<(Cost, Cost)>);

impl Pairs {
    /// Runs the two in turns: a b, b a, a b, …
    pub(crate) fn run(
        stage: &Stage,
        a: &Contender<'_>,
        b: &Contender<'_>,
        sink: Sink,
        runs: usize,
        size: u64,
    ) -> Self {
        let once = |contender| run(stage, contender, sink, size);
        Self((0..runs).map(|run| in_turns(run, || once(a), || once(b))).collect())
    }

    /// Compares a figure of each transfer: the first's, the second's, and the ratio.
    pub(crate) fn compare(&self, of: impl Fn(&Cost) -> f64) -> (Spread, Spread, Spread) {
        let each = || self.0.iter().map(|(a, b)| (of(a), of(b)));
        let ratios = Spread::of(each().map(|(a, b)| a / b));
        (Spread::of(each().map(|(a, _)| a)), Spread::of(each().map(|(_, b)| b)), ratios)
    }
}

/// Measures two figures in turns: the first's, the second's, and the ratio.
pub(crate) fn in_pairs(
    runs: usize,
    a: impl Fn() -> f64,
    b: impl Fn() -> f64,
) -> (Spread, Spread, Spread) {
    let pairs: Vec<_> = (0..runs).map(|run| in_turns(run, &a, &b)).collect();
    let each = |of: fn(&(f64, f64)) -> f64| Spread::of(pairs.iter().map(of));
    (each(|pair| pair.0), each(|pair| pair.1), each(|pair| pair.0 / pair.1))
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

/// Runs one transfer.
///
/// # Panics
/// If it fails.
pub(crate) fn run(stage: &Stage, contender: &Contender<'_>, sink: Sink, size: u64) -> Cost {
    let server_cpu = || contender.server.map_or(0.0, Server::cpu);
    let copy = stage.path("out/copy");
    let _ = fs::remove_file(&copy);
    let mut command = stage.line(&contender.line);
    match sink {
        Sink::Null | Sink::OwnFile => {}
        Sink::Pipe => {
            command.stdout(Stdio::piped());
        }
        Sink::File => {
            command.stdout(File::create(&copy).expect("our own folder"));
        }
    }
    let (own_before, server_before) = (cpu_of(UsageWho::RUSAGE_CHILDREN), server_cpu());
    let start = Instant::now();
    let mut child = stage
        .within(contender.space, || command.spawn())
        .expect("a namespace that is there")
        .unwrap_or_else(|error| panic!("{}: {error}", contender.name));
    let drained = child.stdout.take().map(drain);
    let status = child.wait().expect("our child");
    let seconds = start.elapsed().as_secs_f64();
    assert!(status.success(), "{}: {status}", contender.name);
    let cpu = cpu_of(UsageWho::RUSAGE_CHILDREN) - own_before + server_cpu() - server_before;
    let arrived = match sink {
        Sink::Pipe => drained,
        Sink::File | Sink::OwnFile => fs::metadata(&copy).ok().map(|copy| copy.len()),
        Sink::Null => None,
    };
    assert!(arrived.is_none_or(|arrived| arrived == size), "{}: {arrived:?}", contender.name);
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
