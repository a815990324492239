//! One request after the other to a server, each for a whole file.

use std::io::{BufRead, Read, Write};
use std::os::unix::net::UnixStream;

use mqfs::wire::{NORMAL_PRIORITY, Reply};
use sysv_ipc::{Key, MessageBuffer, Mode, OwnedQueue, Queue, Select};

/// The textbook's sizes: `REQ_MSG_SIZE` and `RESP_MSG_SIZE`.
const TEXTBOOK_REQUEST: usize = 4 + 4096;
const TEXTBOOK_REPLY: usize = 8192;

/// Asks once and gives the number of bytes that came.
pub(super) type Source = Box<dyn FnMut() -> u64>;

/// The source that a word tells of: `mqfs,KEY,PATH`, `textbook,KEY,PATH` or `http,SOCKET,PATH`.
pub(super) fn parse(word: &str) -> Source {
    let mut parts = word.splitn(3, ',').map(str::to_owned);
    let mut part = || parts.next().expect("KIND,WHERE,PATH");
    let (kind, place, path) = (part(), part(), part());
    match &*kind {
        "mqfs" => mqfs(place.parse().expect("a key"), path),
        "textbook" => textbook(place.parse().expect("a key"), path),
        "http" => http(place, path),
        _ => panic!("{kind}: no such source"),
    }
}

fn mqfs(key: Key, path: String) -> Source {
    let client = mqfs::Client::new(key);
    Box::new(move || {
        let mut transfer = client.open(&path).expect("a file");
        loop {
            let arrived = transfer.fill_buf().expect("bytes").len();
            if arrived == 0 {
                return transfer.received();
            }
            transfer.consume(arrived);
        }
    })
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
            match reply.mtype() {
                Reply::DATA => count += reply.text().len() as u64,
                Reply::END => return count,
                other => panic!("a message of type {other:?}"),
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
