//! The outcome of one client, and whether the faults explain it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use super::clients::{Client, Way};
use super::fault::Fault;
use super::files::{Served, are, check_folder};

/// The fault that explains a complaint of a client.
fn excuse(client: &Client, line: &str, has_begun: bool) -> Option<&'static str> {
    let says = |what: &str| line.contains(&format!(": {what}"));
    if says("no server: ") && (!has_begun || !client.retries) {
        return Some("failed: it began while there was no server");
    }
    let was_replaced = client.hit_by.contains(&Fault::ReplaceFiles);
    if says("incomplete: the file changed") && was_replaced && client.way == Way::Stdout {
        return Some("failed: a file was replaced, and standard output cannot go back");
    }
    let has_lost = says("the server died before it answered")
        || says("incomplete: the server's child died")
        || says("incomplete: the reply queue was removed")
            && client.hit_by.contains(&Fault::RemoveReplyQueue);
    (has_lost && !client.retries).then_some("failed: --retries 0")
}

/// How a client ended. An error: no fault explains it.
pub fn judge(
    client: &Client,
    status: ExitStatus,
    files: &[&Served],
) -> Result<&'static str, String> {
    let errors = fs::read_to_string(&client.errors).unwrap_or_default();
    let wrong = |what: String| format!("{status}: {what}: {errors:?}: {client:?}");
    let bytes = check_copy(client, files, status.success()).map_err(wrong)?;
    let has_begun = bytes > 0 || errors.contains("verified");
    let complaints = errors.lines().filter(|line| !is_report(line));
    let excuses: Option<Vec<_>> = complaints.map(|line| excuse(client, line, has_begun)).collect();
    let was_hit_by = |fault| client.hit_by.contains(&fault);
    // Killed by SIGTERM itself: before it handles signals, it has nothing to remove.
    match (status.code(), status.signal().map(Signal::try_from), excuses.as_deref()) {
        (Some(0), _, Some([])) => Ok("completed, and right"),
        (_, Some(Ok(Signal::SIGKILL)), _) if was_hit_by(Fault::KillClient) => Ok("killed by us"),
        (Some(130), ..) | (_, Some(Ok(Signal::SIGTERM)), _)
            if was_hit_by(Fault::TerminateClient) =>
        {
            Ok("interrupted by us")
        }
        (Some(1 | 2), _, Some([.., why])) => Ok(why),
        _ => Err(wrong("it failed without need".to_owned())),
    }
}

/// Checks what a client wrote, and returns how many bytes that is.
fn check_copy(client: &Client, files: &[&Served], whole: bool) -> Result<u64, String> {
    if client.way.is_into_folder() {
        return check_folder(&client.copy, files, whole);
    }
    match fs::read(&client.copy) {
        // The file of -o is complete: the client can die between naming it and its exit.
        Ok(bytes) if are(&bytes, files, whole || client.way == Way::Output) => {
            Ok(bytes.len() as u64)
        }
        Ok(bytes) => Err(format!("WRONG BYTES: {} bytes", bytes.len())),
        Err(_) if !whole => Ok(0),
        Err(error) => Err(format!("it claims success, but its copy: {error}")),
    }
}

/// Whether a line of standard error is no complaint, or says only how many there were.
fn is_report(line: &str) -> bool {
    let reports = ["verified", ": waiting for the server: ", ": warning: the file changed"];
    reports.iter().any(|report| line.contains(report))
        || ["/s", "missing"].iter().any(|end| line.ends_with(end))
}
