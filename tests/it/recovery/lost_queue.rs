//! A server whose request queue or lock somebody removes.

use std::fs;
use std::process::Command;

use sysv_ipc::Lock;

use super::Place;
use crate::support::{
    Stuck, as_root_in_own_namespace, in_own_namespace, queue_of, run, wait_until,
};

#[track_caller]
fn ipcrm(arguments: &[&str]) {
    run(Command::new("ipcrm").args(arguments)).success();
}

#[in_own_namespace]
fn a_repeatedly_removed_request_queue_loses_no_file() {
    let place = Place::new();
    let server = place.serve(&[]);
    let crowd = place.crowd(8, &["/file"; 15]);
    let mut removed = 0;
    while removed < 20 {
        if let Some(queue) = queue_of(place.key).filter(|queue| queue.remove().is_ok()) {
            removed += 1;
            wait_until("there is a new one", || {
                queue_of(place.key).is_some_and(|new| new != queue)
            });
        }
    }
    crowd.all_get(&place.file.repeat(16));
    let told = server.log().matches("the request queue was removed; made a new one").count();
    assert_eq!(told, 20, "{}", server.log());
    server.stop();
}

#[as_root_in_own_namespace]
fn a_request_queue_is_recreated_once_a_queue_is_free() {
    let place = Place::new();
    let server = place.serve(&[]);
    let under_way = Stuck::start(&mut place.client());
    let limit = "/proc/sys/kernel/msgmni";
    let normal = fs::read(limit).unwrap();
    fs::write(limit, "0").unwrap();
    let lost = place.requests();
    ipcrm(&["-q", &lost.id().to_string()]);
    wait_until("told", || server.log().contains("no room for a new one"));
    assert!(server.log().contains("mqfs-reap"), "{}", server.log());
    assert!(under_way.finish() == place.file);
    let patient = place.crowd(1, &[]);
    let impatient = run(place.client().args(["--timeout", "500ms"]));
    assert_eq!(impatient.code(), Some(2));
    let expected = format!("mqfs-client: no server: the one under key {} has no", place.key);
    assert!(impatient.stderr.starts_with(&expected), "{}", impatient.stderr);
    fs::write(limit, &normal).unwrap();
    patient.all_get(&place.file);

    fs::write(limit, "0").unwrap();
    ipcrm(&["-q", &place.requests().id().to_string()]);
    wait_until("told", || server.log().matches("no room for a new one").count() == 2);
    server.stop();
}

#[as_root_in_own_namespace]
fn after_ipcrm_all_transfers_go_on_and_the_server_recovers_queue_and_lock() {
    let place = Place::new();
    let server = place.serve(&[]);
    let stuck: Vec<_> = (0..4).map(|_| Stuck::start(&mut place.client())).collect();
    let lost = place.requests();
    ipcrm(&["--all=sem"]);
    ipcrm(&["--all=msg"]);
    wait_until("there is a new one", || queue_of(place.key).is_some_and(|new| new != lost));
    for stuck in stuck {
        assert!(stuck.finish() == place.file);
    }
    place.fetch();
    assert_eq!(Lock::open(place.key).unwrap().is_held(), Ok(true));
    server.stop();
}
