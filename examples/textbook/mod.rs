//! What server and client share, as TLPI's svmsg_file.h: the messages and the calls.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_long, key_t};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};

/// `SERVER_KEY` of svmsg_file.h.
pub(super) const SERVER_KEY: u32 = 0x1aaa_aaa1;

/// The types of replies: `RESP_MT_FAILURE`, `RESP_MT_DATA`, `RESP_MT_END`.
pub(super) const FAILURE: c_long = 1;
pub(super) const DATA: c_long = 2;
pub(super) const END: c_long = 3;

/// The most bytes of `mtext`: `RESP_MSG_SIZE`, and the kernel's default `msgmax`.
pub(super) const MAX: usize = 8192;

/// `REQ_MSG_SIZE`: an int, and a path of `PATH_MAX` bytes.
pub(super) const REQUEST: usize = 4 + 4096;

/// A message as msgsnd and msgrcv expect it.
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
    // SAFETY: msgget takes two integers; msgget(2).
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

/// The queue to remove when a signal ends this process, and the pid of this process: a forked child
/// inherits the handlers and must remove nothing.
static OWN_QUEUE: AtomicI32 = AtomicI32::new(-1);
static OWNER: AtomicI32 = AtomicI32::new(-1);

/// Makes a queue, which SIGINT and SIGTERM remove.
pub(super) fn make_own(key: key_t, flags: c_int) -> io::Result<c_int> {
    let ends = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    // Block the signals until the handlers know the queue.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ends), None)?;
    let queue = msgget(key, flags)?;
    OWN_QUEUE.store(queue, Ordering::SeqCst);
    OWNER.store(nix::unistd::getpid().as_raw(), Ordering::SeqCst);
    for signal in &ends {
        // Reset, so that the handler can raise the signal again with its default effect.
        on_signal(signal, remove_own, SaFlags::SA_RESETHAND)?;
    }
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&ends), None)?;
    Ok(queue)
}

extern "C" fn remove_own(signal: c_int) {
    if OWNER.load(Ordering::SeqCst) == nix::unistd::getpid().as_raw() {
        remove(OWN_QUEUE.load(Ordering::SeqCst));
    }
    // SAFETY: raise takes an integer and is allowed in handlers; signal-safety(7).
    unsafe { libc::raise(signal) };
}

pub(super) fn on_signal(
    signal: Signal,
    handler: extern "C" fn(c_int),
    flags: SaFlags,
) -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(handler), flags, SigSet::empty());
    // SAFETY: the handlers make only calls that signal-safety(7) lists, and msgctl, which is a
    // plain system call and takes no lock.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

/// The number behind an option, in decimal or as 0x and hexadecimal digits.
pub(super) fn option(name: &str, default: u32) -> Result<u32, String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    if arguments.next().is_none() {
        return Ok(default);
    }
    let text = arguments.next().unwrap_or_default();
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|error| format!("{name} {text}: {error}"))
}

/// An option that is a number of bytes, at most [`MAX`].
pub(super) fn size(name: &str, default: usize) -> Result<usize, String> {
    let size = option(name, default as u32)? as usize;
    if (1..=MAX).contains(&size) { Ok(size) } else { Err(format!("{name}: 1 to {MAX} bytes")) }
}
