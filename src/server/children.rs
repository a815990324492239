//! The children that run, as far as the server knows: how many, for whom, and until when.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use smallvec::SmallVec;
use sysv_ipc::{Pid, Uid};

use super::child::{Child, WaitsFor};
use super::child_death_notices::{self, ChildDeathNotices};
use super::config::Config;
use super::request_handler::{FAILED_UNLOGGED, GAVE_UP, UNLOGGED};
use super::request_log::{LogLimit, Served};
use super::session::MAKE_WAY;
use crate::counters::{FailureReason, Writer};
use crate::sys::child_exits::{Ended, is_stopped, take_ended, wait_unless};
use crate::sys::signals::Blocked;
use crate::sys::{kill, nonblocking_write};

pub(super) struct Children {
    /// In no order, and in place while they are few: forks copy what is written to between them.
    running: SmallVec<[Child; 4]>,
    death_notices: ChildDeathNotices,
    /// How many died before their request was answered.
    died: u64,
    config: Rc<Config>,
    counters: Rc<Writer>,
    last_look: Option<Instant>,
    pub(super) log_limit: LogLimit,
}

impl Children {
    pub(super) const ROUND: Duration = Duration::from_secs(1);

    /// A child that removes orphaned queues for longer has been stopped: the next one starts.
    const LONGEST_REAPING: Duration = Duration::from_secs(600);

    /// How long a session that was asked to make way may take before the next is asked.
    const MAKE_WAY_ROUND: Duration = Duration::from_millis(20);

    pub(super) fn new(config: Rc<Config>, counters: Rc<Writer>) -> Self {
        Self {
            running: SmallVec::new(),
            death_notices: ChildDeathNotices::default(),
            died: 0,
            config,
            counters,
            last_look: None,
            log_limit: LogLimit::new(),
        }
    }

    /// Adds a child that answers a request, or removes orphaned queues if there is none.
    pub(super) fn started(&mut self, pid: Pid, request: Option<Served>) {
        self.running.push(Child::new(pid, request));
        self.count();
    }

    pub(super) fn of(&self, caller: Uid) -> impl Iterator<Item = &Child> {
        let is_of = move |request: &Served| request.caller == caller;
        self.running.iter().filter(move |child| child.request.as_ref().is_some_and(is_of))
    }

    pub(super) fn are_reaping(&self) -> bool {
        let is_reaping = |child: &Child| {
            child.request.is_none() && child.started.elapsed() < Self::LONGEST_REAPING
        };
        self.running.iter().any(is_reaping)
    }

    pub(super) fn are_at_limit(&self) -> bool {
        self.requests().filter(|child| !child.is_hung()).count() >= self.config.max_children()
    }

    /// Whether something may happen to a child that no signal announces in time.
    pub(super) fn need_attention(&self) -> bool {
        !(self.running.is_empty() && self.death_notices.is_empty())
    }

    /// Forgets the children that ended, and tells the clients of those that failed.
    pub(super) fn reap_ended(&mut self) {
        self.forget_ended();
        self.look_at_all();
        self.death_notices.retry();
        self.log_limit.renew();
    }

    fn forget_ended(&mut self) {
        let mut any = false;
        take_ended(|ended| {
            any = true;
            // None: not our child. Process 1 of a pid namespace adopts the children of others.
            if let Some(at) = self.running.iter().position(|running| running.pid == ended.pid) {
                let child = self.running.swap_remove(at);
                if !child.is_given_up {
                    self.note_end(ended, child.request);
                }
            }
        });
        if any {
            self.count();
        }
    }

    fn note_end(&mut self, child: Ended, request: Option<Served>) {
        let what = match child.status.code() {
            Some(0) => return,
            Some(GAVE_UP) => None, // the child has logged and counted it
            Some(UNLOGGED) => Some("a child could not log: its file size is limited"),
            Some(_) => Some("a child failed"),
            None => Some("a child was killed"),
        };
        let Some(request) = request else {
            return tracing::warn!(pid = child.pid.as_raw(), what, "removing orphans broke off");
        };
        if matches!(child.status.code(), Some(UNLOGGED | FAILED_UNLOGGED)) {
            // It may have written the beginning of its line.
            let _ = nonblocking_write::write(io::stderr(), b"\n");
        }
        if let Some(what) = what {
            self.log_limit.log(&request, child.pid, what, child.status.to_string());
        }
        match child.status.code() {
            // A client would take a notice before the rest of a complete answer.
            Some(UNLOGGED) => return,
            Some(GAVE_UP) => {}
            _ => self.died += 1,
        }
        self.death_notices.send(&request, child_death_notices::DIED);
    }

    fn count(&self) {
        let number = |is: fn(&Child) -> bool| self.requests().filter(|child| is(child)).count();
        let sessions = self.sessions().count();
        let idle = self.sessions().filter(|child| child.waits_for == WaitsFor::Question).count();
        self.counters.set_children(number(|_| true), number(Child::is_hung), self.died);
        self.counters.set_sessions(sessions, idle);
    }

    /// Looks at every child that is not new, about once a round, and gives up those that hang.
    fn look_at_all(&mut self) {
        let now = Instant::now();
        let since_last = self.last_look.map_or(Self::ROUND, |last| now - last);
        if since_last < Self::ROUND / 2 {
            return; // the timer comes at every full round, or a little earlier
        }
        self.last_look = Some(now);
        // If the server was stopped meanwhile, its children may have been stopped, too.
        let since_last = if since_last < 2 * Self::ROUND { since_last } else { Duration::ZERO };
        for child in &mut self.running {
            if now - child.started >= Self::ROUND / 2 {
                child.look(since_last);
            }
            // Callers may send SIGSTOP to their children, which run as them: kill(2). They may have
            // what they wanted by then, so the log names the request.
            child.is_stopped =
                now - child.started > self.config.stall_timeout && is_stopped(child.pid);
            if child.is_stopped {
                child.silence = Duration::ZERO; // it has the whole time again when it goes on
            }
            if child.is_stopped
                && let Some(request) = &child.request
                && !std::mem::replace(&mut child.noted_stopped, true)
            {
                self.log_limit.log(request, child.pid, "a child is stopped", "stopped".to_owned());
            }
        }
        if self.running.iter().any(|child| self.is_overdue(child)) {
            self.give_up_overdue();
        }
        self.count();
    }

