//! `mqfs-stat --prometheus`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sysv_ipc::Key;

use super::{look, others_queue, server, wait_for};
use crate::support::{Finished, in_own_namespace, listed, run, stat_of, unique_key};

fn metrics(key: Key) -> Finished {
    run(stat_of(key).arg("--prometheus"))
}

/// Parses the text exposition format: a family is one block that begins with HELP and TYPE, and no
/// sample occurs twice.
#[track_caller]
fn parse(page: &[u8]) -> BTreeMap<String, f64> {
    let page = std::str::from_utf8(page).unwrap();
    assert!(page.ends_with('\n') && !page.contains("\n\n"), "{page}");
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    for block in page.strip_prefix("# HELP ").unwrap().split("\n# HELP ") {
        let (family, _help) = block.split_once(' ').unwrap();
        assert!(families.insert(family), "{family} comes twice");
        let mut lines = block.lines().skip(1);
        let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {family} ")).unwrap();
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
        for sample in lines {
            let (name, value) = sample.rsplit_once(' ').unwrap();
            let suffix = name.split_once('{').unwrap().0.strip_prefix(family).unwrap();
            let is_known = ["_bucket", "_sum", "_count"].contains(&suffix);
            assert!(if kind == "histogram" { is_known } else { suffix.is_empty() }, "{sample}");
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{sample}");
            assert_eq!(samples.insert(name.to_owned(), value), None, "{sample}");
        }
    }
    samples
}

#[in_own_namespace]
fn prometheus_and_json_show_the_same_values() {
    let (server, _folder) = server();
    for path in ["/small", "/file", "/none"] {
        let _ = run(server.client().arg(path));
    }
    wait_for(server.key, "failed/not_found", 1);
    wait_for(server.key, "complete", 2);
    wait_for(server.key, "children", 0);
    let (json, printed) = (look(server.key), metrics(server.key));
    assert_eq!((printed.code(), &*printed.stderr), (Some(0), ""));
    let samples = parse(&printed.stdout);
    let key = server.key;
    let sample = |name: &str, label: &str| samples[&format!("{name}{{{label}key=\"{key}\"}}")];
    let of_json = |pointer: &str| json.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert_eq!(sample("mqfs_up", ""), 1.0);
    assert!(sample("mqfs_start_time_seconds", "") > 1.6e9);
    for (name, pointer) in [
        ("mqfs_requests_total", "/counters/requests"),
        ("mqfs_bytes_sent_total", "/counters/bytes_sent"),
        ("mqfs_clients_gone_total", "/counters/clients_gone"),
        ("mqfs_windows_failed_total", "/counters/windows_failed"),
        ("mqfs_children", "/counters/children"),
        ("mqfs_children_hung", "/counters/children_hung"),
        ("mqfs_children_peak", "/counters/children_peak"),
        ("mqfs_children_limit", "/counters/children_limit"),
        ("mqfs_transfer_seconds_sum", "/counters/transfer_seconds_sum"),
        ("mqfs_transfer_seconds_count", "/counters/complete"),
        ("mqfs_queue_messages", "/queue/messages"),
        ("mqfs_queue_bytes", "/queue/bytes"),
        ("mqfs_queue_capacity_bytes", "/queue/capacity"),
        ("mqfs_namespace_queues", "/namespace/queues"),
        ("mqfs_namespace_queues_limit", "/namespace/msgmni"),
    ] {
        assert_eq!(sample(name, ""), of_json(pointer), "{name}");
    }
    assert_eq!(of_json("/counters/bytes_sent"), 5.0 + f64::from(4 << 20));
    for (name, reasons) in [("mqfs_failures_total", "failed"), ("mqfs_refused_total", "refused")] {
        for (reason, count) in json["counters"][reasons].as_object().unwrap() {
            let label = format!("reason=\"{reason}\",");
            assert_eq!(sample(name, &label), count.as_f64().unwrap(), "{reason}");
        }
    }
    for bucket in json["counters"]["transfer_seconds"].as_array().unwrap() {
        let bound = bucket["le"].as_f64().map_or("+Inf".to_owned(), |bound| bound.to_string());
        let count = sample("mqfs_transfer_seconds_bucket", &format!("le=\"{bound}\","));
        assert_eq!(bucket["count"].as_f64(), Some(count), "{bound}");
        // A bucket holds all transfers that took at most `le` seconds.
        if bound == "250" || bound == "+Inf" {
            assert_eq!(count, 2.0, "{bound}");
        }
    }
    server.stop();
}

#[in_own_namespace]
fn without_a_server_mqfs_up_is_0_and_the_status_is_that_of_json() {
    let key = unique_key();
    let up = format!("mqfs_up{{key=\"{key}\"}}");
    let absent = metrics(key);
    let told = format!("mqfs-stat: no queue under key {key}\n");
    assert_eq!((absent.code(), absent.stderr), (Some(2), told));
    let samples = parse(&absent.stdout);
    assert_eq!(samples[&up], 0.0);
    let queues = samples[&format!("mqfs_namespace_queues{{key=\"{key}\"}}")];
    assert_eq!(queues, listed("msg") as f64);

    let _queue = others_queue(key);
    let samples = parse(&metrics(key).success());
    assert_eq!(samples[&up], 0.0);
    assert!(!samples.keys().any(|name| name.starts_with("mqfs_queue")), "another program's");
}
