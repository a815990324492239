//! The metrics file: the figures for Prometheus' textfile collector, written every so often.
//!
//! The server and its children can write no file. So a process of its own does, forked before the
//! server gave that up: it takes no request, reads the figures and nothing else that a client or a
//! child could have made, and can write in one folder and open nothing elsewhere. It ends with the
//! server, however that ends, and writes a last time then.

use std::cell::RefCell;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Pid, UnlinkatFlags, getpid, getppid, unlinkat};

use super::{Error, sandbox};
use crate::process::{self, credentials, errno_of, pidfd};
use crate::stats::{self, Figures};
use crate::sysv::Key;

/// The process that writes, as the server sees it.
#[derive(Debug)]
pub(super) struct Metrics {
    pid: Pid,
    /// Ends the process when it is shut down. Not for children to keep.
    line: RefCell<Option<UnixStream>>,
}

impl Metrics {
    /// How often the file is written.
    const EVERY: Duration = Duration::from_secs(10);

    /// How long a server that ends waits for the last time.
    const LAST: Duration = Duration::from_secs(2);

    /// Starts the process. When this returns, the file is there.
    ///
    /// # Errors
    /// [`Error::Metrics`]: the file cannot be written.
    pub(super) fn start(path: &Path, key: Key, figures: &Figures) -> Result<Self, Error> {
        let failed = |errno| Error::Metrics { path: path.to_owned(), errno };
        let mut writer = Writer::new(path, key).map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed(errno_of(&error)))?;
        let server = getpid();
        let pid = process::fork_child(move || writer.run(figures, server, theirs))
            .map_err(|errno| Error::Os { call: "fork", errno })?;
        let started = first_word(&ours);
        let metrics = Self { pid, line: RefCell::new(Some(ours)) };
        match started.map_err(|error| failed(errno_of(&error)))? {
            0 => Ok(metrics),
            errno => Err(failed(Errno::from_raw(errno))),
        }
    }

    /// The process, to know it by when it ends.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// In a child: gives up what could end the process.
    pub(super) fn let_go(&self) {
        drop(self.line.take());
    }

    /// Has the file written a last time, and waits for that, but not for long.
    pub(super) fn finish(self) {
        let Some(mut line) = self.line.take() else { return };
        let until = Instant::now() + Self::LAST;
        end(&line);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let _ = line.set_read_timeout(Some(left.max(Duration::from_millis(1))));
            match line.read(&mut [0]) {
                Ok(0) => return, // it has gone
                Err(error) if error.kind() == ErrorKind::Interrupted && !left.is_zero() => {}
                _ => break,
            }
        }
        tracing::warn!("the metrics file was not written a last time");
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            end(&line);
        }
    }
}

/// Tells the process to end. Not merely by closing the line: others may have it open.
fn end(line: &UnixStream) {
    let _ = line.shutdown(Shutdown::Write);
}

/// How the first time went: 0, or an errno.
fn first_word(mut line: &UnixStream) -> std::io::Result<i32> {
    let mut word = [0; size_of::<i32>()];
    line.read_exact(&mut word)?;
    Ok(i32::from_ne_bytes(word))
}

/// The process itself.
#[derive(Debug)]
struct Writer {
    folder: OwnedFd,
    name: OsString,
    /// Beside it, and with a name that no collector takes for a file of its own.
    unfinished: OsString,
    key: Key,
    /// What was written last. Kept open, so that no other file can have its number.
    last: Option<File>,
    has_failed: bool,
}

impl Writer {
    fn new(path: &Path, key: Key) -> Result<Self, Errno> {
        let name = path.file_name().ok_or(Errno::EISDIR)?.to_owned();
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(folder, flags, Mode::empty())?;
        let stat = fstatat(&folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()) {
            return Err(Errno::EISDIR);
        }
        let mut unfinished = OsString::from(".");
        unfinished.push(&name);
        unfinished.push(".tmp");
        Ok(Self { folder, name, unfinished, key, last: None, has_failed: false })
    }

