//! The plain protocol: programs that follow TLPI section 46.8 and nothing else, in both directions.
//!
//! The textbook programs in examples/ use nothing of mqfs.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use sysv_ipc::{Key, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, Select};

use crate::support::*;

fn plain_client(key: Key) -> Command {
    with(client(key), &["--plain"])
}

#[in_own_namespace]
fn every_size_reaches_plain_clients() {
    let (server, folder) = serve_folder(&[]);
    for size in SIZES {
        let (_, content) = noise_file(folder.path(), size);
        let clients = textbook_clients(server.key).into_iter();
        for mut client in clients.chain([plain_client(server.key)]) {
            let arrived = run(client.arg(format!("/file-{size}"))).success();
            assert!(arrived == content, "{size} bytes, {client:?}");
        }
    }
    // With paths that take all of a request. No META, and an END without a trailer.
    let (_, content) = noise_file(folder.path(), 20_000);
    for size in [260, 4100] {
        let path = path_of_length("", "file-20000", size - 5);
        let queue = reply_queue();
        let mtext = request(queue.id().get(), &path, size);
        ask(server.key, MessageType::new(1).unwrap(), &mtext);
        assert!(receive_plain(*queue) == content, "{size} bytes");
        let mut client =
            with(textbook_client(server.key), &["--request", &size.to_string(), &path]);
        assert!(run(&mut client).success() == content, "{client:?}");
    }
}

#[test]
fn every_size_arrives_from_a_textbook_server() {
    for arguments in
        [&[][..], &["--end-byte"], &["--chunk", "1000"], &["--chunk", "2048", "--end-byte"]]
    {
        in_own_namespace(move || {
            let folder = tempfile::tempdir().unwrap();
            let server = TextbookServer::start(arguments);
            let output = folder.path().join("output");
            for size in SIZES {
                let (path, content) = noise_file(folder.path(), size);
                for mut client in
                    [client(server.key), plain_client(server.key), textbook_client(server.key)]
                {
                    let arrived = run(client.arg(&path)).success();
                    assert!(arrived == content, "{size} bytes, {client:?}");
                }
                let stdout = run(client(server.key).arg("-o").arg(&output).arg(&path)).success();
                assert_eq!(stdout, b"");
                assert!(fs::read(&output).unwrap() == content, "{size} bytes, -o");
            }
        });
    }
}

#[in_own_namespace]
fn a_missing_file_fails_with_the_servers_reason() {
    let (server, _folder) = serve_folder(&[]);
    for mut client in textbook_clients(server.key) {
        fails(client.arg("/missing"), 1, "textbook_client: No such file or directory\n");
    }
    fails(textbook_client(server.key).arg("/"), 1, "textbook_client: Is a directory\n");
    let expected = "mqfs-client: /missing: No such file or directory\n";
    fails(plain_client(server.key).arg("/missing"), 1, expected);
    server.stop();
    let textbook = TextbookServer::start(&[]);
    for mut client in [client(textbook.key), plain_client(textbook.key)] {
        fails(client.arg("/no/such/file"), 1, "mqfs-client: /no/such/file: Couldn't open\n");
    }
}

#[in_own_namespace]
fn a_failure_that_finds_no_room_comes_when_there_is() {
    // The server reads 32 DATA at once, of which three fill the queue.
    const DATA: u64 = 4048;
    let (server, folder) = serve_folder(&["--stall-timeout", "1s", "--reap-interval", "1h"]);
    let (path, _) = noise_file(folder.path(), 1_000_000);
    server.wait_until_idle();
    let queue = reply_queue();
    change(*queue, |to| to.max_bytes = 3 * DATA).unwrap();
    ask(server.key, MessageType::new(1).unwrap(), &request(queue.id().get(), "/file-1000000", 260));
    let wait_until_full = || {
        wait_until("it is full", || queue.status().unwrap().bytes == 3 * DATA);
    };
    wait_until_full();
    fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    let mut message = MessageBuffer::with_capacity(8192);
    for _ in 0..29 {
        queue.receive(&mut message, Select::Any).unwrap();
        wait_until_full();
    }
    server.wait_until_idle();
    let mut text = String::new();
    while !text.contains("shrank") && !text.contains("died") {
        wait_until("more comes", || queue.try_receive(&mut message, Select::Any).is_ok());
        text = String::from_utf8_lossy(message.text()).into_owned();
    }
}

#[in_own_namespace]
fn a_plain_copy_is_reported_as_unverified() {
    let folder = tempfile::tempdir().unwrap();
    let (path, content) = noise_file(folder.path(), 4096);
    let textbook = TextbookServer::start(&[]);
    let server = Server::start(&["--root".as_ref(), folder.path()]);
    for (mut client, path) in
        [(client(textbook.key), path.to_str().unwrap()), (plain_client(server.key), "/file-4096")]
    {
        let arrived = run(client.args(["-v", path]));
        let why = "unverified (the plain protocol has no checksum)";
        let told = format!("mqfs-client: {path}: 4096 bytes, {why}\n");
        assert!(arrived.stderr.starts_with(&told), "{}", arrived.stderr);
        assert_eq!(arrived.success(), content);
    }
}

