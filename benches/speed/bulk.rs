//! One large file: how fast it comes, and what it costs at both ends.

use std::process::Command;

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
    socat: Option<Server>,
    rsync: Option<Server>,
}

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let servers = Servers {
        mqfs: Server::mqfs(stage),
        textbook: Server::textbook(stage),
        nginx: Server::nginx(stage),
        socat: Server::socat(stage, &stage.file("big")),
        rsync: Server::rsync(stage),
    };
    to_nothing(stage, options, report, &servers);
    to_a_pipe(stage, options, report, &servers);
    to_a_file(stage, options, report, &servers);
}

fn to_nothing(stage: &Stage, options: &Options, report: &mut Report, servers: &Servers) {
    let mut rows = vec![
        (Some(textbook(stage, servers)), Some(Target::AtLeast(7.0)), Some(Target::AtMost(0.35))),
        (nginx(stage, servers), Some(Target::AtLeast(1.1)), Some(Target::AtMost(2.2))),
        (socat(stage, servers), None, None),
        (Some(cat(stage)), None, None),
    ];
    for (name, policy) in [("raw queue, blocking", "block"), ("raw queue, trying", "try")] {
        rows.push((Some(raw(stage, name, policy, DEFAULT_CHUNK, options.size)), None, None));
    }
    let ours = ours(stage, servers);
    for (anchor, rate, cpu) in rows {
        let Some(anchor) = anchor else { continue };
        let pairs = Pairs::run(stage, &ours, &anchor, Sink::Null, options.runs, options.size);
        report.add(rate_of(&pairs, "bulk to nothing", &anchor, rate, options));
        report.add(cpu_of(&pairs, "CPU, both ends, bulk to nothing", &anchor, cpu, options));
    }
}

fn to_a_pipe(stage: &Stage, options: &Options, report: &mut Report, servers: &Servers) {
    let ours = ours(stage, servers);
    let runs = options.runs.div_ceil(2);
    for anchor in [Some(textbook(stage, servers)), nginx(stage, servers), Some(cat(stage))] {
        let Some(anchor) = anchor else { continue };
        let pairs = Pairs::run(stage, &ours, &anchor, Sink::Pipe, runs, options.size);
        report.add(rate_of(&pairs, "bulk to a pipe", &anchor, None, options));
    }
}

fn to_a_file(stage: &Stage, options: &Options, report: &mut Report, servers: &Servers) {
    let what = "bulk to a new file on tmpfs";
    for (anchor, target) in [
        (Some(textbook(stage, servers)), None),
        (nginx(stage, servers), Some(Target::AtLeast(1.1))),
        (Some(cat(stage)), Some(Target::AtLeast(0.85))),
    ] {
        let Some(anchor) = anchor else { continue };
        let ours = ours(stage, servers);
        let pairs = Pairs::run(stage, &ours, &anchor, Sink::File, options.runs, options.size);
        report.add(rate_of(&pairs, what, &anchor, target, options));
    }
    let Some(rsync) = &servers.rsync else { return };
    let output = stage.path("out").join("copy");
    let ours = Contender::new("mqfs-client -o", Some(&servers.mqfs), || {
        let mut command = ours_command(stage, servers);
        command.arg("-o").arg(&output);
        command
    });
    let anchor = Contender::new("rsync daemon", None, || {
        let mut command = stage.command("rsync");
        let port = rsync.port();
        command.args(["--whole-file", &format!("rsync://127.0.0.1:{port}/data/big")]);
        command.arg(&output);
        command
    });
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
    let fetch = |server: &Server| {
        let mut command = stage.command("mqfs-client");
        command.args(["--key", &server.key(), "/big"]);
        command
    };
    let ours = Contender::new("ours", Some(&raised), || fetch(&raised)).in_space(Space::Raised);
    let anchor = Contender::new("ours at default limits", Some(&default), || fetch(&default));
    let pairs = Pairs::run(stage, &ours, &anchor, Sink::Null, options.runs, options.size);
    let what = "bulk to nothing, msgmnb 1 MiB, msgmax 64 KiB";
    report.add(rate_of(&pairs, what, &anchor, Some(Target::AtLeast(1.3)), options));
    report.add(cpu_of(&pairs, "CPU, both ends, raised limits", &anchor, None, options));
    for (name, policy) in [("raw queue, blocking", "block"), ("raw queue, trying", "try")] {
        let anchor = raw(stage, name, policy, RAISED_CHUNK, options.size).in_space(Space::Raised);
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

fn ours<'a>(stage: &'a Stage, servers: &'a Servers) -> Contender<'a> {
    Contender::new("ours", Some(&servers.mqfs), || ours_command(stage, servers))
}

fn ours_command(stage: &Stage, servers: &Servers) -> Command {
    let mut command = stage.command("mqfs-client");
    command.args(["--key", &servers.mqfs.key(), "/big"]);
    command
}

fn textbook<'a>(stage: &'a Stage, servers: &'a Servers) -> Contender<'a> {
    Contender::new("textbook pair", Some(&servers.textbook), || {
        let mut command = stage.command("textbook_client");
        command.args(["--key", &servers.textbook.key()]).arg(stage.file("big"));
        command
    })
}

fn nginx<'a>(stage: &'a Stage, servers: &'a Servers) -> Option<Contender<'a>> {
    let nginx = servers.nginx.as_ref()?;
    Some(Contender::new("curl from nginx", Some(nginx), || {
        let mut command = stage.command("curl");
        command.args(["--silent", "--unix-socket"]).arg(nginx.socket()).arg("http://nginx/big");
        command
    }))
}

fn socat<'a>(stage: &'a Stage, servers: &'a Servers) -> Option<Contender<'a>> {
    let socat = servers.socat.as_ref()?;
    Some(Contender::new("socat", Some(socat), || {
        let mut command = stage.command("socat");
        command.args(["-b", "65536", "-u"]);
        command.arg(format!("UNIX-CONNECT:{}", socat.socket().display())).arg("STDOUT");
        command
    }))
}

fn cat(stage: &Stage) -> Contender<'_> {
    Contender::new("cat", None, || {
        let mut command = stage.command("cat");
        command.arg(stage.file("big"));
        command
    })
}

/// Two processes that send and receive as many bytes, and do nothing else.
fn raw<'a>(
    stage: &'a Stage,
    name: &'static str,
    policy: &'static str,
    chunk: usize,
    size: u64,
) -> Contender<'a> {
    Contender::new(name, None, move || {
        let mut command = stage.worker("raw");
        command.args([policy, &chunk.to_string(), &size.to_string()]);
        command
    })
}
