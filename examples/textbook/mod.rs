//! What server and client share, as TLPI's svmsg_file.h: the messages, and the calls.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_long, key_t};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};

/// `SERVER_KEY` of svmsg_file.h.
pub(super) const SERVER_KEY: key_t = 0x1aaa_aaa1;

/// The types of replies: `RESP_MT_FAILURE`, `RESP_MT_DATA`, `RESP_MT_END`.
pub(super) const FAILURE: c_long = 1;
pub(super) const DATA: c_long = 2;
pub(super) const END: c_long = 3;

/// The most bytes of `mtext`: `RESP_MSG_SIZE`, and the kernel's default `msgmax`.
pub(super) const MAX: usize = 8192;

/// `REQ_MSG_SIZE`: an int, and a path of `PATH_MAX` bytes.
pub(super) const REQUEST: usize = 4 + 4096;

/// A message of either kind, as the calls want it.
#[repr(C)]
pub(super) struct Message {
    pub(super) mtype: c_long,
    pub(super) mtext: [u8; MAX],
}

impl Message {
    pub(super) fn new(mtype: c_long) -> Self {
        Self { mtype, mtext: [0; MAX] }
    }
}

pub(super) fn msgget(key: key_t, flags: c_int) -> io::Result<c_int> {
    // SAFETY: it takes two integers; msgget(2).
    match unsafe { libc::msgget(key, flags) } {
        -1 => Err(failed("msgget")),
        queue => Ok(queue),
    }
}

/// Sends the first `size` bytes of `mtext`, waiting while the queue is full.
pub(super) fn msgsnd(queue: c_int, message: &Message, size: usize) -> io::Result<()> {
    assert!(size <= MAX, "more than mtext has");
    // SAFETY: the message outlives the call and has size bytes behind its mtype; msgop(2).
    match unsafe { libc::msgsnd(queue, ptr::from_ref(message).cast(), size, 0) } {
        -1 => Err(failed("msgsnd")),
        _ => Ok(()),
    }
}

/// Waits for a message of at most `size` bytes; one that is larger is an error, `E2BIG`.
pub(super) fn msgrcv(queue: c_int, message: &mut Message, size: usize) -> io::Result<usize> {
    assert!(size <= MAX, "more than mtext has");
    // SAFETY: the message outlives the call and has room for size bytes behind its mtype; msgop(2).
    let received = unsafe { libc::msgrcv(queue, ptr::from_mut(message).cast(), size, 0, 0) };
    usize::try_from(received).map_err(|_| failed("msgrcv"))
}

pub(super) fn remove(queue: c_int) {
    // SAFETY: IPC_RMID takes no buffer; msgctl(2).
    unsafe { libc::msgctl(queue, libc::IPC_RMID, ptr::null_mut()) };
}

/// The call and its errno, of the same kind as the errno.
fn failed(call: &str) -> io::Error {
    let errno = io::Error::last_os_error();
    io::Error::new(errno.kind(), format!("{call}: {errno}"))
}

/// The queue that this process removes when a signal ends it, and which process that is: a forked
/// child has the same handlers, and removes nothing.
static OWN_QUEUE: AtomicI32 = AtomicI32::new(-1);
static OWNER: AtomicI32 = AtomicI32::new(-1);

/// Makes a queue that neither SIGINT nor SIGTERM leaves behind.
pub(super) fn make_own(key: key_t, flags: c_int) -> io::Result<c_int> {
    let ends = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    // Not between making the queue and knowing of it.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ends), None)?;
    let queue = msgget(key, flags)?;
    OWN_QUEUE.store(queue, Ordering::SeqCst);
    OWNER.store(nix::unistd::getpid().as_raw(), Ordering::SeqCst);
    for signal in &ends {
        // So that the signal, raised again, has its usual effect.
        on_signal(signal, remove_own, SaFlags::SA_RESETHAND)?;
    }
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&ends), None)?;
    Ok(queue)
}

extern "C" fn remove_own(signal: c_int) {
    if OWNER.load(Ordering::SeqCst) == nix::unistd::getpid().as_raw() {
        remove(OWN_QUEUE.load(Ordering::SeqCst));
    }
    // SAFETY: it takes an integer and may be called in a handler; signal-safety(7).
    unsafe { libc::raise(signal) };
}

pub(super) fn on_signal(
    signal: Signal,
    handler: extern "C" fn(c_int),
    flags: SaFlags,
) -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(handler), flags, SigSet::empty());
    // SAFETY: every handler here makes only calls that signal-safety(7) lists, and msgctl, which is
    // one system call and takes no lock.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

/// The arguments, one by one.
pub(super) struct Arguments(std::env::ArgsOs);

impl Arguments {
    pub(super) fn new() -> Self {
        let mut arguments = std::env::args_os();
        arguments.next();
        Self(arguments)
    }

    pub(super) fn next(&mut self) -> Option<std::ffi::OsString> {
        self.0.next()
    }

    /// A key, with 0x or in decimal, as ipcs prints it.
    pub(super) fn key(&mut self) -> Result<key_t, String> {
        let text = self.text()?;
        let bits = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        bits.map(u32::cast_signed).map_err(|error| format!("{text}: {error}"))
    }

    /// A number of bytes, from `least` to [`MAX`].
    pub(super) fn size(&mut self, least: usize) -> Result<usize, String> {
        let text = self.text()?;
        match text.parse() {
            Ok(size) if (least..=MAX).contains(&size) => Ok(size),
            _ => Err(format!("{text}: a number from {least} to {MAX} is expected")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        let value = self.0.next().ok_or("a value is missing")?;
        value.into_string().map_err(|value| format!("{}: not a number", value.display()))
    }
}