#[in_own_namespace]
fn several_paths_arrive_from_a_textbook_server_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (noise_file(folder.path(), 20_000), noise_file(folder.path(), 5));
    let server = TextbookServer::start(&[]);
    for mut client in [client(server.key), plain_client(server.key)] {
        let arrived = run(client.args([&two.0, Path::new("/none"), &one.0, &two.0]));
        assert_eq!(arrived.stderr, "mqfs-client: /none: Couldn't open\n");
        assert!(arrived.stdout == [&two.1[..], &one.1, &two.1].concat());
        assert_eq!(arrived.code(), Some(1));
    }
}

/// A request that is larger than its buffer ends TLPI's server (`E2BIG`), so an extension of 48
/// bytes must not make one so. Lengths around where it would.
#[in_own_namespace]
fn a_long_path_does_not_end_a_textbook_server() {
    let folder = tempfile::tempdir().unwrap();
    let (_, content) = noise_file(folder.path(), 1);
    for (buffer, lengths) in [("260", 200..=255), ("4100", 4040..=4095)] {
        let server = TextbookServer::start(&["--request", buffer]);
        for length in lengths {
            let path = path_of_length(folder.path().to_str().unwrap(), "file-1", length);
            assert_eq!(
                run(client(server.key).arg(path)).success(),
                content,
                "a path of {length} bytes"
            );
        }
    }
}

#[as_root_in_own_namespace]
fn a_client_omits_its_lease_if_a_textbook_servers_message_would_not_fit() {
    // A queue holds one message of 8,192 bytes and nothing else; the server would wait for
    // ever.
    fs::write("/proc/sys/kernel/msgmnb", "8192").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (path, content) = noise_file(folder.path(), 20_000);
    let textbook = TextbookServer::start(&[]);
    assert!(run(client(textbook.key).arg(path)).success() == content);
    let server = Server::start(&["--root".as_ref(), folder.path()]);
    assert!(server.fetch("/file-20000") == content);
}

#[in_own_namespace]
fn a_dead_mqfs_servers_lock_does_not_hide_a_textbook_server() {
    let mut dead = Server::start(&["--root", "/proc"]);
    dead.signal(nix::sys::signal::Signal::SIGKILL);
    dead.running().wait();
    let _ = Queue::open(dead.key).and_then(Queue::remove);
    // Somebody's server that takes its time: nobody answers here.
    let _theirs = OwnedQueue::create(dead.key, Mode::new(0o622)).unwrap();
    let waiting = run(client(dead.key).args(["--timeout", "1s", "/version"]));
    assert!(waiting.stderr.contains("no mqfs-server made the queue"), "{}", waiting.stderr);
}

/// They cannot be told to try again: the book's client knows no such thing.
#[in_own_namespace]
fn plain_clients_beyond_the_per_user_limit_are_all_served() {
    let (server, _folder, file) = serve_file(1 << 16, &[]);
    let client = |_| Running::piped(textbook_client(server.key).arg("/file"));
    let clients: Vec<_> = (0..40).map(client).collect();
    for client in clients {
        assert!(client.finish().success() == file);
    }
}

#[in_own_namespace]
fn a_range_from_a_textbook_server_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = noise_file(folder.path(), 4096);
    let server = TextbookServer::start(&[]);
    for part in [["--offset", "5"], ["--length", "5"]] {
        let refused = run(client(server.key).args(part).arg(&path));
        assert_eq!((refused.code(), &refused.stdout[..]), (Some(1), &b""[..]));
        assert!(refused.stderr.ends_with("the server supports only whole files\n"));
    }
}

const NOT_TAKEN: &str = "refused reason=\"a plain request, and --plain does not take it\"";

/// Fails the test unless a server with these arguments refuses plain requests, and only those.
#[track_caller]
fn refuses_plain(arguments: &[&str]) {
    let (server, _folder, file) = serve_file(7, arguments);
    let queue = reply_queue();
    ask(server.key, MessageType::new(1).unwrap(), &request(queue.id().get(), "/file", 260));
    wait_until("the log says refused", || server.log().contains(NOT_TAKEN));
    let mut refused = Running::piped(textbook_client(server.key).arg("/file"));
    let why = "timed out: nothing came for 300ms (the server may take no plain requests)";
    let told = format!("mqfs-client: /file: {why}\n");
    fails(server.client().args(["--plain", "--timeout", "300ms", "/file"]), 1, &told);
    assert_eq!(server.fetch("/file"), file);
    let log = server.stop(); // so that its children have sent everything
    assert_eq!(log.matches("outcome=").count(), 1, "{log}");
    assert_eq!(queue.status().unwrap().last_sender, None);
    assert!(!refused.has_ended(), "it was answered");
    refused.signal(Signal::SIGINT);
    refused.wait();
}

#[in_own_namespace]
fn plain_requests_are_refused_on_request_and_by_default_if_others_may_ask() {
    for mode in ["0622", "0620", "0602"] {
        refuses_plain(&["--mode", mode]);
    }
    refuses_plain(&["--mode", "0622", "--plain", "owner"]);
    refuses_plain(&["--plain", "never"]);
}