    fn run(&mut self, figures: &Figures, server: Pid, mut line: UnixStream) -> Infallible {
        let started = self.confine(server).and_then(|server| {
            self.write(figures, true)?;
            Ok(server)
        });
        let errno = started.as_ref().err().map_or(0, |errno| *errno as i32);
        let told = line.write_all(&errno.to_ne_bytes());
        if let (Ok(server), Ok(())) = (started, told) {
            self.write_until_the_end(figures, &server, &line);
        }
        process::exit_now(0)
    }

    /// Gives up all but writing into the folder. A descriptor that tells when the server has ended.
    fn confine(&self, server: Pid) -> Result<OwnedFd, Errno> {
        let descriptor = pidfd::open(server)?;
        if getppid() != server {
            return Err(Errno::ESRCH); // its pid may be another's by now
        }
        let _ = prctl::set_name(c"mqfs-metrics");
        prctl::set_no_new_privs()?;
        credentials::close_memory()?;
        credentials::drop_capabilities()?;
        sandbox::confine_to_writing_in(&self.folder)?;
        Ok(descriptor)
    }

    fn write_until_the_end(&mut self, figures: &Figures, server: &OwnedFd, line: &UnixStream) {
        let mut next = Instant::now() + Metrics::EVERY;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if has_ended(server, line, left) {
                break self.write_or_warn(figures, false);
            }
            if next <= Instant::now() {
                next = Instant::now() + Metrics::EVERY;
                self.write_or_warn(figures, true);
            }
        }
    }

    /// Tells the log once for as long as it fails. Leaves the file to the next server, which may have
    /// started while children of this one finish.
    fn write_or_warn(&mut self, figures: &Figures, is_up: bool) {
        if self.is_replaced() {
            return;
        }
        match self.write(figures, is_up) {
            Err(errno) if !self.has_failed => {
                tracing::warn!(%errno, "the metrics file cannot be written");
                self.has_failed = true;
            }
            Err(_) => {}
            Ok(()) => self.has_failed = false,
        }
    }

    fn is_replaced(&self) -> bool {
        let identity = |stat: FileStat| (stat.st_dev, stat.st_ino);
        let found = fstatat(&self.folder, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map(identity);
        let ours = self.last.as_ref().and_then(|file| fstat(file).map(identity).ok());
        found.is_ok_and(|found| ours != Some(found))
    }

    /// Writes another file and renames it, so that nobody reads half of it.
    fn write(&mut self, figures: &Figures, is_up: bool) -> Result<(), Errno> {
        let Some(figures) = figures.snapshot() else { return Err(Errno::ENOMEM) };
        let text = stats::exposition(self.key, &figures, is_up);
        // What a predecessor left that was killed while it wrote; or what somebody put there.
        self.remove_unfinished()?;
        match self.write_and_rename(&text) {
            Ok(file) => {
                self.last = Some(file);
                Ok(())
            }
            Err(errno) => {
                let _ = self.remove_unfinished();
                Err(errno)
            }
        }
    }

    fn remove_unfinished(&self) -> Result<(), Errno> {
        match unlinkat(&self.folder, self.unfinished.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            outcome => outcome,
        }
    }

    fn write_and_rename(&self, text: &str) -> Result<File, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o644);
        let file = openat(&self.folder, self.unfinished.as_os_str(), flags, mode)?;
        let mut file = File::from(file);
        file.write_all(text.as_bytes()).map_err(|error| errno_of(&error))?;
        fchmod(&file, mode)?; // whoever collects it is another user, whatever the umask
        let (from, to) = (self.unfinished.as_os_str(), self.name.as_os_str());
        renameat(&self.folder, from, &self.folder, to)?;
        Ok(file)
    }
}

/// Waits until the server ends, or says that it is about to, or the time is up.
fn has_ended(server: &OwnedFd, line: &UnixStream, timeout: Duration) -> bool {
    let mut ready = [
        PollFd::new(server.as_fd(), PollFlags::POLLIN),
        PollFd::new(line.as_fd(), PollFlags::POLLIN),
    ];
    // Rounded up, so as not to wake too early.
    let milliseconds = i32::try_from(timeout.as_millis() + 1).unwrap_or(i32::MAX);
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    match poll(&mut ready, timeout) {
        Ok(ended) => ended > 0,
        Err(Errno::EINTR) => false,
        Err(_) => true, // never known to happen; better than to wait for nothing
    }
}