    /// Whether a child has done nothing for longer than its own time limits allow.
    fn is_overdue(&self, child: &Child) -> bool {
        let Config { stall_timeout, idle_timeout, .. } = *self.config;
        let own_end = 2 * Self::ROUND;
        let most = match child.waits_for {
            WaitsFor::FileSystem => stall_timeout,
            WaitsFor::Nothing => Self::ROUND,
            WaitsFor::Client => stall_timeout + own_end,
            WaitsFor::Question => stall_timeout.max(idle_timeout) + own_end,
        };
        !child.is_given_up && !child.is_stopped && child.silence >= most + Self::ROUND / 2
    }

    /// Kills the overdue children and tells their clients. Many stay until the file system answers.
    fn give_up_overdue(&mut self) {
        // Until the signals are sent, no child is reaped, so that no pid is another process's.
        let _held = Blocked::new(SigSet::from(Signal::SIGCHLD));
        self.forget_ended();
        for at in 0..self.running.len() {
            if !self.is_overdue(&self.running[at]) {
                continue;
            }
            let child = &mut self.running[at];
            child.is_given_up = true;
            if let Some(request) = &child.request {
                let (what, outcome) = (child_death_notices::HUNG.0, "killed".to_owned());
                self.log_limit.log(request, child.pid, what, outcome);
                self.counters.failed(FailureReason::Hung);
                self.death_notices.send(request, child_death_notices::HUNG);
            }
            let _ = kill(child.pid, Some(Signal::SIGKILL));
        }
    }

    fn requests(&self) -> impl Iterator<Item = &Child> {
        self.running.iter().filter(|child| child.request.is_some())
    }

    fn sessions(&self) -> impl Iterator<Item = &Child> {
        self.running.iter().filter(|child| child.is_session())
    }

    /// Asks one more session to make way, of this user or of any: the one that is idle for longest,
    /// or else runs for longest. Then asks all again that did not end: a signal that arrives just
    /// before a child waits does not wake it. False: there is none.
    pub(super) fn make_way(&mut self, user: Option<Uid>) -> bool {
        self.running.iter_mut().for_each(|child| child.look(Duration::ZERO));
        let may_be_asked = |child: &&mut Child| {
            let is_users = |request: &Served| user.is_none_or(|user| user == request.caller);
            child.is_session() && !child.makes_way && child.request.as_ref().is_some_and(is_users)
        };
        let first = |child: &&mut Child| (child.waits_for, child.silence, child.started.elapsed());
        if let Some(child) = self.running.iter_mut().filter(may_be_asked).max_by_key(first) {
            child.makes_way = true;
        }
        self.tell(|child| child.makes_way)
    }

    /// Tells these sessions to end after the current answer. False: there are none.
    fn tell(&mut self, which: impl Fn(&Child) -> bool) -> bool {
        // As in give_up_overdue.
        let _held = Blocked::new(SigSet::from(Signal::SIGCHLD));
        self.reap_ended();
        let mut told = false;
        for child in self.sessions().filter(|child| which(child) && !child.is_given_up) {
            told |= kill(child.pid, Some(MAKE_WAY)).is_ok();
        }
        told
    }

    /// Asks a session to make way, and waits for a place, but at most one round.
    pub(super) fn wait_for_place(&mut self, is_stopping: impl Fn() -> bool) {
        let round = if self.make_way(None) { Self::MAKE_WAY_ROUND } else { Self::ROUND };
        wait_unless(
            || {
                self.reap_ended();
                !self.are_at_limit() || is_stopping()
            },
            Some(round),
        );
    }

    /// Tells sessions to end, and waits until no child is left but those that were given up. Kills
    /// them after the timeout, or at once if it is urgent.
    pub(super) fn drain(&mut self, timeout: Duration, is_urgent: impl Fn() -> bool) {
        self.wait_for_all(timeout, &is_urgent);
        let is_left = |child: &&Child| !child.is_given_up;
        let children = self.running.iter().filter(is_left).count();
        if children == 0 {
            return;
        }
        tracing::warn!(children, "killing children: their time to finish is over");
        {
            // As in give_up_overdue.
            let _held = Blocked::new(SigSet::from(Signal::SIGCHLD));
            self.forget_ended();
            for &Child { pid, .. } in &self.running {
                let _ = kill(pid, Some(Signal::SIGKILL));
            }
        }
        self.wait_for_all(Self::ROUND, &|| false);
        // A child that waits for a disk or a hung file system does not react to SIGKILL.
        for request in self.running.iter().filter(is_left).filter_map(|it| it.request.as_ref()) {
            self.death_notices.send(request, child_death_notices::HUNG);
        }
    }

    fn wait_for_all(&mut self, timeout: Duration, give_up: &impl Fn() -> bool) {
        let start = Instant::now();
        let mut finished = false;
        while !finished {
            self.tell(|_| true);
            let left = timeout.saturating_sub(start.elapsed());
            let is_finished = || {
                self.reap_ended();
                let none_is_left = self.running.iter().all(|child| child.is_given_up);
                finished = none_is_left || left.is_zero() || give_up();
                finished
            };
            wait_unless(is_finished, Some(left));
        }
    }
}
