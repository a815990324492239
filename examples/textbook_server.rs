//! svmsg_file_server of *The Linux Programming Interface* (TLPI), listing 46-8, in Rust.
//!
//! Serves files over System V message queues, one child for each request. This process makes the
//! request queue under a well-known key, receives from it, forks, and removes it when SIGINT or
//! SIGTERM ends it, or a call that it cannot do without fails. A child opens the file, sends it
//! into the client's queue and exits; it owns nothing. A client's queue is the client's to remove.
//!
//! Nothing here is of mqfs, so that what works with this program works with the book's. It has the
//! book's faults too: it believes every field of a request, and ends a failed read with END.
//!
//! ```text
//! textbook_server [--key KEY] [--chunk BYTES] [--request BYTES] [--end-byte]
//! ```

#![allow(unsafe_code)]

mod textbook;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use libc::{c_int, key_t};
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use textbook::{
    Arguments, DATA, END, FAILURE, MAX, Message, REQUEST, SERVER_KEY, make_own, msgrcv, msgsnd,
    on_signal, remove,
};

struct Options {
    key: key_t,
    /// The bytes of a DATA.
    chunk: usize,
    /// The most bytes of a request: 4,100 as in the book, 260 in programs with a shorter path.
    request: usize,
    /// The bytes of an END: none in the book, one in other programs.
    end: usize,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("textbook_server: {error}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("textbook_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options { key: SERVER_KEY, chunk: MAX, request: REQUEST, end: 0 };
    let mut arguments = Arguments::new();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--key") => options.key = arguments.key()?,
            Some("--chunk") => options.chunk = arguments.size(1)?,
            Some("--request") => options.request = arguments.size(5)?,
            Some("--end-byte") => options.end = 1,
            _ => return Err(format!("{}: not an option", argument.display())),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> io::Result<()> {
    // Before the first child, so that none is missed.
    on_signal(Signal::SIGCHLD, reap_children, SaFlags::SA_RESTART)?;
    let queue = make_own(options.key, libc::IPC_CREAT | libc::IPC_EXCL | 0o620)?;
    // Whoever started it may have gone; that is no reason not to serve.
    let _ = writeln!(io::stdout(), "textbook_server: ready");
    let served = serve(queue, options);
    remove(queue);
    served
}

/// Receives requests and forks, until a call fails.
fn serve(queue: c_int, options: &Options) -> io::Result<()> {
    let mut request = Message::new(0);
    loop {
        let length = match msgrcv(queue, &mut request, options.request) {
            Ok(length) => length,
            // By SIGCHLD. Never restarted, even with SA_RESTART: signal(7).
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // SAFETY: this process has one thread, so the child may do all that it could; fork(2).
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                answer(&request.mtext[..length], options);
                // SAFETY: it takes an integer and does not return; _exit(2).
                unsafe { libc::_exit(0) }
            }
            _ => {}
        }
    }
}

/// Sends the file that a request names. Runs in a child; an error ends it, and nobody is told.
fn answer(request: &[u8], options: &Options) {
    let Some((id, path)) = request.split_first_chunk() else { return };
    let client = c_int::from_ne_bytes(*id);
    let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
    let Ok(mut file) = File::open(OsStr::from_bytes(path)) else {
        let text = b"Couldn't open\0";
        let mut reply = Message::new(FAILURE);
        reply.mtext[..text.len()].copy_from_slice(text);
        let _ = msgsnd(client, &reply, text.len());
        return;
    };
    let mut reply = Message::new(DATA);
    // A failed read looks like the end here, as it does in the book.
    while let Ok(read @ 1..) = file.read(&mut reply.mtext[..options.chunk]) {
        if msgsnd(client, &reply, read).is_err() {
            break;
        }
    }
    reply.mtype = END;
    let _ = msgsnd(client, &reply, options.end);
}

/// The book's `grimReaper`.
extern "C" fn reap_children(_: c_int) {
    let interrupted = Errno::last();
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
    interrupted.set(); // the code that this came between may be about to look at errno
}
