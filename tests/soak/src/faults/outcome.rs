//! The outcome of one client, and whether the faults explain it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use super::clients::{Client, Way};
use super::files::{Served, are, check_folder};

/// The fault that explains a complaint of a client.
fn excuse(client: &Client, line: &str, has_begun: bool) -> Option<&'static str> {
    let begins = |beginning: &str| line.starts_with(beginning);
    if begins("no server: ") && (!has_begun || !client.retries) {
        return Some("it began while there was none");
    }
    if begins("incomplete: the file changed") && client.file_replaced && client.way == Way::Stdout {
        return Some("it was replaced, and standard output cannot go back");
    }
    if client.retries {
        return None;
    }
    if begins("the server died before it answered") || begins("incomplete: the server's child died")
    {
        return Some("--retries 0");
    }
    if begins("incomplete: the reply queue was removed") && client.queue_removed {
        return Some("--retries 0, and we removed its queue");
    }
    None
}

/// How a client ended, and how many bytes it wrote. An error: no fault explains it.
pub fn judge(
    client: &Client,
    status: ExitStatus,
    files: &[&Served],
) -> Result<(String, u64), String> {
    let errors = fs::read_to_string(&client.errors).unwrap_or_default();
    let wrong = |what: String| format!("{status}: {what}: {errors:?}: {client:?}");
    let bytes = check_copy(client, files, status.success()).map_err(wrong)?;
    let complaints: Vec<_> = errors.lines().filter(|line| !is_report(line)).map(bare).collect();
    let has_begun = bytes > 0 || errors.contains("verified");
    let excuses = complaints.iter().map(|line| excuse(client, line, has_begun));
    let excuses: Option<Vec<_>> = excuses.collect();
    // Killed by SIGTERM itself: before it handles signals, it has nothing to remove.
    let how = match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(0), _) if complaints.is_empty() => {
            let parts = if errors.contains(" parts") { ", in parts" } else { "" };
            format!("completed, and right: {}{parts}", client.fetches())
        }
        (_, Some(Ok(Signal::SIGKILL))) if client.killed => "killed by us".to_owned(),
        (Some(130), _) | (_, Some(Ok(Signal::SIGTERM))) if client.terminated => {
            "interrupted by us".to_owned()
        }
        (Some(1 | 2), _) => match (excuses.as_deref(), complaints.last()) {
            (Some([.., why]), Some(line)) => format!("failed: {line} [{why}]"),
            _ => return Err(wrong("it failed without need".to_owned())),
        },
        _ => return Err(wrong("it ended without need".to_owned())),
    };
    Ok((how, bytes))
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
    ["verified", ": warning: the file changed"].iter().any(|report| line.contains(report))
        || ["/s", "missing"].iter().any(|end| line.ends_with(end))
}

/// A line without the program's and the file's name, and the key.
fn bare(line: &str) -> String {
    let line = line.split_once(": ").map_or(line, |(_program, rest)| rest);
    let line = match line.split_once(": ") {
        Some((path, rest)) if path.starts_with('/') => rest,
        _ => line,
    };
    match line.split_once("0x51") {
        Some((before, after)) => format!("{before}KEY{}", after.get(6..).unwrap_or("")),
        None => line.to_owned(),
    }
}
