//! Forking a child that never returns.

use std::convert::Infallible;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use libc::c_long;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use sysv_ipc::Pid;

use super::signals::Blocked;

/// The exit status of a child that panicked: `EX_SOFTWARE`, sysexits(3head).
const PANICKED: i32 = 70;

/// Forks a child that runs `body` and none of its parent's destructors.
///
/// The child blocks all signals but `SIGALRM`: terminals and service managers send `SIGINT`,
/// `SIGQUIT`, `SIGHUP` and `SIGTERM` to all processes at once, but the parent decides when children
/// end, with `SIGKILL`.
pub fn fork_child(body: impl FnOnce() -> Infallible) -> Result<Pid, Errno> {
    let mut all_but_one = SigSet::all();
    all_but_one.remove(Signal::SIGALRM);
    let _blocked = Blocked::new(all_but_one);
    let forked = Errno::result(if is_single_threaded() { fork_alone() } else { fork() })?;
    if forked > 0 {
        return Ok(Pid::from_raw(forked as libc::pid_t));
    }
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(never) => match never {},
        Err(_) => exit_now(PANICKED),
    }
}

fn fork() -> c_long {
    // SAFETY: a lock that another thread holds stays locked in the child, which can hang, but sees
    // no half-changed memory, and libc keeps malloc usable in the child; fork(2), malloc(3).
    unsafe { libc::fork() }.into()
}

/// Forks by the system call itself, in a process with one thread. libc's fork prepares for other
/// threads and for handlers of pthread_atfork(3). It writes to a page for each, and the kernel
/// copies these pages for every child.
fn fork_alone() -> c_long {
    let none: c_long = 0;
    // SAFETY: without CLONE_VM and a stack, it is fork(2). No other thread can hold a lock. The
    // child keeps its parent's thread id in glibc's memory, which only robust and error-checking
    // mutexes use, and std has none; clone(2).
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD as c_long, none, none, none, none) }
}

/// Whether this process has one thread, as far as [`fork_alone`] may know: since version 2.32 glibc
/// tells, and then caches no pid either. With musl, raise(3) in the child would signal the parent.
/// On the other processors, clone has other arguments or results. Source: sys/single_threaded.h.
fn is_single_threaded() -> bool {
    const IS_PLAIN: bool =
        cfg!(all(target_env = "gnu", not(any(target_arch = "s390x", target_arch = "sparc64"))));
    static FLAG: OnceLock<usize> = OnceLock::new();
    let flag = *FLAG.get_or_init(|| {
        // SAFETY: the name ends in NUL; dlsym(3).
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) }
            .expose_provenance()
    });
    let flag = std::ptr::with_exposed_provenance::<libc::c_char>(flag);
    // SAFETY: null, or a char of libc, which only this thread changes, when it starts another.
    IS_PLAIN && !flag.is_null() && unsafe { flag.read_volatile() } != 0
}

/// Makes all threads allocate from one arena. Every other arena would take four system calls, and
/// memory that each fork copies and locks. Call it before there are other threads, in a program
/// whose other threads do little. Source: `M_ARENA_MAX`, mallopt(3).
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two integers; mallopt(3).
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Grows the heap by a mebibyte now, and never lets it shrink, so that a server can go on when the
/// machine has no memory left. Until it is used, it takes addresses and no pages. Source:
/// `M_TOP_PAD` and `M_TRIM_THRESHOLD`, mallopt(3).
pub fn keep_heap_at_hand() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [(libc::M_TRIM_THRESHOLD, 8 << 20), (libc::M_TOP_PAD, 1 << 20)] {
        // SAFETY: takes two integers; mallopt(3).
        let _ = unsafe { libc::mallopt(parameter, bytes) };
    }
    // More than the initial heap, and less than malloc maps separately.
    let mut more = [const { Vec::<u8>::new() }; 2];
    let _ = more.iter_mut().try_for_each(|more| more.try_reserve_exact(120 << 10));
    drop(std::hint::black_box(more));
}

/// Leaves less for each fork to copy: gives back the pages of the heap that are free, and lets
/// children do without the stack on which std reports that the main stack has overflowed. A child
/// whose stack overflows is killed by SIGSEGV all the same.
pub fn leave_less_to_fork() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer, and changes no memory that is in use; malloc_trim(3).
    let _ = unsafe { libc::malloc_trim(1 << 20) };
    let mut stack = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: only asks, and fills the structure in; sigaltstack(2).
    let known = unsafe { libc::sigaltstack(std::ptr::null(), stack.as_mut_ptr()) };
    // SAFETY: zero is a valid value.
    let stack = unsafe { stack.assume_init() };
    if known == 0 && stack.ss_flags & libc::SS_DISABLE == 0 {
        // SAFETY: changes only what forked children inherit, which handle no signal there;
        // MADV_DONTFORK, madvise(2).
        let _ = unsafe { libc::madvise(stack.ss_sp, stack.ss_size, libc::MADV_DONTFORK) };
    }
}

/// `_exit(2)`: ends the process at once, without destructors and without what `atexit` registered.
#[inline(always)] // a page fault less in a child
pub fn exit_now(status: i32) -> ! {
    // By syscall(2), whose code the child has used before: another page fault less.
    // SAFETY: takes an integer; exit_group(2).
    unsafe { libc::syscall(libc::SYS_exit_group, c_long::from(status)) };
    // SAFETY: takes an integer and does not return; _exit(2).
    unsafe { libc::_exit(status) }
}
