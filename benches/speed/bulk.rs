//! One large file: how fast it comes, and what it costs at both ends.

use crate::contender::{Contender, Cost, Pairs, Sink};
use crate::options::Options;
use crate::report::{Figure, Report, Target, Unit};
use crate::servers::Server;
use crate::stage::{Space, Stage};

/// The file's data alone in a message: two of them and a lease fit into a default queue.
const DEFAULT_CHUNK: usize = 8136;
const RAISED_CHUNK: usize = 65_368;

/// Who serves the large file.
struct Servers {
    mqfs: Server,
    textbook: Server,
    nginx: Option<Server>,
    rsync: Option<Server>,
}

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let servers = Servers {
        mqfs: Server::mqfs(stage),
        textbook: Server::textbook(stage),
        nginx: Server::nginx(stage, &stage.data()),
        rsync: Server::rsync(stage, &stage.data()),
    };
    to_nothing(stage, options, report, &servers);
    to_a_pipe(stage, options, report, &servers);
    to_a_file(stage, options, report, &servers);
}

fn to_nothing(stage: &Stage, options: &Options, report: &mut Report, servers: &Servers) {
    let mut rows = vec![
        (Some(textbook(stage, servers)), Some(Target::AtLeast(7.0)), Some(Target::AtMost(0.35))),
        (nginx(servers), Some(Target::AtLeast(1.1)), Some(Target::AtMost(2.2))),
        (Some(cat(stage)), None, None),
    ];
    rows.extend(raw(DEFAULT_CHUNK, options.size).map(|raw| (Some(raw), None, None)));
    let ours = ours(servers);
    for (anchor, rate, cpu) in rows {
        let Some(anchor) = anchor else { continue };
        let pairs = Pairs::run(stage, &ours, &anchor, Sink::Null, options.runs, options.size);
        report.add(rate_of(&pairs, "bulk to nothing", &anchor, rate, options));
        report.add(cpu_of(&pairs, "CPU, both ends, bulk to nothing", &anchor, cpu, options));
    }
}

fn to_a_pipe(stage: &Stage, options: &Options, report: &mut Report, servers: &Servers) {
    let ours = ours(servers);
    let runs = options.runs.div_ceil(2);
    for anchor in [Some(textbook(stage, servers)), nginx(servers), Some(cat(stage))] {
        let Some(anchor) = anchor else { continue };
        let pairs = Pairs::run(stage, &ours, &anchor, Sink::Pipe, runs, options.size);
        report.add(rate_of(&pairs, "bulk to a pipe", &anchor, None, options));
    }
}

fn to_a_file(stage: &Stage, options: &Options, report: &mut Report, servers: &Servers) {
    let what = "bulk to a new file on tmpfs";
    for (anchor, target) in [
        (Some(textbook(stage, servers)), None),
        (nginx(servers), Some(Target::AtLeast(1.1))),
        (Some(cat(stage)), Some(Target::AtLeast(0.85))),
    ] {
        let Some(anchor) = anchor else { continue };
        let ours = ours(servers);
        let pairs = Pairs::run(stage, &ours, &anchor, Sink::File, options.runs, options.size);
        report.add(rate_of(&pairs, what, &anchor, target, options));
    }
    let Some(rsync) = &servers.rsync else { return };
    let output = stage.path("out/copy");
    let output = output.display();
    let line = format!("{} -o {output}", fetch(&servers.mqfs));
    let ours = Contender::new("mqfs-client -o", Some(&servers.mqfs), line);
    let line = format!("rsync --whole-file rsync://127.0.0.1:{}/data/big {output}", rsync.at);
    let anchor = Contender::new("rsync daemon", None, line);
    let runs = options.runs.div_ceil(2);
    let pairs = Pairs::run(stage, &ours, &anchor, Sink::OwnFile, runs, options.size);
    report.add(rate_of(&pairs, "bulk to a new file on tmpfs (-o)", &anchor, None, options));
}

/// The same pair with a queue of 1 MiB and messages of 64 KiB against the default limits.
pub(crate) fn measure_raised(stage: &Stage, options: &Options, report: &mut Report) {
    let Some(raised) = stage.within(Space::Raised, || Server::mqfs(stage)) else {
        eprintln!("speed: without raised limits, which take an IPC namespace of its own: root's");
        return;
    };
    let default = Server::mqfs(stage);
    let ours = Contender::new("ours", Some(&raised), fetch(&raised)).in_space(Space::Raised);
    let anchor = Contender::new("ours at default limits", Some(&default), fetch(&default));
    let pairs = Pairs::run(stage, &ours, &anchor, Sink::Null, options.runs, options.size);
    let what = "bulk to nothing, msgmnb 1 MiB, msgmax 64 KiB";
    report.add(rate_of(&pairs, what, &anchor, Some(Target::AtLeast(1.3)), options));
    report.add(cpu_of(&pairs, "CPU, both ends, raised limits", &anchor, None, options));
    for anchor in raw(RAISED_CHUNK, options.size) {
        let anchor = anchor.in_space(Space::Raised);
        let runs = options.runs.div_ceil(2);
        let pairs = Pairs::run(stage, &ours, &anchor, Sink::Null, runs, options.size);
        report.add(rate_of(&pairs, what, &anchor, None, options));
    }
}

fn rate_of(
    pairs: &Pairs,
    what: &str,
    anchor: &Contender<'_>,
    target: Option<Target>,
    options: &Options,
) -> Figure {
    let megabytes = options.size as f64 / 1e6;
    let compared = pairs.compare(|cost: &Cost| megabytes / cost.seconds);
    Figure::new(what, Unit::MegabytesPerSecond, anchor.name, compared, target)
}

fn cpu_of(
    pairs: &Pairs,
    what: &str,
    anchor: &Contender<'_>,
    target: Option<Target>,
    options: &Options,
) -> Figure {
    let gigabytes = options.size as f64 / 1e9;
    // A server's time comes in ticks: none at all may have passed.
    let compared = pairs.compare(|cost: &Cost| cost.cpu.max(1e-4) / gigabytes);
    Figure::new(what, Unit::SecondsPerGigabyte, anchor.name, compared, target)
}

fn ours<'a>(servers: &'a Servers) -> Contender<'a> {
    Contender::new("ours", Some(&servers.mqfs), fetch(&servers.mqfs))
}

fn fetch(server: &Server) -> String {
    format!("mqfs-client --key {} /big", server.at)
}

fn textbook<'a>(stage: &Stage, servers: &'a Servers) -> Contender<'a> {
    let (key, big) = (&servers.textbook.at, stage.file("big"));
    let line = format!("textbook_client --key {key} {}", big.display());
    Contender::new("textbook pair", Some(&servers.textbook), line)
}

fn nginx<'a>(servers: &'a Servers) -> Option<Contender<'a>> {
    let nginx = servers.nginx.as_ref()?;
    let line = format!("curl --silent --unix-socket {} http://nginx/big", nginx.at);
    Some(Contender::new("curl from nginx", Some(nginx), line))
}

fn cat(stage: &Stage) -> Contender<'static> {
    Contender::new("cat", None, format!("cat {}", stage.file("big").display()))
}

/// Two processes that send and receive as many bytes, and do nothing else: blocking, and trying.
fn raw(chunk: usize, size: u64) -> [Contender<'static>; 2] {
    [("raw queue, blocking", "block"), ("raw queue, trying", "try")].map(|(name, policy)| {
        Contender::new(name, None, format!("speed worker raw {policy} {chunk} {size}"))
    })
}
