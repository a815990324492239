//! Signals: blocking them, waiting for them, and a tick that interrupts a wait.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use sysv_ipc::Pid;

/// Blocks signals in this thread until it is dropped; they stay pending. Threads that are started
/// meanwhile block them for good. Holds the mask from before.
#[derive(Debug)]
pub struct Blocked(SigSet);

impl Blocked {
    pub fn new(signals: SigSet) -> Self {
        // Fails only for a bad `how`: pthread_sigmask(3).
        let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK);
        Self(before.unwrap_or(SigSet::empty()))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let _ = self.0.thread_set_mask();
    }
}

/// Waits at most `timeout` for one of these signals, which the caller must [block](Blocked), and
/// takes it, so no handler runs. None: the time is up, or a handler of another signal ran. Source:
/// sigtimedwait(2).
pub fn wait(signals: &SigSet, timeout: Option<Duration>) -> Option<Signal> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: each pointer is to a value that outlives the call, or may be null; sigtimedwait(2).
    let taken = unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), timeout) };
    Signal::try_from(taken).ok()
}

/// `sigaction(signal, handler)`: runs `handler` when a signal arrives. Unblocks the signal in this
/// thread, since whoever started this program may have blocked it: signal mask in execve(2).
///
/// # Safety
/// The handler must be async-signal-safe: signal-safety(7).
pub(super) unsafe fn on(
    signal: Signal,
    flags: SaFlags,
    handler: extern "C" fn(libc::c_int),
) -> Result<SigAction, Errno> {
    let action = SigAction::new(SigHandler::Handler(handler), flags, SigSet::empty());
    // SAFETY: the caller answers for the handler; sigaction(2).
    let before = unsafe { sigaction(signal, &action) }?;
    SigSet::from(signal).thread_unblock()?;
    Ok(before)
}

/// Interrupts msgsnd and msgrcv in this process every `interval`, by `SIGALRM`. If it is zero, the
/// signals stop.
///
/// The signals repeat because one that arrives just before a call interrupts nothing. The kernel
/// restarts other calls, such as read, but never these two: `SA_RESTART` in signal(7). Forked
/// children do not inherit the timer: setitimer(2).
pub fn tick(interval: Duration) -> Result<(), Errno> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing.
    unsafe { on(Signal::SIGALRM, SaFlags::SA_RESTART, nothing) }?;
    let interval = libc::timeval {
        tv_sec: libc::time_t::try_from(interval.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: interval.subsec_micros().into(),
    };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: timer outlives the call, and null asks for nothing back; setitimer(2).
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    Errno::result(set).map(drop)
}

static ARRIVED: AtomicBool = AtomicBool::new(false);

/// Notes the arrival of a signal, for [`has_arrived`], instead of its default action. It interrupts
/// msgsnd and msgrcv, but one that arrives just before such a call interrupts nothing.
pub fn note(signal: Signal) -> Result<(), Errno> {
    extern "C" fn arrived(_: libc::c_int) {
        ARRIVED.store(true, Ordering::Relaxed);
    }
    // SAFETY: the handler stores into an atomic, which is async-signal-safe: signal-safety(7).
    unsafe { on(signal, SaFlags::SA_RESTART, arrived) }.map(drop)
}

pub fn has_arrived() -> bool {
    ARRIVED.load(Ordering::Relaxed)
}

/// Lets the kernel send this process a signal when its parent dies; at once if it is dead already.
/// Source: `PR_SET_PDEATHSIG`, prctl(2).
pub fn send_when_parent_dies(signal: Signal, parent: Pid) -> Result<(), Errno> {
    prctl::set_pdeathsig(signal)?;
    if nix::unistd::getppid() != super::nix_pid(parent) {
        super::kill(super::getpid(), Some(signal))?;
    }
    Ok(())
}

/// Whether a signal is ignored, as SIGHUP is under nohup(1).
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: reads the action into a structure of its own; sigaction(2).
    let read = unsafe { libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zero is a valid sigaction, and the kernel filled it in.
    read == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

pub fn ignore(signal: Signal) -> Result<(), Errno> {
    set(signal, SigHandler::SigIgn)
}

/// Gives a signal its default action.
pub fn reset(signal: Signal) -> Result<(), Errno> {
    set(signal, SigHandler::SigDfl)
}

fn set(signal: Signal, handler: SigHandler) -> Result<(), Errno> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: neither SIG_IGN nor SIG_DFL runs code of ours; sigaction(2).
    unsafe { sigaction(signal, &action) }.map(drop)
}
