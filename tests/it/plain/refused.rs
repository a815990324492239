//! Requests that `mqfs-server` does not answer: plain ones that its policy excludes or that name
//! another user's queue, and garbage.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::Signal;
use sysv_ipc::{Key, MessageType, OwnedQueue, Queue};
use tempfile::TempDir;

use super::textbook::{TLPI_MODE, ask, receive_plain, reply_queue, request, textbook_client};
use crate::support::{
    Running, Server, in_own_namespace, queue_of, run, serve_folder, unique_key, wait_until,
};

const CONTENT: &[u8] = b"served\n";

const NOT_TAKEN: &str = "refused reason=\"a plain request, and --plain does not take it\"";

/// A server of one file, `/file`.
fn start(arguments: &[&str]) -> (TempDir, Server) {
    let (server, folder) = serve_folder(arguments);
    fs::write(folder.path().join("file"), CONTENT).unwrap();
    (folder, server)
}

fn plain_request(key: Key, queue: Queue) {
    let mtext = request(queue.id().get(), "/file", 260);
    ask(key, MessageType::new(1).unwrap(), &mtext);
}

/// Stops a server with all its children, so that it has sent everything. Returns its log.
#[track_caller]
fn end(mut server: Server) -> String {
    server.signal(Signal::SIGTERM);
    let status = server.running().wait();
    assert!(status.success(), "{status}\n{}", server.log());
    server.log()
}

/// Fails the test unless a server with these arguments refuses plain requests, and only those.
#[track_caller]
fn refuses_plain(arguments: &[&str]) {
    let (_folder, server) = start(arguments);
    let queue = reply_queue();
    plain_request(server.key, *queue);
    wait_until("the log says refused", || server.log().contains(NOT_TAKEN));
    let mut refused = textbook_client(server.key);
    let mut refused = Running::start(refused.arg("/file").stdout(Stdio::null()));
    let told = run(server.client().args(["--plain", "--timeout", "300ms", "/file"]));
    assert_eq!(told.code(), Some(1));
    let why = "timed out: nothing came for 300ms (the server may take no plain requests)";
    assert_eq!(told.stderr, format!("mqfs-client: /file: {why}\n"));
    assert_eq!(server.fetch("/file"), CONTENT);
    let log = end(server);
    assert_eq!(log.matches("outcome=").count(), 1, "{log}");
    assert_eq!(queue.status().unwrap().last_sender, None);
    assert!(!refused.has_ended(), "it was answered");
    refused.signal(Signal::SIGINT);
    refused.wait();
}

#[test]
fn plain_never_refuses_and_logs_plain_requests() {
    in_own_namespace(|| refuses_plain(&["--plain", "never"]));
}

#[in_own_namespace]
fn plain_requests_are_refused_by_default_if_others_may_ask() {
    for mode in ["0622", "0620", "0602"] {
        refuses_plain(&["--mode", mode]);
    }
    refuses_plain(&["--mode", "0622", "--plain", "owner"]);
}

#[in_own_namespace]
fn garbage_on_the_request_queue_does_not_stop_the_server() {
    let (_folder, server) = start(&[]);
    let (bystander, keyed) = (reply_queue(), OwnedQueue::create(unique_key(), TLPI_MODE));
    let keyed = keyed.unwrap();
    let removed = reply_queue().id().get(); // goes at once
    let queue = bystander.id().get();
    let garbage = [
        vec![],
        vec![1, 2, 3],
        queue.to_ne_bytes().to_vec(),                       // no path
        [&queue.to_ne_bytes(), &[b'/'; 8188][..]].concat(), // no NUL, msgmax bytes
        request(queue, &"/".repeat(4096), 8192),            // a NUL, but past PATH_MAX
        request(-1, "/file", 260),
        request(removed, "/file", 260),
        request(keyed.id().get(), "/file", 260), // somebody's, but no client's
        [&request(queue, "/fi", 8), &b"mqfs-req"[..]].concat(), // an extension cut short
    ];
    for mtype in [1, 7, libc::c_long::MAX] {
        let mtype = MessageType::new(mtype).unwrap();
        for mtext in &garbage {
            ask(server.key, mtype, mtext);
        }
        // Types are priorities; the server takes all of them.
        let asking = reply_queue();
        ask(server.key, mtype, &request(asking.id().get(), "/file", 260));
        assert_eq!(receive_plain(*asking), CONTENT);
        assert_eq!(server.fetch("/file"), CONTENT);
    }
    let own = queue_of(server.key).unwrap().id().get();
    ask(server.key, MessageType::MAX, &request(own, "/file", 260)); // its own request queue
    assert_eq!(server.fetch("/file"), CONTENT);
    let log = end(server);
    assert!(log.contains("refused reason=\"malformed\""), "{log}");
    assert!(log.contains("refused reason=\"the reply queue does not exist\""), "{log}");
    assert!(log.contains("refused reason=\"the reply queue has a key\""), "{log}");
    // Garbage costs no fork: there is one child for each valid request.
    assert_eq!(log.matches("outcome=").count(), 7, "{log}");
    assert_eq!(bystander.status().unwrap().last_sender, None);
    assert_eq!(keyed.status().unwrap().last_sender, None);
}
