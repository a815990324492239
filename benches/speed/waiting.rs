//! What trying before sleeping is worth: our programs against those of a build that differs only in
//! how it waits, alone and beside other programs.
//!
//! `MQFS_BEFORE` names the folder of that build.

use mqfs_kit::Running;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::contender::{Amount, Contender, Pairs, Sink};
use crate::options::Options;
use crate::report::Report;
use crate::servers::{Server, WITHOUT_WINDOWS};
use crate::stage::{Stage, installed};

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    if !stage.has_before() {
        eprintln!("speed: without another way of waiting, which MQFS_BEFORE=FOLDER names");
        return;
    }
    compare(stage, options, report, "alone", options.size);
    on_one_core(|| compare(stage, options, report, "on one core", options.size));
    let spin = format!("{} worker spin", stage.path("bin/speed").display());
    let idle = installed("chrt").map(|chrt| format!("{} --idle 0 {spin}", chrt.display()));
    let others = [("beside SCHED_IDLE programs", idle), ("beside busy programs", Some(spin))];
    for (surroundings, line) in others {
        let Some(line) = line else {
            eprintln!("speed: nothing {surroundings}, which need chrt");
            continue;
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let busy: Vec<_> = (0..cores).map(|_| Running::start(&mut stage.line(&line))).collect();
        compare(stage, options, report, surroundings, options.size / 4);
        drop(busy);
    }
}

/// Where trying is worst: the process that could make room needs the core of the one that tries.
fn on_one_core(work: impl FnOnce()) {
    let us = Pid::from_raw(0);
    let all = sched_getaffinity(us).expect("our own affinity");
    let first = (0..CpuSet::count()).find(|&cpu| all.is_set(cpu) == Ok(true)).expect("a core");
    let mut one = CpuSet::new();
    one.set(first).expect("a core's number");
    sched_setaffinity(us, &one).expect("our own affinity"); // inherited by what is started
    work();
    sched_setaffinity(us, &all).expect("our own affinity");
}

/// Compares the two builds at every kind of work, with a large file of this size.
fn compare(stage: &Stage, options: &Options, report: &mut Report, surroundings: &str, size: u64) {
    stage.make_file("part", size).expect("room for a file");
    stage.make_file("kibibyte", 1024).expect("room for a file");
    let [with, without] = [&[][..], WITHOUT_WINDOWS]
        .map(|arguments| ["", "before/"].map(|build| Server::of_build(stage, build, arguments)));
    let (files, requests) = (size >> 14, size >> 19);
    let fetch = "BUILD/mqfs-client --key KEY /part".to_owned();
    let plain = "textbook_client --key KEY /part".to_owned();
    let small = |kind, times| format!("BUILD/speed worker crowd 1 {times} {kind},KEY,/kibibyte");
    for (what, [ours, before], amount, line) in [
        ("a window", &with, Amount::Bytes(size), fetch.clone()),
        ("without windows", &without, Amount::Bytes(size), fetch),
        ("a plain client", &with, Amount::Bytes(size), plain),
        ("1 KiB, in a session", &with, Amount::Files(files), small("mqfs", files)),
        ("1 KiB, a request each", &with, Amount::Files(requests), small("mqfs-each", requests)),
    ] {
        let line =
            |build, server: &Server| line.replace("BUILD/", build).replace("KEY", &server.at);
        let ours = Contender::new("ours", Some(ours), line("", ours));
        let before = Contender::new("before", Some(before), line("before/", before));
        let pairs = Pairs::run(stage, &ours, &before, Sink::Null, options.runs, amount);
        let what = format!("waiting, {surroundings}: {what}");
        report.add(pairs.rate(&what));
        report.add(pairs.cpu(&what));
    }
}
