//! The child of a session: it answers questions until the client leaves or nobody asks.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use sysv_ipc::{MessageBuffer, Queue, QueueStatus, ReceiveError, Select};

use super::confine::Confined;
use super::loggable::loggable;
use super::resolve::{Entered, Export};
use super::send::{AnswerWriter, Outbox, SendFailure, Unanswerable, Undelivered, answer};
use crate::sys::{AdaptiveSpin, Moment, signals};
use crate::wire::{MAX_PATH, Malformed, Operation, QUESTION_TYPE, Question, Trailer};

/// Asks a session to make way for other requests. The kernel sends it when the server dies.
pub(super) const MAKE_WAY: Signal = Signal::SIGUSR1;

pub(super) struct Session<'a, 'w> {
    export: &'a Export,
    idle_timeout: Duration,
    writer: &'a mut AnswerWriter<'w>,
    caller: Confined,
    entered: Entered,
    spin: AdaptiveSpin,
    has_only_entered: bool,
    pub(super) questions: u64,
    pub(super) failures: u64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    #[error("the client ended it")]
    Finished,
    /// The client left after it had everything.
    #[error("{0}")]
    Left(Undelivered),
    #[error("idle")]
    Idle,
    #[error("made way")]
    MadeWay,
    #[error("not a question: {0}")]
    Garbage(Malformed),
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
}

impl<'a, 'w> Session<'a, 'w> {
    /// A client that received something within this time may be about to ask: it must not find
    /// its queue's id given to another queue. The kernel notes times in whole seconds.
    const LONG: Duration = Duration::from_secs(3);

    pub(super) fn new(
        export: &'a Export,
        idle_timeout: Duration,
        caller: Confined,
        writer: &'a mut AnswerWriter<'w>,
    ) -> Self {
        Self {
            export,
            idle_timeout,
            writer,
            caller,
            entered: Ok(None),
            spin: AdaptiveSpin::default(),
            has_only_entered: true,
            questions: 0,
            failures: 0,
        }
    }

    pub(super) fn run(&mut self, first: &Question<'_>, received: Moment) -> SessionEnd {
        let Err(end) = self.answer_all(first, received);
        let outcome = match &end {
            SessionEnd::Idle | SessionEnd::MadeWay => self.leave(),
            // The client is broken, and may not even have asked.
            SessionEnd::Garbage(_) => {
                let why = Unanswerable::new(end.to_string(), Errno::EBADMSG);
                self.conclude(Err(why.into()), Moment::now()).and_then(|()| self.leave())
            }
            SessionEnd::Finished | SessionEnd::Left(_) | SessionEnd::Undelivered(_) => Ok(()),
        };
        outcome.map_or_else(SessionEnd::Undelivered, |()| end)
    }

    fn answer_all(
        &mut self,
        first: &Question<'_>,
        received: Moment,
    ) -> Result<Infallible, SessionEnd> {
        self.answer(first, received)?;
        let mut message = MessageBuffer::with_capacity(Question::HEADER + MAX_PATH);
        let mut at = 0;
        loop {
            if signals::has_arrived() && !self.is_on_its_way() {
                return Err(SessionEnd::MadeWay);
            }
            if at == message.text().len() {
                self.receive(&mut message)?;
                at = 0;
            }
            let received = Moment::now();
            let decoded = Question::decode(&message.text()[at..]);
            let (question, rest) = decoded.map_err(SessionEnd::Garbage)?;
            at = message.text().len() - rest.len();
            self.answer(&question, received)?;
        }
    }

    /// Whether the client has only entered directories so far. If such a session made way at once,
    /// a client that walks a tree might never get any further.
    fn is_on_its_way(&self) -> bool {
        const MAX_ENTERED: u64 = 64;
        self.has_only_entered && self.questions < MAX_ENTERED
    }

    fn answer(&mut self, question: &Question<'_>, received: Moment) -> Result<(), Undelivered> {
        self.has_only_entered &= question.operation == Operation::Enter;
        self.writer.begin(question.number, received)?;
        let (caller, entered) = (&self.caller, &mut self.entered);
        let outcome = answer(self.export, caller, question, entered, None, self.writer);
        log(self.writer.outbox.reply.queue, question, &outcome);
        self.conclude(outcome, received)
    }

    fn conclude(
        &mut self,
        outcome: Result<Trailer, SendFailure>,
        received: Moment,
    ) -> Result<(), Undelivered> {
        self.questions += 1;
        self.writer.count_answer(&outcome, received).map_or(Ok(()), Err)?;
        if let Err(SendFailure::Unanswerable(why)) = outcome {
            self.failures += 1;
            self.writer.failure(&why)?;
        }
        Ok(())
    }

    /// Receives one question or more. Before it waits, it sends what the client waits for.
    fn receive(&mut self, message: &mut MessageBuffer) -> Result<(), SessionEnd> {
        let (queue, which) = (self.writer.outbox.reply.queue, Select::Type(QUESTION_TYPE));
        let mut try_receive = || match queue.try_receive(message, which) {
            Err(ReceiveError::Empty | ReceiveError::Interrupted) => None,
            outcome => Some(map_receive_error(outcome)),
        };
        if let Some(outcome) = try_receive() {
            return outcome;
        }
        self.writer.flush()?;
        if let Some(outcome) = self.spin.attempt(&mut try_receive) {
            return outcome;
        }
        self.writer.outbox.start_ticking()?;
        self.writer.outbox.count_sent();
        let since = Instant::now();
        loop {
            match queue.receive(message, which) {
                Err(ReceiveError::Interrupted) => {}
                outcome => return map_receive_error(outcome),
            }
            if signals::has_arrived() && !(self.is_on_its_way() && since.elapsed() < Outbox::TICK) {
                return Err(SessionEnd::MadeWay);
            }
            self.writer.drop_window();
            self.writer.outbox.check_client().map_err(SessionEnd::Left)?;
            if since.elapsed() >= self.idle_timeout {
                return Err(SessionEnd::Idle);
            }
        }
    }

    /// Ends the session. If the client waits for nothing, removes its queue, so that nothing is
    /// left even if the client is killed; its next question fails, and it asks in a new session.
    fn leave(&mut self) -> Result<(), Undelivered> {
        // Another request waits for this place: do not wait long for a client whose queue is full.
        self.writer.outbox.stall_timeout = Outbox::TICK;
        self.writer.flush()?;
        let reply = &self.writer.outbox.reply;
        let is_idle = |status: QueueStatus| {
            let since = status.received_at.and_then(|last| last.elapsed().ok());
            status.messages == 1 && since >= Some(Self::LONG)
        };
        let may_remove = reply.queue.status().is_ok_and(is_idle) && reply.lease().is_some();
        if may_remove && reply.queue.remove().is_ok() {
            return Ok(());
        }
        self.writer.farewell(self.questions)
    }
}

fn map_receive_error(outcome: Result<(), ReceiveError>) -> Result<(), SessionEnd> {
    outcome.map_err(|error| match error {
        ReceiveError::TooBig => SessionEnd::Garbage(Malformed::TooLong),
        ReceiveError::Os(error) => Undelivered::Os(error).into(),
        _ => SessionEnd::Finished,
    })
}

fn log(queue: Queue, question: &Question<'_>, outcome: &Result<Trailer, SendFailure>) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let (queue, operation) = (queue.id().get(), question.operation.name());
        let path = loggable(question.path);
        match outcome {
            Ok(Trailer { bytes, .. }) => tracing::debug!(queue, operation, path, bytes, "answered"),
            Err(failure) => tracing::debug!(queue, operation, path, %failure, "not answered"),
        }
    }
}
