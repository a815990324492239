//! The server: one well-known request queue, and a child for every request.
//!
//! The parent receives, decodes and admits, and forks. The child becomes the caller, opens the file
//! below the export's root and streams it into the caller's reply queue, then ends. The parent owns
//! the request queue and the server lock and removes both; a reply queue belongs to its client. In
//! the manner of TLPI section 46.8.

mod admit;
mod child;
mod children;
mod export;
mod outbox;
mod refusals;
mod request_queue;
mod sandbox;
mod transfer;

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Uid, geteuid, getpid};

use crate::process::server_lock::{LockError, ServerLock};
use crate::process::{self, children as ended, credentials, signals};
use crate::sysv::{self, Key, MessageBuffer, MessageType, Mode, QueueId, ReceiveError, Select};
use crate::wire::{DEFAULT_KEY, MARK, MAX_REQUEST, Request, is_request_queue_mode};

use admit::{Admitted, Policy};
use children::Children;
use export::Export;
use outbox::Outbox;
use refusals::{Refusal, Refusals};
use request_queue::{RequestQueue, Stopping};
use sandbox::Sandbox;

/// How a server is to run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The key of the request queue.
    pub key: Key,
    /// Who may write requests: 0600 and any of the w bits of group (020) and others (002). Reading is
    /// for the server alone: requests hold what proves whose they are.
    pub mode: Mode,
    /// What is served lies below this folder. None: everything, which takes root's rights or a mode
    /// that lets nobody else ask.
    pub root: Option<PathBuf>,
    /// The most children at once, at least 1. At the bound requests wait in the queue.
    pub max_children: u16,
    /// The most children at once for one user, at least 1. At the bound that user's requests are
    /// answered with FAILURE and `EAGAIN`: try again.
    pub max_per_user: u16,
    /// How long a child waits for a client that does not read.
    pub stall_timeout: Duration,
    /// How long children may go on when the server stops.
    pub drain_timeout: Duration,
    /// Which plain requests are answered.
    pub plain: PlainPolicy,
    /// What a child of its own does at the start and then every so often.
    pub housekeeping: Option<Housekeeping>,
}

/// Work that a server has done beside serving: the same every time.
#[derive(Debug, Clone, Copy)]
pub struct Housekeeping {
    /// How often, but for the first time at once.
    pub every: Duration,
    /// What is done, in a child.
    pub task: fn(),
}

/// Which plain requests are answered. They prove nothing: who can write to the request queue can
/// name any queue as theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlainPolicy {
    /// None.
    Never,
    /// All, while the request queue's mode lets nobody but its owner write.
    Owner,
    /// All.
    Any,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            key: DEFAULT_KEY,
            mode: Mode::new(0o600),
            root: None,
            max_children: 64,
            max_per_user: 16,
            stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            plain: PlainPolicy::Owner,
            housekeeping: None,
        }
    }
}

impl Config {
    fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new("/"))
    }

    /// Whether users beside the server's own, and root, may write requests.
    fn lets_others_ask(&self) -> bool {
        [0o020, 0o002].into_iter().any(|bit| self.mode.contains(Mode::new(bit)))
    }

    fn check(&self) -> Result<(), Error> {
        if !is_request_queue_mode(self.mode.with(MARK)) {
            return Err(Error::Mode { mode: self.mode });
        }
        // Root's server becomes the user who asks; any other gives away what its own user may read.
        if self.root.is_none() && self.lets_others_ask() && !geteuid().is_root() {
            return Err(Error::NoRoot { mode: self.mode, uid: geteuid() });
        }
        Ok(())
    }
}

