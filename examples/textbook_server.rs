//! svmsg_file_server of *The Linux Programming Interface* (TLPI), listing 46-8, in Rust.
//!
//! Serves files over System V message queues. This process makes the request queue under a
//! well-known key, receives requests from it, forks a child for each, and removes the queue at its
//! end. The child opens the file, sends it into the client's queue and exits. Clients remove their
//! own queues.
//!
//! This program uses nothing of mqfs, so what works with it works with the book's. It also has the
//! book's faults: it trusts every field of a request, and ends a failed read with END.
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
    DATA, END, FAILURE, MAX, Message, REQUEST, SERVER_KEY, make_own, msgrcv, msgsnd, on_signal,
    option, remove, size,
};

struct Options {
    key: key_t,
    /// The bytes of a DATA.
    chunk: usize,
    /// The most bytes of a request: 4,100 in the book, 260 in programs with a shorter path.
    request: usize,
    /// The bytes of an END: none in the book, one in other programs.
    end: usize,
}

fn main() -> ExitCode {
    let served = options()
        .map_err(|why| (2, why))
        .and_then(|options| run(&options).map_err(|error| (1, error.to_string())));
    let Err((status, why)) = served else { return ExitCode::SUCCESS };
    eprintln!("textbook_server: {why}");
    ExitCode::from(status)
}

fn options() -> Result<Options, String> {
    Ok(Options {
        key: option("--key", SERVER_KEY)?.cast_signed(),
        chunk: size("--chunk", MAX)?,
        request: size("--request", REQUEST)?,
        end: usize::from(std::env::args().any(|argument| argument == "--end-byte")),
    })
}

fn run(options: &Options) -> io::Result<()> {
    on_signal(Signal::SIGCHLD, reap_children, SaFlags::SA_RESTART)?;
    let queue = make_own(options.key, libc::IPC_CREAT | libc::IPC_EXCL | 0o620)?;
    // It serves even if nobody reads its standard output.
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
            // By SIGCHLD. msgrcv is never restarted, even with SA_RESTART; signal(7).
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // SAFETY: this process has one thread, so the child may call anything; fork(2).
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                answer(&request.mtext[..length], options);
                // SAFETY: _exit takes an integer and does not return; _exit(2).
                unsafe { libc::_exit(0) }
            }
            _ => {}
        }
    }
}

/// Sends the file that a request names, in a child. After an error it just ends.
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
    // A failed read looks like the end of the file, as in the book.
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
    interrupted.set(); // the interrupted code may be about to read errno
}
