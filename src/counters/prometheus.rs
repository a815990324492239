//! The counters as metrics, in the text exposition format of Prometheus, version 0.0.4.

use std::fmt::{self, Display};
use std::time::SystemTime;

use super::layout::BOUNDS;
use super::snapshot::Snapshot;
use sysv_ipc::{Key, QueueLimits, QueueStatus, QueueUsage};

/// The state of one server as metrics. `Display` writes the page.
///
/// Every sample has the label `key`, so that one collector can read the metrics of several servers.
///
/// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
#[derive(Debug)]
pub struct Metrics<'a> {
    /// The server's key.
    pub key: Key,
    /// Whether the server runs.
    pub is_up: bool,
    /// The server's counters, if there are any.
    pub counters: Option<&'a Snapshot>,
    /// The state of the request queue, if there is one.
    pub request_queue: Option<&'a QueueStatus>,
    /// What the IPC namespace holds.
    pub usage: QueueUsage,
    /// What the IPC namespace can hold.
    pub limits: QueueLimits,
}

impl Display for Metrics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = "Most message queues that the IPC namespace can hold (kernel.msgmni).";
        let mut single = vec![
            ("mqfs_up", "Whether the server runs.", u64::from(self.is_up)),
            (
                "mqfs_namespace_queues",
                "Message queues in the IPC namespace.",
                self.usage.queues as u64,
            ),
            ("mqfs_namespace_queues_limit", limit, self.limits.msgmni as u64),
        ];
        if let Some(counters) = self.counters {
            single.extend(of_server(counters));
        }
        if let Some(status) = self.request_queue {
            let capacity = "Most bytes that the request queue can hold.";
            single.extend([
                ("mqfs_queue_messages", "Messages in the request queue.", status.messages),
                ("mqfs_queue_bytes", "Bytes in the request queue.", status.bytes),
                ("mqfs_queue_capacity_bytes", capacity, status.max_bytes),
            ]);
        }
        let mut page = Page { key: self.key, out: f };
        for (name, help, value) in single {
            page.family(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help)?;
            page.sample(name, None, value)?;
        }
        match self.counters {
            Some(counters) => page.with_labels(counters),
            None => Ok(()),
        }
    }
}

/// Name, help and value of the metrics that are one number.
fn of_server(counters: &Snapshot) -> [(&'static str, &'static str, u64); 12] {
    let started = counters.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = "When the server started, in seconds since 1970.";
    let questions = "Questions answered or failed.";
    let gone = "Clients that left before they had everything.";
    let failed = "Windows (shared memory for large files) that could not be made.";
    let peak = "Most children that served requests at once.";
    let limit = "Most children allowed at once (--max-children).";
    let hung = "Children that wait for a file system that does not answer.";
    [
        ("mqfs_start_time_seconds", start, started.as_secs()),
        ("mqfs_requests_total", "Requests received.", counters.requests),
        ("mqfs_questions_total", questions, counters.questions),
        ("mqfs_bytes_sent_total", "Bytes of files sent.", counters.bytes_sent),
        ("mqfs_clients_gone_total", gone, counters.clients_gone),
        ("mqfs_windows_failed_total", failed, counters.windows_failed),
        ("mqfs_children", "Children that serve requests.", counters.children),
        ("mqfs_children_hung", hung, counters.hung_children),
        ("mqfs_children_peak", peak, counters.children_peak),
        ("mqfs_sessions", "Children that serve sessions.", counters.sessions),
        ("mqfs_sessions_idle", "Sessions that wait for a question.", counters.idle_sessions),
        ("mqfs_children_limit", limit, counters.children_limit),
    ]
}

struct Page<'a, 'b> {
    key: Key,
    out: &'a mut fmt::Formatter<'b>,
}

impl Page<'_, '_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.out, "# HELP {name} {help}")?;
        writeln!(self.out, "# TYPE {name} {kind}")
    }

    fn sample(
        &mut self,
        name: &str,
        label: Option<(&str, &dyn Display)>,
        value: impl Display,
    ) -> fmt::Result {
        write!(self.out, "{name}{{")?;
        if let Some((label, of)) = label {
            write!(self.out, "{label}=\"{of}\",")?;
        }
        writeln!(self.out, "key=\"{}\"}} {value}", self.key)
    }

    fn with_labels(&mut self, counters: &Snapshot) -> fmt::Result {
        let failures = "mqfs_failures_total";
        self.family(failures, "counter", "Questions that a child could not answer.")?;
        for (reason, count) in counters.failures() {
            self.sample(failures, Some(("reason", &reason.name())), count)?;
        }
        let refused = "mqfs_refused_total";
        self.family(refused, "counter", "Requests that the server refused without a child.")?;
        for (reason, count) in counters.refusals() {
            self.sample(refused, Some(("reason", &reason.name())), count)?;
        }
        let help = "Seconds from a question's arrival to the end of its complete answer.";
        self.family("mqfs_transfer_seconds", "histogram", help)?;
        let bucket = "mqfs_transfer_seconds_bucket";
        let mut so_far = 0_u64;
        for (bound, count) in BOUNDS.into_iter().zip(counters.transfers) {
            so_far = so_far.wrapping_add(count);
            self.sample(bucket, Some(("le", &bound.as_secs_f64())), so_far)?;
        }
        self.sample(bucket, Some(("le", &"+Inf")), counters.completed())?;
        self.sample("mqfs_transfer_seconds_sum", None, counters.transfer_time.as_secs_f64())?;
        self.sample("mqfs_transfer_seconds_count", None, counters.completed())
    }
}