#[in_own_namespace]
fn garbage_on_the_request_queue_does_not_stop_the_server() {
    let (server, _folder, file) = serve_file(7, &[]);
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
        assert_eq!(receive_plain(*asking), file);
        assert_eq!(server.fetch("/file"), file);
    }
    let own = queue_of(server.key).unwrap().id().get();
    ask(server.key, MessageType::MAX, &request(own, "/file", 260)); // its own request queue
    assert_eq!(server.fetch("/file"), file);
    let log = server.stop(); // so that its children have sent everything
    assert!(log.contains("refused reason=\"malformed\""), "{log}");
    assert!(log.contains("refused reason=\"the reply queue does not exist\""), "{log}");
    assert!(log.contains("refused reason=\"the reply queue has a key\""), "{log}");
    // Garbage costs no fork: there is one child for each valid request.
    assert_eq!(log.matches("outcome=").count(), 7, "{log}");
    assert_eq!(bystander.status().unwrap().last_sender, None);
    assert_eq!(keyed.status().unwrap().last_sender, None);
}

/// Sizes around the buffers of both kinds of plain client, and of many messages.
pub const SIZES: [usize; 6] = [0, 1, 4096, 8192, (1 << 20) + 1, 64 << 20];

/// The mode of a queue of TLPI's client.
pub const TLPI_MODE: Mode = Mode::new(0o620);

/// A textbook server under a key of its own, ready for requests.
pub struct TextbookServer {
    pub key: Key,
    running: Running,
    _clear: ClearAtEnd, // if it was killed, it has removed nothing
}

impl TextbookServer {
    pub fn start(arguments: &[&str]) -> Self {
        let key = unique_key();
        let mut running = Running::piped(under(key, program("textbook_server")).args(arguments));
        assert_eq!(running.first_line(), "textbook_server: ready\n");
        Self { key, running, _clear: ClearAtEnd(key) }
    }
}

impl Drop for TextbookServer {
    /// Stops it. Fails the test if it had ended by itself or leaves its queue.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!self.running.has_ended(), "it ended by itself");
            self.running.signal(Signal::SIGTERM);
            assert_eq!(self.running.wait().signal(), Some(Signal::SIGTERM as i32));
            assert_eq!(queue_of(self.key), None);
        }
    }
}

pub fn textbook_client(key: Key) -> Command {
    under(key, program("textbook_client"))
}

/// The two kinds of plain client in use: sizes of their buffer and path field.
pub fn textbook_clients(key: Key) -> [Command; 2] {
    [("4096", "260"), ("8192", "4100")].map(|(buffer, request)| {
        with(textbook_client(key), &["--buffer", buffer, "--request", request])
    })
}

/// Writes `size` bytes of noise to a file. Returns the file and the bytes.
pub fn noise_file(folder: &Path, size: usize) -> (PathBuf, Vec<u8>) {
    let (path, content) = (folder.join(format!("file-{size}")), noise(size));
    fs::write(&path, &content).unwrap();
    (path, content)
}

/// A path to `folder`/`name` of exactly `length` bytes.
pub fn path_of_length(folder: &str, name: &str, length: usize) -> String {
    let slashes = length - folder.len() - name.len();
    format!("{folder}{}{name}", "/".repeat(slashes))
}

/// A hand-made request: the id, the path and its NUL, and padding up to `size` bytes.
pub fn request(reply_queue: i32, path: &str, size: usize) -> Vec<u8> {
    let mut mtext = reply_queue.to_ne_bytes().to_vec();
    mtext.extend_from_slice(path.as_bytes());
    mtext.push(0);
    assert!(mtext.len() <= size, "the path is too long");
    mtext.resize(size, 0xaa);
    mtext
}

/// Puts a message into a server's request queue.
#[track_caller]
pub fn ask(key: Key, mtype: MessageType, mtext: &[u8]) {
    let message = MessageBuffer::with_text(mtype, mtext);
    let queue = queue_of(key).expect("a server");
    wait_until("there is room for a request", || queue.try_send(&message).is_ok());
}

/// A queue as TLPI's client makes it.
pub fn reply_queue() -> OwnedQueue {
    OwnedQueue::private(TLPI_MODE).unwrap()
}

/// Receives a reply that suits every plain client: DATA, and an empty END. Returns its bytes.
#[track_caller]
pub fn receive_plain(queue: Queue) -> Vec<u8> {
    let (mut message, mut bytes) = (MessageBuffer::with_capacity(8192), Vec::new());
    loop {
        wait_until("there is a reply", || queue.try_receive(&mut message, Select::Any).is_ok());
        match message.mtype().get() {
            2 => {
                assert!(message.text().len() <= 4096, "{} bytes", message.text().len());
                bytes.extend_from_slice(message.text());
            }
            3 => {
                assert_eq!(message.text(), b"", "an END");
                return bytes;
            }
            other => panic!("type {other}: {:?}", message.text()),
        }
    }
}
