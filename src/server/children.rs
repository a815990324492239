//! The children that are running: how many, for whom, and until when.

use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use sysv_ipc::{Pid, Uid};

use super::admission::ReplyTo;
use super::child_death_notices::ChildDeathNotices;
use super::config::Config;
use super::request_handler::{GAVE_UP, UNLOGGED};
use super::request_log::{LogLimit, Served};
use super::session::MAKE_WAY;
use crate::counters::Writer;
use crate::sys::child_exits::{Ended, is_stopped, take_ended, wait_unless};
use crate::sys::kill;
use crate::sys::signals::Blocked;

/// A child that runs.
#[derive(Debug)]
struct Child {
    pid: Pid,
    /// The request that it answers. None: it removes orphaned queues.
    request: Option<Served>,
    started: Instant,
    /// Whether it was asked to make way for another request.
    makes_way: bool,
    /// Whether the log says that it is stopped.
    noted_stopped: bool,
}

impl Child {
    fn new(pid: Pid, request: Option<Served>) -> Self {
        Self { pid, request, started: Instant::now(), makes_way: false, noted_stopped: false }
    }

    /// The state of a session.
    ///
    /// The kernel's record tells, since a caller may have taken its child over: if only the lease
    /// is in the queue, and the last who received was not the child, the client has received all.
    fn state(&self, reply: &ReplyTo) -> SessionState {
        let Ok(status) = reply.queue.status() else { return SessionState::Ending };
        let is_idle = status.messages == 1 && status.last_receiver != Some(self.pid);
        match status.received_at.filter(|_| is_idle) {
            Some(since) => SessionState::Idle(since.elapsed().unwrap_or_default()),
            None => SessionState::Working(self.started.elapsed()),
        }
    }
}

/// What a session does, and for how long. The last is the first to make way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SessionState {
    Working(Duration),
    Idle(Duration),
    /// The client has removed the queue.
    Ending,
}

/// The children that run, as far as the server knows. Keeps their counters up to date.
#[derive(Debug)]
pub(super) struct Children {
    /// In no order. A list that is searched: few pages are written to between two forks.
    running: Vec<Child>,
    death_notices: ChildDeathNotices,
    /// How many died before their request was answered.
    died: u64,
    limit: usize,
    stall_timeout: Duration,
    counters: Rc<Writer>,
    last_idle_count: Option<Instant>,
    pub(super) log_limit: LogLimit,
}

impl Children {
    /// How often they need attention.
    pub(super) const ROUND: Duration = Duration::from_secs(1);

    /// How long a session that was asked to make way may take before the next is asked.
    const MAKE_WAY_ROUND: Duration = Duration::from_millis(20);

    pub(super) fn new(config: &Config, counters: Rc<Writer>) -> Self {
        let limit = config.max_children();
        Self {
            running: Vec::with_capacity(limit + 1),
            death_notices: ChildDeathNotices::default(),
            died: 0,
            limit,
            stall_timeout: config.stall_timeout,
            counters,
            last_idle_count: None,
            log_limit: LogLimit::new(),
        }
    }

    /// Adds a child that answers a request.
    pub(super) fn started(&mut self, pid: Pid, request: Served) {
        self.running.push(Child::new(pid, Some(request)));
        self.count();
    }

    /// Adds the child that removes orphaned queues.
    pub(super) fn started_reaping(&mut self, pid: Pid) {
        self.running.push(Child::new(pid, None));
    }

    /// How many children answer requests of this user.
    pub(super) fn answering(&self, caller: Uid) -> usize {
        let requests = self.running.iter().filter_map(|child| child.request.as_ref());
        requests.filter(|request| request.caller == caller).count()
    }

    /// Whether a child removes orphaned queues.
    pub(super) fn are_reaping(&self) -> bool {
        self.running.iter().any(|child| child.request.is_none())
    }

    /// Whether the limit of children that answer requests is reached.
    pub(super) fn are_at_limit(&self) -> bool {
        self.answering_requests() >= self.limit
    }

    /// Whether something may happen to a child that no signal announces in time.
    pub(super) fn need_attention(&self) -> bool {
        !(self.running.is_empty() && self.death_notices.is_empty())
    }

    /// Forgets the children that ended, and tells the clients of those that failed.
    pub(super) fn reap_ended(&mut self) {
        let mut any = false;
        take_ended(|child| {
            any = true;
            // None: not our child. Process 1 of a pid namespace adopts the children of others.
            if let Some(at) = self.running.iter().position(|running| running.pid == child.pid) {
                let Child { request, .. } = self.running.swap_remove(at);
                self.note_end(child, request);
            }
        });
        if any {
            self.count();
        }
        self.count_idle();
        self.death_notices.retry();
        self.log_limit.renew();
    }

    fn note_end(&mut self, child: Ended, request: Option<Served>) {
        let (died, what) = match child.status.code() {
            Some(0) => return,
            Some(GAVE_UP) => (false, None), // the child has logged and counted it
            Some(UNLOGGED) => (false, Some("a child could not log: its file size is limited")),
            Some(_) => (true, Some("a child failed")),
            None => (true, Some("a child was killed")),
        };
        let Some(request) = request else {
            return tracing::warn!(pid = child.pid.as_raw(), what, "housekeeping broke off");
        };
        if let Some(what) = what {
            self.log_limit.log(&request, child.pid, what, child.status.to_string());
        }
        self.died += u64::from(died);
        self.death_notices.send(request.caller, request.reply);
    }

