//! The textbook pair as processes, and the plain protocol by hand.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use sysv_ipc::{Key, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, Select};

use crate::support::{Running, clear, noise, program, queue_of, unique_key, wait_until};

/// Sizes around the buffers of both kinds of plain client, and of many messages.
pub const SIZES: [usize; 6] = [0, 1, 4096, 8192, (1 << 20) + 1, 64 << 20];

/// The mode of a queue of TLPI's client.
pub const TLPI_MODE: Mode = Mode::new(0o620);

/// A textbook server under a key of its own, ready for requests.
pub struct TextbookServer {
    pub key: Key,
    running: Running,
}

impl TextbookServer {
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        let key = unique_key();
        let mut command = program("textbook_server");
        command.args(["--key", &key.to_string()]).args(arguments).stdout(Stdio::piped());
        let mut running = Running::start(&mut command);
        let mut line = String::new();
        let stdout = running.child().stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "textbook_server: ready\n");
        Self { key, running }
    }

    /// Stops it. Fails the test if it had ended by itself or leaves its queue.
    #[track_caller]
    pub fn stop(mut self) {
        assert!(!self.running.has_ended(), "it ended by itself");
        self.running.signal(Signal::SIGTERM);
        assert_eq!(self.running.wait().signal(), Some(Signal::SIGTERM as i32));
        assert_eq!(queue_of(self.key), None);
    }
}

impl Drop for TextbookServer {
    fn drop(&mut self) {
        // If it was killed, it has removed nothing.
        clear(self.key);
    }
}

/// `textbook_client --key KEY`, without further arguments.
pub fn textbook_client(key: Key) -> Command {
    let mut command = program("textbook_client");
    command.args(["--key", &key.to_string()]);
    command
}

/// The two kinds of plain client in use: sizes of their buffer and path field.
pub fn textbook_clients(key: Key) -> [Command; 2] {
    [("4096", "260"), ("8192", "4100")].map(|(buffer, request)| {
        let mut command = textbook_client(key);
        command.args(["--buffer", buffer, "--request", request]);
        command
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
