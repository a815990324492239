//! The state of a key as metrics, in the text exposition format of Prometheus, version 0.0.4. Every
//! sample has the label `key`, so that one collector can read the metrics of several servers.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Display;
use std::time::SystemTime;

use super::state::KeyState;
use crate::counters::BOUNDS;
use crate::ownership::server_state::ServerState;
use sysv_ipc::Key;

pub(super) fn page(state: &KeyState) -> String {
    let mut page = Page { key: state.key, text: String::new() };
    let is_up = state.server == Some(ServerState::Running);
    page.single("mqfs_up", "Whether the server runs.", is_up.into());
    let (queues, limit) = (state.usage.queues as u64, state.limits.msgmni as u64);
    page.single("mqfs_namespace_queues", "Message queues in the IPC namespace.", queues);
    let help = "Most message queues that the IPC namespace can hold (kernel.msgmni).";
    page.single("mqfs_namespace_queues_limit", help, limit);
    if let Some((_, status)) = state.queue.filter(|_| state.server.is_some()) {
        page.single("mqfs_queue_messages", "Messages in the request queue.", status.messages);
        page.single("mqfs_queue_bytes", "Bytes in the request queue.", status.bytes);
        let help = "Most bytes that the request queue can hold.";
        page.single("mqfs_queue_capacity_bytes", help, status.max_bytes);
    }
    let Some(counters) = &state.counters else { return page.text };
    let started = counters.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let help = "When the server started, in seconds since 1970.";
    page.single("mqfs_start_time_seconds", help, started.as_secs());
    for number in counters.numbers() {
        page.single(number.metric, number.help, number.value);
    }
    let failures = "mqfs_failures_total";
    page.family(failures, "counter", "Questions that a child could not answer.");
    for (reason, count) in counters.failures() {
        page.sample(failures, &format!("reason=\"{}\",", reason.name()), count);
    }
    let refused = "mqfs_refused_total";
    page.family(refused, "counter", "Requests that the server refused without a child.");
    for (reason, count) in counters.refusals() {
        page.sample(refused, &format!("reason=\"{}\",", reason.name()), count);
    }
    let help = "Seconds from a question's arrival to the end of its complete answer.";
    page.family("mqfs_transfer_seconds", "histogram", help);
    let bounds = BOUNDS.into_iter().map(|bound| bound.as_secs_f64().to_string());
    let bounds = bounds.chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(counters.cumulative_transfers()) {
        page.sample("mqfs_transfer_seconds_bucket", &format!("le=\"{bound}\","), count);
    }
    page.sample("mqfs_transfer_seconds_sum", "", counters.transfer_time.as_secs_f64());
    page.sample("mqfs_transfer_seconds_count", "", counters.completed());
    page.text
}

struct Page {
    key: Key,
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// `label` ends with a comma, unless it is empty.
    fn sample(&mut self, name: &str, label: &str, value: impl Display) {
        self.text += &format!("{name}{{{label}key=\"{}\"}} {value}\n", self.key);
    }

    fn single(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help);
        self.sample(name, "", value);
    }
}
