//! The outcome of one client, and whether the faults explain it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use super::clients::Client;

/// How one client ended.
#[derive(Debug)]
pub enum Outcome {
    /// It succeeded, and the copy is right.
    Completed { resumed: bool },
    /// A fault killed it.
    Killed,
    /// Our SIGTERM ended it.
    Terminated,
    /// It failed with this error, which a fault explains.
    Failed(String),
    /// It did what no fault explains.
    Wrong(String),
}

/// The fault that explains an error line of a client.
fn excuse(client: &Client, line: &str) -> Option<&'static str> {
    let begins = |beginning: &str| line.starts_with(beginning);
    if begins("no server: ") {
        return Some("it began while there was none");
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

/// Compares what a client reports with its copy.
pub fn judge(client: &Client, status: ExitStatus, content: &[u8]) -> Outcome {
    let errors = fs::read_to_string(&client.errors).unwrap_or_default();
    let copy = fs::read(&client.copy);
    let wrong = |what: String| {
        let (pid, file) = (client.process.pid, client.file);
        Outcome::Wrong(format!("client {pid}, file-{file}, {status}: {what}: {errors:?}"))
    };
    if status.success() {
        return match copy {
            Ok(copy) if copy == content => {
                Outcome::Completed { resumed: errors.contains(" parts") }
            }
            Ok(copy) => wrong(differs(&copy, content)),
            Err(error) => wrong(format!("it claims success, but its copy: {error}")),
        };
    }
    if let Ok(copy) = copy {
        // The file of -o is complete: the client can die between naming it and its exit.
        let may_be = if client.to_file { copy == content } else { content.starts_with(&copy) };
        if !may_be {
            return wrong(differs(&copy, content));
        }
    }
    if client.killed && status.signal() == Some(Signal::SIGKILL as i32) {
        return Outcome::Killed;
    }
    // Killed by the signal itself: before it handles signals, it has nothing to remove.
    let by_signal = status.code() == Some(130) || status.signal() == Some(Signal::SIGTERM as i32);
    if client.terminated && by_signal {
        return Outcome::Terminated;
    }
    let line = what_it_said(&errors, client.file);
    match excuse(client, &line) {
        Some(why) if matches!(status.code(), Some(1 | 2)) => {
            Outcome::Failed(format!("{line} [{why}]"))
        }
        _ => wrong("it failed without need".to_owned()),
    }
}

fn differs(copy: &[u8], content: &[u8]) -> String {
    let at = copy.iter().zip(content).position(|(one, other)| one != other);
    let (has, should) = (copy.len(), content.len());
    format!("WRONG BYTES: {has} bytes instead of {should}, first difference at {at:?}")
}

/// The last line, without the program's and the file's name, and the key.
fn what_it_said(errors: &str, file: usize) -> String {
    let line = errors.lines().last().unwrap_or("nothing");
    let line = line.strip_prefix("mqfs-client: ").unwrap_or(line);
    let line = line.strip_prefix(&format!("/file-{file}: ")).unwrap_or(line);
    match line.split_once("0x51") {
        Some((before, after)) => format!("{before}KEY{}", after.get(6..).unwrap_or("")),
        None => line.to_owned(),
    }
}
