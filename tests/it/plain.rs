//! The plain protocol: programs that follow TLPI section 46.8 and nothing else, in both directions.
//!
//! The textbook programs in examples/ use nothing of mqfs.

mod refused;
mod textbook;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{
    Running, Server, as_root_in_own_namespace, client, in_own_namespace, run, serve_file,
    serve_folder,
};
use sysv_ipc::{Key, MessageType, Mode, OwnedQueue, Queue};

use textbook::{
    SIZES, TextbookServer, ask, noise_file, path_of_length, receive_plain, reply_queue, request,
    textbook_client, textbook_clients,
};

/// `mqfs-client --plain -k KEY`.
fn plain_client(key: Key) -> Command {
    let mut command = client(key);
    command.arg("--plain");
    command
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
    server.stop();
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
            server.stop();
        });
    }
}

#[in_own_namespace]
fn a_missing_file_fails_with_the_servers_reason() {
    let (server, _folder) = serve_folder(&[]);
    for mut client in textbook_clients(server.key) {
        let missing = run(client.arg("/missing"));
        assert_eq!((missing.code(), missing.stdout), (Some(1), vec![]));
        assert_eq!(missing.stderr, "textbook_client: No such file or directory\n");
    }
    let directory = run(textbook_client(server.key).arg("/"));
    assert_eq!((directory.code(), directory.stdout), (Some(1), vec![]));
    assert_eq!(directory.stderr, "textbook_client: Is a directory\n");
    let missing = run(plain_client(server.key).arg("/missing"));
    assert_eq!((missing.code(), missing.stdout), (Some(1), vec![]));
    assert_eq!(missing.stderr, "mqfs-client: /missing: No such file or directory\n");
    server.stop();

    let textbook = TextbookServer::start(&[]);
    for mut client in [client(textbook.key), plain_client(textbook.key)] {
        let missing = run(client.arg("/no/such/file"));
        assert_eq!((missing.code(), missing.stdout), (Some(1), vec![]));
        assert_eq!(missing.stderr, "mqfs-client: /no/such/file: Couldn't open\n");
    }
    textbook.stop();
}

#[in_own_namespace]
fn a_plain_copy_is_reported_as_unverified() {
    let folder = tempfile::tempdir().unwrap();
    let (path, content) = noise_file(folder.path(), 4096);
    let textbook = TextbookServer::start(&[]);
    let arrived = run(client(textbook.key).arg("-v").arg(&path));
    let path = path.display();
    let why = "unverified (the plain protocol has no checksum)";
    let first_line = |stderr: &str| stderr.lines().next().map(str::to_owned);
    let told = format!("mqfs-client: {path}: 4096 bytes, {why}");
    assert_eq!(first_line(&arrived.stderr), Some(told));
    assert_eq!(arrived.success(), content);
    textbook.stop();

    let server = Server::start(&["--root".as_ref(), folder.path()]);
    let arrived = run(plain_client(server.key).arg("-v").arg("/file-4096"));
    let told = format!("mqfs-client: /file-4096: 4096 bytes, {why}");
    assert_eq!(first_line(&arrived.stderr), Some(told));
    server.stop();
}

/// Both sizes, with paths that leave room for padding and paths that take all of it. No META in the
/// reply, no message over 4,096 bytes, and an END without a trailer.
#[in_own_namespace]
fn requests_of_exactly_260_and_4100_bytes_are_answered_in_the_plain_protocol() {
    let (server, folder) = serve_folder(&[]);
    let (_, content) = noise_file(folder.path(), 20_000);
    for size in [260, 4100] {
        for length in ["/file-20000".len(), size - 5] {
            let path = path_of_length("", "file-20000", length);
            let queue = reply_queue();
            let mtext = request(queue.id().get(), &path, size);
            assert_eq!(mtext.len(), size);
            ask(server.key, MessageType::new(1).unwrap(), &mtext);
            assert!(receive_plain(*queue) == content, "{size} bytes, a path of {length}");

            let mut client = textbook_client(server.key);
            client.args(["--request", &size.to_string(), &path]);
            assert!(run(&mut client).success() == content, "{client:?}");
        }
    }
    server.stop();
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
    server.stop();
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
        server.stop();
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
    textbook.stop();
    let server = Server::start(&["--root".as_ref(), folder.path()]);
    assert!(server.fetch("/file-20000") == content);
    server.stop();
}

#[in_own_namespace]
fn a_dead_mqfs_servers_lock_does_not_hide_a_textbook_server() {
    let mut dead = Server::start(&["--root", "/proc"]);
    dead.signal(nix::sys::signal::Signal::SIGKILL);
    dead.running().wait();
    let _ = Queue::open(dead.key).and_then(Queue::remove);
    // Somebody's server that takes its time: nobody answers here.
    let theirs = OwnedQueue::create(dead.key, Mode::new(0o622)).unwrap();
    let waiting = run(client(dead.key).args(["--timeout", "1s", "/version"]));
    assert!(waiting.stderr.contains("no mqfs-server made the queue"), "{}", waiting.stderr);
    drop(theirs);
}

/// They cannot be told to try again: the book's client knows no such thing.
#[in_own_namespace]
fn plain_clients_beyond_the_per_user_limit_are_all_served() {
    let (server, _folder, file) = serve_file(1 << 16, &[]);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mut command = textbook_client(server.key);
            let command = command.arg("/file").stdout(Stdio::piped()).stderr(Stdio::piped());
            Running::start(command)
        })
        .collect();
    for client in clients {
        assert!(client.finish().success() == file);
    }
    server.stop();
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
    server.stop();
}
