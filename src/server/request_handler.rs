//! The life of a child: become the caller, answer one question or those of a session, log one line.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use sysv_ipc::{MessageBuffer, Pid, Uid};

use super::admission::Admitted;
use super::config::Config;
use super::confine::{CallerGroups, Confined, GroupFinder, Sandbox, UnknownGroups, become_caller};
use super::loggable::loggable;
use super::resolve::Export;
use super::send::{
    AnswerWriter, Outbox, SendFailure, Unanswerable, Undelivered, WindowPolicy, answer,
};
use super::session::{MAKE_WAY, Session, SessionEnd};
use crate::counters::{FailureReason, Writer};
use crate::sys::nonblocking_write::IS_LIMITED;
use crate::sys::{Moment, exit_now, signals};
use crate::wire::Trailer;

/// What every child inherits to answer its request.
pub(super) struct RequestHandler {
    pub(super) server: Pid,
    pub(super) config: Rc<Config>,
    pub(super) export: Export,
    pub(super) sandbox: Sandbox,
    /// The server's user.
    pub(super) user: Uid,
    pub(super) groups: Option<GroupFinder>,
    pub(super) most_windows: usize,
    pub(super) counters: Rc<Writer>,
    pub(super) buffer: RefCell<Option<MessageBuffer>>,
}

/// The exit status of a child that gave up on its client. The parent tells the client.
pub(super) const GAVE_UP: i32 = 75; // EX_TEMPFAIL, sysexits(3head)

/// The exit status of a child that is done, but could not log: see prlimit(2). The parent logs.
pub(super) const UNLOGGED: i32 = 74; // EX_IOERR

/// The exit status of a child that gave up and could not log either.
pub(super) const FAILED_UNLOGGED: i32 = 73; // EX_CANTCREAT

struct Answering<'a> {
    handler: &'a RequestHandler,
    request: &'a Admitted<'a>,
    received: Moment,
    unknown_groups: Option<UnknownGroups>,
    writer: AnswerWriter<'a>,
}

impl RequestHandler {
    /// Answers one request. Runs in a child, and ends it.
    pub(super) fn run(&self, request: &Admitted<'_>, received: Moment) -> Infallible {
        let Config { stall_timeout, window, .. } = *self.config;
        let outbox = Outbox::new(request, stall_timeout, &self.counters, received);
        let client = request.caller.uid;
        let policy = WindowPolicy { size: window, client, count: self.most_windows };
        let windows = request.windows.then_some(policy);
        let buffer = self.buffer.take().unwrap_or_else(AnswerWriter::buffer);
        let writer = AnswerWriter::new(outbox, windows, request.extents, buffer);
        let groups = self.groups.as_ref().and_then(|groups| groups.find(request));
        let unknown_groups = groups.as_ref().and_then(|groups| groups.unknown);
        let mut answering = Answering { handler: self, request, received, unknown_groups, writer };
        let undelivered = match answering.become_caller(groups.as_ref()) {
            Ok(caller) if request.session => answering.answer_session(caller),
            Ok(caller) => answering.answer_only_question(&caller),
            Err(failure) => answering.refuse(failure),
        };
        let is_done = matches!(undelivered, None | Some(Undelivered::Gone | Undelivered::Dead(_)));
        exit_now(match (is_done, IS_LIMITED.load(Relaxed)) {
            (true, false) => 0,
            (true, true) => UNLOGGED,
            (false, false) => GAVE_UP,
            (false, true) => FAILED_UNLOGGED,
        })
    }

    fn count_undelivered(&self, why: Undelivered) {
        match why {
            Undelivered::Gone | Undelivered::Dead(_) => self.counters.client_gone(),
            Undelivered::Stalled => self.counters.failed(FailureReason::Stalled),
            _ => self.counters.failed(FailureReason::Other),
        }
    }
}

