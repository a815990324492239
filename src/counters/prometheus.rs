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
        let mut page = Page { key: self.key, out: f };
        page.gauge("mqfs_up", "Whether the server runs.", u64::from(self.is_up))?;
        if let Some(counters) = self.counters {
            page.counters(counters)?;
        }
        if let Some(status) = self.request_queue {
            page.request_queue(status)?;
        }
        let queues = "Message queues in the IPC namespace.";
        page.gauge("mqfs_namespace_queues", queues, self.usage.queues as u64)?;
        let limit = "Most message queues that the IPC namespace can hold (kernel.msgmni).";
        page.gauge("mqfs_namespace_queues_limit", limit, self.limits.msgmni as u64)
    }
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

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, "gauge", help)?;
        self.sample(name, None, value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, "counter", help)?;
        self.sample(name, None, value)
    }

    fn by_reason(
        &mut self,
        name: &str,
        help: &str,
        counts: impl Iterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        self.family(name, "counter", help)?;
        for (reason, count) in counts {
            self.sample(name, Some(("reason", &reason)), count)?;
        }
        Ok(())
    }

    fn sample(
        &mut self,
        name: &str,
        label: Option<(&str, &dyn Display)>,
        value: impl Display,
    ) -> fmt::Result {
        let key = self.key;
        match label {
            Some((label, of)) => {
                writeln!(self.out, "{name}{{{label}=\"{of}\",key=\"{key}\"}} {value}")
            }
            None => writeln!(self.out, "{name}{{key=\"{key}\"}} {value}"),
        }
    }

    fn counters(&mut self, counters: &Snapshot) -> fmt::Result {
        let started = counters.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "When the server started, in seconds since 1970.";
        self.gauge("mqfs_start_time_seconds", help, started.as_secs())?;
        self.counter("mqfs_requests_total", "Requests received.", counters.requests)?;
        self.counter("mqfs_bytes_sent_total", "Bytes of files sent.", counters.bytes_sent)?;
        let gone = "Clients that left before they had everything.";
        self.counter("mqfs_clients_gone_total", gone, counters.clients_gone)?;
        self.by_reason(
            "mqfs_failures_total",
            "Requests that a child could not fulfil.",
            counters.failures().map(|(reason, count)| (reason.name(), count)),
        )?;
        self.by_reason(
            "mqfs_refused_total",
            "Requests that the server refused without a child.",
            counters.refusals().map(|(reason, count)| (reason.name(), count)),
        )?;
        self.gauge("mqfs_children", "Children that serve requests.", counters.children)?;
        let peak = "Most children that served requests at once.";
        self.gauge("mqfs_children_peak", peak, counters.children_peak)?;
        let limit = "Most children allowed at once (--max-children).";
        self.gauge("mqfs_children_limit", limit, counters.children_limit)?;
        self.transfer_times(counters)
    }

    fn transfer_times(&mut self, counters: &Snapshot) -> fmt::Result {
        let help = "Seconds from a request's arrival to the end of its complete transfer.";
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

    fn request_queue(&mut self, status: &QueueStatus) -> fmt::Result {
        let messages = "Messages in the request queue.";
        self.gauge("mqfs_queue_messages", messages, status.messages)?;
        self.gauge("mqfs_queue_bytes", "Bytes in the request queue.", status.bytes)?;
        let capacity = "Most bytes that the request queue can hold.";
        self.gauge("mqfs_queue_capacity_bytes", capacity, status.max_bytes)
    }
}
