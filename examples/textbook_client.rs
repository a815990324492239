//! svmsg_file_client of *The Linux Programming Interface* (TLPI), listing 46-9, in Rust.
//!
//! Fetches one file and writes it to standard output. This process makes a private queue, names it
//! in a request to the server's queue, receives the file from it, and removes it at its end.
//!
//! This program uses nothing of mqfs, so a server that works with it works with the book's client.
//! It receives without `MSG_NOERROR`: a message that does not fit is an error.
//!
//! ```text
//! textbook_client [--key KEY] [--buffer BYTES] [--request BYTES] PATH
//! ```
//!
//! Exit status: 0 done; 1 the server's FAILURE; 2 no server, or wrong arguments; 3 anything else,
//! such as a message that the protocol does not have.

#![allow(unsafe_code)]

mod textbook;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use libc::{c_int, key_t};

use textbook::{
    DATA, END, FAILURE, MAX, Message, REQUEST, SERVER_KEY, make_own, msgget, msgrcv, msgsnd,
    option, remove, size,
};

struct Options {
    key: key_t,
    /// The most bytes of a reply.
    buffer: usize,
    /// The bytes of a request: the id, and the path's field.
    request: usize,
    path: OsString,
}

/// Why there is no file, and the exit status that says so.
struct Stop(u8, String);

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self(3, error.to_string())
    }
}

fn main() -> ExitCode {
    let outcome = options().map_err(|error| Stop(2, error)).and_then(|options| run(&options));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop(status, why)) => {
            eprintln!("textbook_client: {why}");
            ExitCode::from(status)
        }
    }
}

fn options() -> Result<Options, String> {
    let path = std::env::args_os().skip(1).last().ok_or("PATH is missing")?;
    let key = option("--key", SERVER_KEY)?.cast_signed();
    let (buffer, request) = (size("--buffer", MAX)?, size("--request", REQUEST)?);
    if path.len() + size_of::<c_int>() + 1 > request {
        return Err(format!("the path is too long for a request of {request} bytes"));
    }
    Ok(Options { key, buffer, request, path })
}

fn run(options: &Options) -> Result<(), Stop> {
    let server = msgget(options.key, 0).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Stop(2, format!("no server: {error}")),
        _ => error.into(),
    })?;
    let queue = make_own(libc::IPC_PRIVATE, 0o620)?;
    let fetched = ask(server, queue, options).and_then(|()| receive(queue, options.buffer));
    remove(queue);
    fetched
}

/// Sends the request: the id of our queue, and the path in a field of a fixed size.
fn ask(server: c_int, queue: c_int, options: &Options) -> Result<(), Stop> {
    let mut request = Message::new(1); // any type will do
    let (id, field) = request.mtext.split_at_mut(size_of::<c_int>());
    id.copy_from_slice(&queue.to_ne_bytes());
    // The book's client also sends what happens to lie behind the path on its stack: here, 0xaa.
    field.fill(0xaa);
    let path = options.path.as_bytes();
    field[..path.len()].copy_from_slice(path);
    field[path.len()] = 0;
    Ok(msgsnd(server, &request, options.request)?)
}

/// Writes DATA out until END.
fn receive(queue: c_int, buffer: usize) -> Result<(), Stop> {
    // Not io::stdout(), which looks for line ends.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut reply = Message::new(0);
    loop {
        let length = msgrcv(queue, &mut reply, buffer)?;
        let text = &reply.mtext[..length];
        match reply.mtype {
            DATA => stdout.write_all(text)?,
            END => return Ok(()),
            FAILURE => {
                let words = text.split(|&byte| byte == 0).next().unwrap_or_default();
                return Err(Stop(1, String::from_utf8_lossy(words).into_owned()));
            }
            other => return Err(Stop(3, format!("a message of type {other}"))),
        }
    }
}
