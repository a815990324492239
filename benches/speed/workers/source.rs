//! One request after the other to a server, each for a whole file.

use std::io::{BufRead, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use mqfs::wire::{FrameType, NORMAL_PRIORITY};
use sysv_ipc::{Key, MessageBuffer, Mode, OwnedQueue, Queue, Select};

/// The textbook's sizes: `REQ_MSG_SIZE` and `RESP_MSG_SIZE`.
const TEXTBOOK_REQUEST: usize = 4 + 4096;
const TEXTBOOK_REPLY: usize = 8192;

/// Asks once and gives the number of bytes that came.
pub(super) type Source = Box<dyn FnMut() -> u64>;

/// The source that a word tells of:
///
/// * `mqfs,KEY,PATH`: one after the other, in a session. `#` in the path becomes 1, 2, 3 …
/// * `mqfs-each,KEY,PATH`: a request for every file.
/// * `mqfs-all,KEY,PATH`: 2,000 numbered files, asked for ahead, in a session.
/// * `textbook,KEY,PATH` or `http,SOCKET,PATH`.
/// * `run:` and a command line without blanks in its words: the whole life of a process.
pub(super) fn parse(word: &str) -> Source {
    if let Some(line) = word.strip_prefix("run:") {
        return process(line);
    }
    let mut parts = word.splitn(3, ',').map(str::to_owned);
    let mut part = || parts.next().expect("KIND,WHERE,PATH");
    let (kind, place, path) = (part(), part(), part());
    match &*kind {
        "mqfs" => mqfs(place.parse().expect("a key"), path, true),
        "mqfs-each" => mqfs(place.parse().expect("a key"), path, false),
        "mqfs-all" => mqfs_all(place.parse().expect("a key"), path),
        "textbook" => textbook(place.parse().expect("a key"), path),
        "http" => http(place, path),
        _ => panic!("{kind}: no such source"),
    }
}

fn process(line: &str) -> Source {
    let mut words = line.split(' ').map(str::to_owned);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    Box::new(move || {
        let status = command.status().expect("the program starts");
        assert!(status.success(), "{command:?}: {status}");
        1
    })
}

fn mqfs(key: Key, path: String, sessions: bool) -> Source {
    let client = mqfs::Client::builder().key(key).sessions(sessions).build();
    let mut number = 0;
    Box::new(move || {
        number += 1;
        let path = path.replace('#', &number.to_string());
        read_all(&mut client.open(&path).expect("a file"))
    })
}

fn mqfs_all(key: Key, path: String) -> Source {
    let numbered = (1..=2000).map(move |number| path.replace('#', &number.to_string()));
    let mut files = mqfs::Client::new(key).open_all(numbered);
    Box::new(move || read_all(files.next_file().expect("as many files").expect("a file")))
}

fn read_all(transfer: &mut mqfs::Transfer) -> u64 {
    loop {
        let arrived = transfer.fill_buf().expect("bytes").len();
        if arrived == 0 {
            return transfer.received();
        }
        transfer.consume(arrived);
    }
}

/// As svmsg_file_client does it: every wait is the kernel's.
fn textbook(key: Key, path: String) -> Source {
    let server = Queue::open(key).expect("a server");
    let mut request = vec![0; TEXTBOOK_REQUEST];
    request[4..4 + path.len()].copy_from_slice(path.as_bytes());
    let mut reply = MessageBuffer::with_capacity(TEXTBOOK_REPLY);
    Box::new(move || {
        let queue = OwnedQueue::private(Mode::new(0o620)).expect("a queue");
        request[..4].copy_from_slice(&queue.id().get().to_ne_bytes());
        server.send(&MessageBuffer::with_text(NORMAL_PRIORITY, &request)).expect("a server");
        let mut count = 0;
        loop {
            queue.receive(&mut reply, Select::Any).expect("a reply");
            match FrameType::of(reply.mtype().get()) {
                Ok(FrameType::Data) => count += reply.text().len() as u64,
                Ok(FrameType::End) => return count,
                other => panic!("{other:?} instead of a reply"),
            }
        }
    })
}

fn http(socket: String, path: String) -> Source {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    let mut bytes = vec![0; 128 << 10];
    Box::new(move || {
        let mut stream = UnixStream::connect(&socket).expect("a server");
        stream.write_all(request.as_bytes()).expect("a server that listens");
        let mut count = 0;
        let mut head = true;
        loop {
            let read = stream.read(&mut bytes).expect("an answer");
            if read == 0 {
                return count;
            }
            count += read as u64;
            // nginx writes the head at once.
            if std::mem::take(&mut head) {
                assert!(bytes.starts_with(b"HTTP/1.1 200"), "not found");
                let end = bytes[..read].windows(4).position(|window| window == b"\r\n\r\n");
                count -= end.expect("the head's end") as u64 + 4;
            }
        }
    })
}
