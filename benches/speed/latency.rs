//! How long one small file takes: as the whole life of a process, and within one.

use crate::options::Options;
use crate::report::{Figure, Report, Unit};
use crate::servers::{Owner, Server};
use crate::spread::Spread;
use crate::stage::Stage;

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let mqfs = Server::mqfs(stage);
    let textbook = Server::textbook(stage, Owner::User);
    let nginx = Server::nginx(stage, &stage.data());
    let small = stage.file("small");
    let (bin, small) = (stage.path("bin"), small.display());
    let (bin, ours, theirs) = (bin.display(), mqfs.at, textbook.at);
    let processes = [
        ("ours", format!("run:{bin}/mqfs-client --key {ours} /small")),
        ("textbook client", format!("run:{bin}/textbook_client --key {theirs} {small}")),
        ("cat", format!("run:cat {small}")),
    ];
    let curl = nginx.as_ref().map(|nginx| {
        let socket = &nginx.at;
        let line = format!("run:curl --silent --unix-socket {socket} http://nginx/small");
        ("curl from nginx", line)
    });
    let kinds: Vec<_> = processes.into_iter().chain(curl).collect();
    compare(stage, options, report, "a small file as a whole process", &kinds);

    let within = [
        ("ours", format!("mqfs-each,{ours},/small")),
        ("textbook's protocol", format!("textbook,{theirs},{small}")),
    ];
    let http = nginx.as_ref().map(|nginx| ("HTTP from nginx", format!("http,{},/small", nginx.at)));
    let kinds: Vec<_> = within.into_iter().chain(http).collect();
    compare(stage, options, report, "a small file within a process", &kinds);
}

/// The first against all others. A run is the median of many, in turns.
pub(crate) fn compare(
    stage: &Stage,
    options: &Options,
    report: &mut Report,
    what: &str,
    kinds: &[(&str, String)],
) {
    let rounds = if options.quick { 5 } else { 50 };
    let runs: Vec<Vec<f64>> = (0..options.runs)
        .map(|_| turns(stage, rounds, kinds.iter().map(|(_, kind)| kind)))
        .collect();
    for (i, (name, _)) in kinds.iter().enumerate().skip(1) {
        let each = |of: &dyn Fn(&Vec<f64>) -> f64| Spread::of(runs.iter().map(of));
        let compared = (each(&|run| run[0]), each(&|run| run[i]), each(&|run| run[0] / run[i]));
        report.add(Figure::new(what, Unit::Milliseconds, name, compared));
    }
}

/// The median time of each kind, in milliseconds.
pub(crate) fn turns<'a>(
    stage: &Stage,
    rounds: usize,
    kinds: impl Iterator<Item = &'a String>,
) -> Vec<f64> {
    let mut worker = stage.worker("turns");
    worker.arg(rounds.to_string()).args(kinds);
    let medians = stage.output_of(&mut worker);
    medians.split_whitespace().map(|us| us.parse::<f64>().expect("a number") / 1e3).collect()
}