impl Answering<'_> {
    fn become_caller(&self, groups: Option<&CallerGroups>) -> Result<Confined, SendFailure> {
        let confined = become_caller(self.request.caller, self.handler.user, groups)
            .map_err(|errno| Unanswerable::new("the server cannot act for this user", errno))?;
        if let Some(unknown) = self.unknown_groups
            && unknown.may_be_hidden()
        {
            self.writer.outbox.check_client()?;
            let text = format!("the server cannot tell the caller's groups: {unknown}");
            return Err(Unanswerable::new(text, Errno::EACCES).into());
        }
        Ok(confined)
    }

    #[inline(never)] // a request without a session has fewer pages of the stack to write to
    fn answer_session(&mut self, caller: Confined) -> Option<Undelivered> {
        let handler = self.handler;
        handler.sandbox.close_ruleset();
        // Changes of credentials clear this setting: prctl(2).
        if let Err(errno) = signals::note(MAKE_WAY)
            .and_then(|()| signals::send_when_parent_dies(MAKE_WAY, handler.server))
        {
            let why = Unanswerable::new("the server cannot begin a session", errno);
            return self.refuse(why.into());
        }
        handler.export.keep_own_descriptors();
        let mut session =
            Session::new(&handler.export, handler.config.idle_timeout, caller, &mut self.writer);
        let end = session.run(&self.request.question, self.received);
        let numbers = Some((session.questions, session.failures));
        self.writer.outbox.count_sent();
        let undelivered = if let SessionEnd::Undelivered(why) = end { Some(why) } else { None };
        undelivered.inspect(|why| handler.count_undelivered(*why));
        self.log(None, numbers, format_args!("session: {end}"));
        undelivered
    }

    fn answer_only_question(&mut self, caller: &Confined) -> Option<Undelivered> {
        let RequestHandler { export, sandbox, .. } = self.handler;
        let (question, writer) = (&self.request.question, &mut self.writer);
        let mut outcome = answer(export, caller, question, &mut Ok(None), Some(sandbox), writer);
        let mut lost = None;
        match &outcome {
            Ok(_) => outcome = writer.flush().map_err(SendFailure::from).and(outcome),
            Err(SendFailure::Unanswerable(why)) => {
                // If this fails, the log has the reason, and the parent tells the client later.
                lost = writer.failure(why).and_then(|()| writer.flush()).err();
            }
            Err(SendFailure::Undelivered(_)) => {}
        }
        self.conclude(outcome).or(lost)
    }

    /// Tells the client that its request failed, not its question: then a session is over.
    fn refuse(&mut self, failure: SendFailure) -> Option<Undelivered> {
        let mut lost = None;
        if let SendFailure::Unanswerable(why) = &failure {
            let message = self.request.reply.failure(&why.text, why.errno);
            lost = self.writer.outbox.send(&message).err();
        }
        self.conclude(Err(failure)).or(lost)
    }

    fn conclude(&mut self, outcome: Result<Trailer, SendFailure>) -> Option<Undelivered> {
        // Count after the last message: the first access to the counters is a page fault.
        self.writer.outbox.count_sent();
        let undelivered = self.writer.count_answer(&outcome, self.received);
        undelivered.inspect(|why| self.handler.count_undelivered(*why));
        let text: &dyn fmt::Display = match &outcome {
            Ok(Trailer { changed: true, .. }) => &"sent, but the file changed",
            Ok(_) => &"sent",
            Err(failure) => failure,
        };
        self.log(Some(self.request.question.path), None, text);
        self.let_client_go_first();
        undelivered
    }

    /// The client may have been woken on this CPU: it need not wait for this process's exit, which
    /// takes a quarter of a request. Where busy programs want the CPU, they go first, for a whole
    /// time slice. So after a yield that took long, the next children skip theirs.
    fn let_client_go_first(&self) {
        const LONG: Duration = Duration::from_millis(1);
        const SKIPPED: u64 = 100;
        let counters = &self.handler.counters;
        if counters.skip_yield() {
            return;
        }
        let before = self.writer.outbox.now();
        thread::yield_now();
        if self.writer.outbox.now().since(before) > LONG {
            counters.skip_yields(SKIPPED);
        }
    }

    /// Logs the path of the only question, or the numbers of a session's questions and failures.
    #[inline(never)] // see answer_session
    fn log(&self, path: Option<&Path>, session: Option<(u64, u64)>, outcome: impl fmt::Display) {
        if !self.request.may_log {
            return; // even what the line would say costs page faults
        }
        let uid = self.request.caller.uid.as_raw();
        let client_pid = self.request.client.map(Pid::as_raw);
        let unknown_groups = self.unknown_groups.map(|why| why.to_string());
        let queue = self.request.reply.queue.id().get();
        let operation = path.map_or("session", |_| self.request.question.operation.name());
        let path = path.map(loggable);
        let (questions, failures) = session.unzip();
        let bytes = self.writer.outbox.sent;
        let ms = (Moment::now().since(self.received).as_secs_f64() * 1e6).round() / 1e3;
        let outcome = outcome.to_string();
        tracing::info! {
            uid, client_pid, unknown_groups, queue, operation, path, questions, failures, bytes, ms,
            outcome
        }
    }
}
