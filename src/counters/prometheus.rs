//! The figures in the text format of Prometheus, version 0.0.4.

use std::fmt::{self, Display, Write};
use std::time::SystemTime;

use super::layout::BOUNDS;
use super::snapshot::Snapshot;
use sysv_ipc::{Key, Limits, Queue, Usage};

/// What a server's metrics file says. Every sample bears the key, so that the files of several servers
/// can lie in one folder.
pub fn exposition(key: Key, figures: &Snapshot, is_up: bool) -> String {
    let mut page = Page { key, text: String::new() };
    page.gauge("mqfs_up", "Whether the server runs.", u64::from(is_up));
    let started = figures.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    page.gauge("mqfs_start_time_seconds", "When the server started.", started.as_secs());
    page.counter("mqfs_requests_total", "Requests received.", figures.requests);
    page.counter("mqfs_bytes_sent_total", "Bytes of files sent.", figures.bytes);
    let gone = "Clients that left before they had everything.";
    page.counter("mqfs_clients_gone_total", gone, figures.clients_gone);
    page.reasons(
        "mqfs_failures_total",
        "Requests that a child could not answer with what was asked for.",
        figures.failures().map(|(reason, count)| (reason.name(), count)),
    );
    page.reasons(
        "mqfs_refused_total",
        "Requests that no child was forked for.",
        figures.refused().map(|(reason, count)| (reason.name(), count)),
    );
    page.gauge("mqfs_children", "Children that answer requests.", figures.children);
    let most = "The most children that answered requests at once.";
    page.gauge("mqfs_children_peak", most, figures.most_children);
    let allowed = "The most children that there may be (--max-children).";
    page.gauge("mqfs_children_limit", allowed, figures.most_allowed);
    page.histogram(figures);
    page.queues(figures);
    page.text
}

struct Page {
    key: Key,
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = writeln!(self.text, "{line}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, None, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, None, value);
    }

    fn reasons(
        &mut self,
        name: &str,
        help: &str,
        counts: impl Iterator<Item = (&'static str, u64)>,
    ) {
        self.family(name, "counter", help);
        for (reason, count) in counts {
            self.sample(name, Some(("reason", &reason)), count);
        }
    }

    fn sample(&mut self, name: &str, label: Option<(&str, &dyn Display)>, value: impl Display) {
        let key = self.key;
        match label {
            Some((label, of)) => {
                self.line(format_args!("{name}{{{label}=\"{of}\",key=\"{key}\"}} {value}"));
            }
            None => self.line(format_args!("{name}{{key=\"{key}\"}} {value}")),
        }
    }

    fn histogram(&mut self, figures: &Snapshot) {
        let name = "mqfs_transfer_seconds";
        let help = "How long complete transfers took, from the request's arrival.";
        self.family(name, "histogram", help);
        let mut so_far = 0_u64;
        let bucket = format!("{name}_bucket");
        for (bound, count) in BOUNDS.into_iter().zip(figures.times) {
            so_far = so_far.wrapping_add(count);
            self.sample(&bucket, Some(("le", &bound.as_secs_f64())), so_far);
        }
        self.sample(&bucket, Some(("le", &"+Inf")), figures.completed());
        self.sample(&format!("{name}_sum"), None, figures.time.as_secs_f64());
        self.sample(&format!("{name}_count"), None, figures.completed());
    }

    /// What the kernel says of the request queue and of the namespace.
    fn queues(&mut self, figures: &Snapshot) {
        let queue = figures.queue.map(Queue::from_id);
        // An id comes round again, a key does not belong to two.
        let status = queue.and_then(|queue| queue.status().ok()).filter(|s| s.key == self.key);
        if let Some(status) = status {
            let messages = "Messages in the request queue.";
            self.gauge("mqfs_queue_messages", messages, status.messages);
            self.gauge("mqfs_queue_bytes", "Bytes in the request queue.", status.bytes);
            let room = "Bytes that the request queue takes.";
            self.gauge("mqfs_queue_capacity_bytes", room, status.max_bytes);
        }
        if let (Ok(usage), Ok(limits)) = (Usage::current(), Limits::current()) {
            let queues = "Message queues in the IPC namespace.";
            self.gauge("mqfs_namespace_queues", queues, usage.queues as u64);
            let limit = "Message queues that there may be in the IPC namespace (kernel.msgmni).";
            self.gauge("mqfs_namespace_queues_limit", limit, limits.msgmni as u64);
        }
    }
}
