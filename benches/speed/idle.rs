//! What idle programs use: memory, and CPU time, which they should not.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use mqfs_kit::{children_of, cpu_of, number, wait_until};

use crate::report::{Figure, Report, Unit};
use crate::servers::{Owner, Server};
use crate::stage::Stage;

/// How long the programs are watched.
const REST: Duration = Duration::from_secs(1);

pub(crate) fn measure(stage: &Stage, report: &mut Report) {
    let mqfs = Server::mqfs(stage);
    let mut client = stage.command("mqfs-client");
    client.args(["--key", &mqfs.at, "/big"]);
    rest(report, "mqfs", &mqfs, &mut client);

    let textbook = Server::textbook(stage, Owner::User);
    let mut client = stage.command("textbook_client");
    client.args(["--key", &textbook.at]).arg(stage.file("big")).stderr(Stdio::null());
    rest(report, "textbook", &textbook, &mut client);
}

/// Watches a transfer whose output nobody reads; then a server without transfers.
fn rest(report: &mut Report, name: &str, server: &Server, client: &mut Command) {
    let mut client = client.stdout(Stdio::piped()).spawn().expect("the client starts");
    let pid = client.id().cast_signed();
    let (cpu, private_now) =
        (0..5).find_map(|_| watch(server, pid)).expect("a child that serves, and waits");
    drop(client.stdout.take());
    let _ = client.wait(); // which fails, since nobody reads
    wait_until("the child ended", || children_of(server.pid()).is_empty());

    let resident_now = mebibytes("status", server.pid(), "VmRSS").expect("the server runs");
    let what = |what: &str| format!("{name}: {what}");
    let at_rest = what("memory of the server at rest, resident");
    report.add(Figure::alone(&at_rest, Unit::Mebibytes, resident_now));
    match private_now {
        Some(now) => {
            let under_way = what("memory of a child under way, private");
            report.add(Figure::alone(&under_way, Unit::Mebibytes, now));
        }
        None => eprintln!("speed: without a child's memory, which only root may look at"),
    }
    let stalled = what("CPU of server, child and client while nobody reads, a second");
    report.add(Figure::alone(&stalled, Unit::Milliseconds, cpu));
}

/// The CPU time that server, child and client use, in ms a second, and the child's private memory.
/// None if another child, such as one that removes orphans, came or went meanwhile.
fn watch(server: &Server, client: i32) -> Option<(f64, Option<f64>)> {
    wait_until("a child serves", || !children_of(server.pid()).is_empty());
    thread::sleep(REST / 5); // until queue and pipe are full, and everybody waits
    let [child] = children_of(server.pid())[..] else { return None };
    let cpu = || [server.pid(), child, client].into_iter().map(cpu_of).sum::<Option<f64>>();
    let before = cpu()?;
    thread::sleep(REST);
    Some(((cpu()? - before) * 1e3 / REST.as_secs_f64(), private_of(child)))
}

/// The memory that a process shares with no other, in MiB.
fn private_of(pid: i32) -> Option<f64> {
    let part = |name| mebibytes("smaps_rollup", pid, name);
    Some(part("Private_Clean")? + part("Private_Dirty")?)
}

/// A field of a file in /proc/PID that counts in KiB, in MiB.
fn mebibytes(file: &str, pid: i32, name: &str) -> Option<f64> {
    Some(number(pid, file, name)? as f64 / 1024.0)
}
