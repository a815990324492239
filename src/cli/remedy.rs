//! The advice that follows an error of the library: what a user can do about it.
//!
//! A running server logs its advice itself: `server/mod.rs`, `server/takeover/`.

use std::error::Error as _;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::reason;
use crate::escape::escape;
use crate::sys::{errno_of, errno_of_ipc};
use crate::{client, server};

/// An error of the client with its causes, and with a remedy where there is one.
pub(super) fn explain_client(error: &client::Error) -> String {
    use client::ErrorKind;
    let errno = error.raw_os_error().map(Errno::from_raw);
    let remedy = match error.kind() {
        ErrorKind::Failed if errno == Some(Errno::EISDIR) => {
            " (-l lists it; -r fetches it, with -C DIR or --tar)"
        }
        ErrorKind::Failed if errno == Some(Errno::ELOOP) => {
            " (a link to what a process has open, such as /dev/stdin, is not followed)"
        }
        ErrorKind::NotAllowed => " (its --mode says who may ask; 0622: everybody)",
        ErrorKind::UntrustedServer => " (if you trust that user, say so with --server-uid)",
        ErrorKind::NoServer => " (is mqfs-server running in this IPC namespace?)",
        ErrorKind::ServerDead => " (start mqfs-server again)",
        ErrorKind::NoQueueLeft => {
            " (mqfs-reap removes orphaned ones; raising kernel.msgmni makes room)"
        }
        _ => "",
    };
    format!("{:#}{remedy}", anyhow::Error::new(error.clone()))
}

/// Why a local file or directory cannot be written, with a remedy where there is one.
pub(super) fn explain_output(path: &Path, error: &io::Error) -> String {
    let is_directory = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let remedy = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EISDIR | Errno::ENOTDIR | Errno::ENOENT) if is_directory || path.is_dir() => {
            " (-C DIR writes files into a directory that exists, under their own names)"
        }
        Some(Errno::ENOENT) => " (mkdir -p makes directories)",
        // A new file takes the name of the old one, in the directory; `> FILE` needs only the file.
        Some(Errno::EBUSY | Errno::EACCES | Errno::EPERM | Errno::EROFS)
            if path.is_file() && access(path, AccessFlags::W_OK).is_ok() =>
        {
            " (the file cannot be replaced by a new one; > FILE writes into it)"
        }
        _ => "",
    };
    let what = if error.raw_os_error().is_some() { "cannot write " } else { "" };
    format!("{what}{}: {}{remedy}", escape(path), reason(error))
}

/// An error of the server with its cause, and with a remedy where there is one.
pub(super) fn explain_server(error: &server::Error) -> String {
    use server::Error;
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let cause = cause.map_or_else(String::new, |cause| format!(": {}", errno_of(cause)));
    let remedy = match error {
        // No advice to remove what is under the key: somebody alive may use it.
        Error::AlreadyRunning { .. } | Error::ForeignLock { .. } | Error::ForeignQueue { .. } => {
            " (choose another --key)"
        }
        Error::RootNotGiven { .. } => ": say with --root what that is (--root / for everything)",
        Error::NoOpenat2 { .. } => {
            " (Linux 5.6 has it; filters of system calls, such as RestrictSUIDSGID=, may deny it)"
        }
        Error::Ipc(error) if is_filtered(error) => {
            " (a filter of system calls denies System V IPC, or the kernel has none)"
        }
        Error::Ipc(error) if error.call() == "semget" && error.is_out_of_space() => {
            " (no semaphore is left: ipcs -s shows them; raising the last number of kernel.sem \
             makes room)"
        }
        Error::NoProc => ": mount -t proc proc /proc",
        Error::NoQueueLeft(_) => {
            " (mqfs-reap removes orphaned queues; raising kernel.msgmni makes room)"
        }
        _ => "",
    };
    format!("{error}{cause}{remedy}")
}

/// Whether the kernel's own System V IPC cannot have answered so: semget(2) and msgget(2) never
/// fail with `EPERM`.
fn is_filtered(error: &sysv_ipc::Error) -> bool {
    let (errno, call) = (errno_of_ipc(*error), error.call());
    matches!((errno, call), (Errno::ENOSYS, _) | (Errno::EPERM, "semget" | "msgget"))
}