    fn count(&self) {
        let (children, sessions) = (self.answering_requests(), self.sessions().count());
        self.counters.set_children(children, sessions, self.died);
        if sessions == 0 {
            self.counters.set_idle_sessions(0); // the server may sleep from now on
        }
    }

    /// Counts the idle sessions, and looks for stopped children, at most once a round.
    fn count_idle(&mut self) {
        if self.last_idle_count.is_some_and(|last| last.elapsed() < Self::ROUND) {
            return;
        }
        self.last_idle_count = Some(Instant::now());
        let states = self.sessions().map(|(child, session)| child.state(&session.reply));
        let idle = states.filter(|state| matches!(state, SessionState::Idle(_))).count();
        self.counters.set_idle_sessions(idle);
        self.note_stopped(false);
    }

    fn answering_requests(&self) -> usize {
        self.running.len() - usize::from(self.are_reaping())
    }

    fn sessions(&self) -> impl Iterator<Item = (&Child, &Served)> {
        self.running.iter().filter_map(|child| {
            child.request.as_ref().filter(|request| request.session).map(|session| (child, session))
        })
    }

    /// Asks one more session to make way, of this user or of any: the one that is idle for longest,
    /// or else the one that runs for longest. One that is about to end counts as asked. Then asks
    /// all again that did not end: a signal that arrives just before a child waits does not wake
    /// it. False: there is none.
    pub(super) fn make_way(&mut self, user: Option<Uid>) -> bool {
        let next = self
            .sessions()
            .filter(|(child, _)| !child.makes_way)
            .filter(|(_, session)| user.is_none_or(|user| user == session.caller))
            .max_by_key(|(child, session)| child.state(&session.reply))
            .map(|(child, _)| child.pid);
        for child in self.running.iter_mut().filter(|child| Some(child.pid) == next) {
            child.makes_way = true;
        }
        self.tell(|child| child.makes_way)
    }

    /// Tells these sessions to end after the current answer. False: there are none.
    fn tell(&mut self, which: impl Fn(&Child) -> bool) -> bool {
        // Until the signals are sent, no child is reaped, so that no pid is another process's.
        let _held = Blocked::new(SigSet::from(Signal::SIGCHLD));
        self.reap_ended();
        let mut told = false;
        for (child, _) in self.sessions().filter(|(child, _)| which(child)) {
            told |= kill(child.pid, Some(MAKE_WAY)).is_ok();
        }
        told
    }

    /// Waits until the number of children is below the limit, but at most one round. Asks a session
    /// to make way.
    pub(super) fn wait_for_place(&mut self, is_stopping: impl Fn() -> bool) {
        self.note_stopped(true);
        let round = if self.make_way(None) { Self::MAKE_WAY_ROUND } else { Self::ROUND };
        wait_unless(
            || {
                self.reap_ended();
                !self.are_at_limit() || is_stopping()
            },
            Some(round),
        );
    }

    /// Logs the requests whose child has been stopped for the stall timeout, and kills these
    /// children if their places are needed. They run as their callers, who may send them SIGSTOP:
    /// kill(2), and may have what they wanted by then.
    fn note_stopped(&mut self, are_in_the_way: bool) {
        for child in &mut self.running {
            if child.started.elapsed() <= self.stall_timeout || !is_stopped(child.pid) {
                continue;
            }
            if let Some(request) = &child.request
                && !std::mem::replace(&mut child.noted_stopped, true)
            {
                self.log_limit.log(request, child.pid, "a child is stopped", "stopped".to_owned());
            }
            if are_in_the_way {
                let _ = kill(child.pid, Some(Signal::SIGKILL));
            }
        }
    }

    /// Tells sessions to end, and waits until no child is left. Kills them after the timeout, or
    /// at once if it is urgent.
    pub(super) fn drain(&mut self, timeout: Duration, is_urgent: impl Fn() -> bool) {
        self.wait_for_all(timeout, &is_urgent);
        if self.running.is_empty() {
            return;
        }
        let children = self.running.len();
        tracing::warn!(children, "killing children: their time to finish is over");
        for &Child { pid, .. } in &self.running {
            let _ = kill(pid, Some(Signal::SIGKILL));
        }
        // A child that waits for a disk does not react to SIGKILL.
        self.wait_for_all(Self::ROUND, &|| false);
    }

    fn wait_for_all(&mut self, timeout: Duration, give_up: &impl Fn() -> bool) {
        let start = Instant::now();
        let mut finished = false;
        while !finished {
            self.tell(|_| true);
            let left = timeout.saturating_sub(start.elapsed());
            let is_finished = || {
                self.reap_ended();
                finished = self.running.is_empty() || left.is_zero() || give_up();
                finished
            };
            wait_unless(is_finished, Some(left));
        }
    }
}
