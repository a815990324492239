//! What one request costs the server and its child: page faults, mappings, system calls, CPU time.
//!
//! `MQFS_BEFORE` may name the folder of an older build, which is then measured too.

use std::fs;
use std::process::Stdio;

use mqfs_kit::{Running, wait_until};

use crate::options::Options;
use crate::report::{Figure, Report, Unit};
use crate::servers::{Owner, Server};
use crate::stage::{Stage, installed};

pub(crate) fn measure(stage: &Stage, options: &Options, report: &mut Report) {
    let requests = if options.quick { 50 } else { 3000 };
    let mut kinds = vec![("a user's server", "speed", Server::mqfs(stage))];
    if stage.uid().is_some() {
        let roots = Server::mqfs_of(stage, "", &stage.data(), Owner::Root, &[]);
        kinds.push(("root's server, for a user", "speed", roots));
    }
    if stage.has_before() {
        let before = Server::of_build(stage, "before/", &[]);
        kinds.push(("a user's server, before", "before/speed", before));
    }
    let sources = kinds.into_iter().map(|(who, program, server)| {
        (who, program, format!("mqfs-each,{},/small", server.at), server)
    });
    let textbook = Server::textbook(stage, Owner::User);
    let source = format!("textbook,{},{}", textbook.at, stage.file("small").display());
    for (who, program, source, server) in
        sources.chain([("the textbook's server", "speed", source, textbook)])
    {
        let ask = |times: u32| {
            let mut worker = stage.worker_of(program, "turns");
            stage.output_of(worker.args([times.to_string(), source.clone()]));
        };
        ask(50); // until nothing is done for the first time
        let pid = server.pid();
        let mut add = |what: &str, unit, count: f64| {
            report.add(Figure::alone(&format!("{who}: {what}"), unit, count));
        };
        let so_far = || (server.cpu(), page_faults(pid)); // the first waits for the children's end
        let (cpu, faults) = so_far();
        ask(requests);
        let (cpu_now, faults_now) = so_far();
        let each = |all: f64| all / f64::from(requests);
        add("page faults per request", Unit::Count, each(faults_now - faults));
        add("CPU time per request", Unit::Microseconds, each(cpu_now - cpu) * 1e6);
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("our own server");
        add("mappings", Unit::Count, maps.lines().count() as f64);
        if let Some(calls) = system_calls(stage, pid, || ask(100)) {
            add("system calls per request", Unit::Count, calls / 100.0);
        }
    }
}

/// The minor page faults of a process and of its children, which have ended.
fn page_faults(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("our own server");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    // minflt and cminflt, the fields 10 and 11: proc_pid_stat(5).
    let field = |number: usize| fields.split_whitespace().nth(number - 3)?.parse::<f64>().ok();
    field(10).zip(field(11)).map(|(own, childrens)| own + childrens).expect("two numbers")
}

/// The system calls of a process and its children during some work. None: without strace.
fn system_calls(stage: &Stage, pid: i32, work: impl FnOnce()) -> Option<f64> {
    let counts = stage.path("calls");
    let mut strace = std::process::Command::new(installed("strace")?);
    strace.args(["-f", "-c", "-p", &pid.to_string(), "-o"]).arg(&counts).stderr(Stdio::null());
    let tracer = Running::start(&mut strace);
    let traced = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    wait_until("strace traces it", || !traced().contains("TracerPid:\t0\n"));
    work();
    drop(tracer);
    let total = fs::read_to_string(&counts).ok()?;
    // % time, seconds, usecs/call, calls, errors, "total"
    total.lines().last()?.split_whitespace().nth(3)?.parse().ok()
}