/// Why a server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A queue stands under the key that may not be removed.
    #[error(
        "key {key} is in use: queue {queue} is another program's ({why}); \
         if nothing needs it, remove it: ipcrm -Q {key}"
    )]
    KeyInUse {
        /// The key.
        key: Key,
        /// The queue under it.
        queue: QueueId,
        /// What is known of it.
        why: String,
    },
    /// The mode lets others read requests, or the server not.
    #[error("mode {mode}: it must be 0600, 0620, 0602 or 0622: only the server may read requests")]
    Mode {
        /// The mode.
        mode: Mode,
    },
    /// Others may ask, and nobody said what for.
    #[error(
        "mode {mode} lets others ask, and they get whatever uid {uid} may read: \
         say with --root what that is (--root / for everything)"
    )]
    NoRoot {
        /// The mode.
        mode: Mode,
        /// The server's user.
        uid: Uid,
    },
    /// The root cannot be served.
    #[error("root {}: {errno}", crate::text::printable(.root))]
    Root {
        /// The root.
        root: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The namespace has no queue left (`ENOSPC`).
    #[error("{0} (mqfs-reap removes orphaned queues; raising kernel.msgmni makes room)")]
    NoQueueLeft(sysv::Error),
    /// A call on the queue failed.
    #[error(transparent)]
    Ipc(#[from] sysv::Error),
    /// Another call failed.
    #[error("{call}: {errno}")]
    Os {
        /// The call.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
}

/// A server that holds its lock and has its request queue, and can be asked.
///
/// ```no_run
/// use mqfs::server::{Config, Server};
///
/// let mut config = Config::default();
/// config.root = Some("/srv/files".into());
/// let server = Server::start(config)?;
/// let stopper = server.stopper(); // for another thread, or a signal handler's
/// println!("{server}");
/// server.run()?;
/// # Ok::<(), mqfs::server::Error>(())
/// ```
///
/// # What it takes of the process
///
/// One server runs in a process, on one thread, and expects the process to itself: it waits for *all*
/// children, handles `SIGCHLD` and `SIGALRM`, uses `ITIMER_REAL`, and forks children that do not
/// exec. Other threads must hold `SIGCHLD` and `SIGALRM` back, and no lock that logging takes.
///
/// From [`start`](Self::start) on, and for good, the thread and those that it starts can read only
/// what lies below the root, what looking up users takes, and /proc, and write no file (Landlock);
/// no program that they run gains a privilege; and the process cannot be traced, nor leaves a core.
#[derive(Debug)]
pub struct Server {
    // Dropped in this order: the lock must outlive the queue that it guards.
    queue: RequestQueue,
    lock: ServerLock,
    export: Export,
    sandbox: Sandbox,
    config: Config,
    stopping: Arc<Stopping>,
    policy: Policy,
    children: Children,
    refusals: Refusals,
    last_housekeeping: Option<Instant>,
    /// What holds the thread that it started on must hold the one that it runs on.
    not_send: PhantomData<*const ()>,
}

/// Stops a server, from another thread than the one that it runs on.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<Stopping>);

impl Stopper {
    /// Removes the request queue and lets children finish. Called again, ends them at once.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// What a server that can be asked says of itself.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, queue) = (self.config.key, self.queue.id());
        let root = crate::text::printable(self.config.root());
        write!(f, "ready: key {key}, queue {queue}, root {root}, pid {}", getpid())
    }
}

impl Server {
    /// Takes the server lock and makes the request queue.
    ///
    /// # Errors
    /// [`Error`]: the key is in use, the root cannot be opened, or the namespace has no queue left.
    pub fn start(config: Config) -> Result<Self, Error> {
        config.check()?;
        let max_children = usize::from(config.max_children.max(1));
        let policy = Policy::of(&config);
        policy.warn();
        let export = Export::open_root(config.root())
            .map_err(|errno| Error::Root { root: config.root().to_owned(), errno })?;
        let lock = ServerLock::take(config.key)?;
        let stopping = Arc::new(Stopping::new(config.key));
        let queue = RequestQueue::create(config.key, config.mode, Arc::clone(&stopping))?;
        ended::collect(max_children + 1).map_err(|errno| Error::Os { call: "sigaction", errno })?;
        credentials::load_name_services();
        let sandbox =
            Sandbox::enter(&export).map_err(|errno| Error::Os { call: "prctl", errno })?;
        Ok(Self {
            queue,
            lock,
            export,
            sandbox,
            policy,
            children: Children::new(max_children, config.stall_timeout),
            refusals: Refusals::default(),
            config,
            stopping,
            last_housekeeping: None,
            not_send: PhantomData,
        })
    }

    /// What stops this server.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stopping))
    }

    /// Serves until it is stopped, then lets its children finish.
    ///
    /// # Errors
    /// The request queue is lost and cannot be made again.
    pub fn run(mut self) -> Result<(), Error> {
        self.stopping.runs_here();
        if let Some(housekeeping) = self.config.housekeeping {
            signals::tick_every(housekeeping.every)
                .map_err(|errno| Error::Os { call: "setitimer", errno })?;
        }
        // A byte more than a request can have, so that a longer one shows.
        let mut message = MessageBuffer::with_capacity(MAX_REQUEST + 1);
        let served = self.serve(&mut message);
        self.stopping.remove_queue();
        self.children.drain(self.config.drain_timeout, || self.stopping.is_urgent());
        served
    }

    fn serve(&mut self, message: &mut MessageBuffer) -> Result<(), Error> {
        loop {
            self.children.settle();
            self.housekeep();
            let waited = self.children.wait_for_room(|| self.stopping.is_stopping());
            if self.stopping.is_stopping() {
                return Ok(());
            }
            if waited && !self.queue.is_ours() {
                self.recreate_queue()?;
            }
            match self.queue.receive_truncated(message, Select::UpTo(MessageType::MAX)) {
                Ok(()) => self.answer(message.text()),
                Err(ReceiveError::Interrupted) => {}
                Err(ReceiveError::Gone) if self.stopping.is_stopping() => return Ok(()),
                Err(ReceiveError::Gone) => self.recreate_queue()?,
                Err(ReceiveError::Os(error)) => return Err(error.into()),
                Err(_) => {} // neither empty nor too big: it waits, and truncates
            }
        }
    }

    /// Another server may have removed it, if the lock was removed first: then that one stays.
    fn recreate_queue(&mut self) -> Result<(), Error> {
        self.lock.hold_on()?;
        self.queue.recreate()?;
        let queue = self.queue.id().get();
        tracing::warn!(queue, "the request queue was removed; made a new one");
        Ok(())
    }

    /// decode → admit → fork
    fn answer(&mut self, text: &[u8]) {
        let received = Instant::now();
        let request = match Request::decode(text) {
            Ok(request) => request,
            Err(malformed) => return self.refusals.count(Refusal::Malformed(malformed), None),
        };
        let admitted = match self.policy.admit(&request) {
            Ok(admitted) => admitted,
            Err(refused) => {
                refused.tell_caller();
                return self.refusals.count(refused.reason, Some(&request));
            }
        };
        if let Err(reason) = self.start_child(admitted, received) {
            let text = match reason {
                Refusal::UserBusy(_) => {
                    "busy: as many transfers as one user may have are under way"
                }
                _ => "busy: the server cannot fork",
            };
            admitted.reply.refuse(text, Errno::EAGAIN);
            self.refusals.count(reason, Some(&request));
        }
    }

    fn start_child(&mut self, admitted: Admitted<'_>, received: Instant) -> Result<(), Refusal> {
        let caller = admitted.caller.uid;
        if self.children.answering(caller) >= usize::from(self.config.max_per_user.max(1)) {
            return Err(Refusal::UserBusy(caller));
        }
        let (export, sandbox) = (&self.export, &self.sandbox);
        let outbox = Outbox::new(admitted.reply, self.config.stall_timeout, received);
        let pid = process::fork_child(|| child::serve(admitted, export, sandbox, outbox, received))
            .map_err(Refusal::ForkFailed)?;
        self.children.started(pid, caller);
        Ok(())
    }

    fn housekeep(&mut self) {
        let Some(Housekeeping { every, task }) = self.config.housekeeping else { return };
        let due = self.last_housekeeping.is_none_or(|last| last.elapsed() >= every);
        if !due || self.children.keeps_house() {
            return;
        }
        self.last_housekeeping = Some(Instant::now());
        let work = || {
            task();
            process::exit_now(0)
        };
        match process::fork_child(work) {
            Ok(pid) => self.children.started_housekeeping(pid),
            Err(errno) => tracing::warn!(%errno, "housekeeping put off: fork failed"),
        }
    }
}
