//! Questions that are asked ahead of the answers, and the answers in the order of the questions.
//!
//! If a server or its child dies, the unanswered questions are asked again. A file that had arrived
//! in part comes again from its beginning: the bytes that the reader already has are compared with
//! it by their checksum, and left out.
//!
//! If no answer comes in time, a file system hangs: that of the first question, or of a later one,
//! as a child holds small answers back for a moment. So the questions are asked again one by one.
//! The one that again gets no answer has failed, and the next is asked in another session.

use std::collections::VecDeque;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::error::{Cause, Error, ErrorKind};
use super::metadata::DirEntry;
use super::planned::{Base, Entered, PlannedQuestion};
use super::requester::{Ending, Requester};
use super::session::{Answer, Session, Step};
use crate::wire::{Entry, Extent, Kind, Operation, Range, Tally};

#[derive(Debug)]
pub(super) struct Pipeline {
    requester: Requester,
    /// Whether to ask in a session. If not, every question has a request of its own.
    pub(super) in_session: bool,
    session: Option<Session>,
    state: SessionState,
    ending: Ending,
    pub(super) questions: VecDeque<PlannedQuestion>,
    asked: usize,
    one_by_one: bool,
    /// The directory of the last question that got no answer, and how many in a row in it got none.
    silent: (PathBuf, u32),
    /// Whether the reader knows that the answer to the first question has begun.
    has_begun: bool,
    /// What the reader has of that first answer, while it comes again.
    partial: Option<Tally>,
    last: Tally,
    pub(super) parts: u32,
    failed: Option<Error>,
}

#[derive(Debug)]
enum SessionState {
    New,
    /// Every question so far is answered. The child may have ended the session since.
    Idle,
    Answering,
}

impl Pipeline {
    /// After so many questions in a row got no answer, no others in their directory are asked: a
    /// file system with many files would take a timeout for each.
    const MOST_SILENT: u32 = 3;

    pub(super) fn new(requester: Requester) -> Self {
        Self {
            in_session: requester.uses_sessions(),
            requester,
            session: None,
            state: SessionState::New,
            ending: Ending::None,
            questions: VecDeque::new(),
            asked: 0,
            one_by_one: false,
            silent: Default::default(),
            has_begun: false,
            partial: None,
            last: Tally::default(),
            parts: 1,
            failed: None,
        }
    }

    pub(super) fn push(&mut self, planned: PlannedQuestion) {
        self.questions.push_back(planned);
    }

    /// Adds a question at the front. Those asked already are asked again. No answer may have begun.
    pub(super) fn push_front(&mut self, planned: PlannedQuestion) {
        if self.asked > 0 {
            self.drop_session();
        }
        self.questions.push_front(planned);
    }

    pub(super) fn set_base(&mut self, base: &Arc<Base>) {
        if let Some(session) = &mut self.session {
            session.entered = Some(Entered::base(base));
        }
    }

    /// Waits for the next step of the answer to the first question. After its end, the next
    /// question is the first. An error also ends the answer. [`check`](Self::check) then fails too,
    /// unless the error is about this question alone: a FAILURE, a timeout, a changed file.
    pub(super) fn next(&mut self) -> Answer {
        self.failed = None;
        if !self.has_begun
            && self.silent.1 >= Self::MOST_SILENT
            && self.directory() == self.silent.0
        {
            self.end_answer();
            return Err(Cause::NotAsked.into());
        }
        let error = loop {
            if self.session.is_none()
                && let Err(error) = self.connect()
            {
                break error;
            }
            match self.step() {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(error) => {
                    if let Err(error) = self.lose(error) {
                        break error;
                    }
                }
            }
        };
        let directory = self.directory();
        self.end_answer();
        if error.kind() != ErrorKind::TimedOut {
            return Err(self.fail(error));
        }
        self.requester.restore_retries();
        let before = if directory == self.silent.0 { self.silent.1 } else { 0 };
        self.silent = (directory, before + 1);
        Err(error)
    }

    fn directory(&self) -> PathBuf {
        let path = self.questions.front().map(|planned| planned.path.as_path());
        path.and_then(Path::parent).unwrap_or("".as_ref()).to_owned()
    }

    pub(super) fn next_entry(&mut self) -> Result<DirEntry, Error> {
        let mut found = None;
        loop {
            match self.next()? {
                Step::Begun => found = self.entry().as_ref().map(DirEntry::of),
                Step::Bytes => return Err(Error::corrupt("bytes that belong to no file")),
                Step::Ended(_) => return found.ok_or(Error::corrupt("no entry for the path")),
            }
        }
    }

    pub(super) fn fail(&mut self, error: Error) -> Error {
        self.drop_session();
        self.requester.restore_retries();
        self.failed = Some(error.clone());
        error
    }

    /// Fails if the last answer ended with an error that is not about its question alone.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn connect(&mut self) -> Result<(), Error> {
        let Some(first) = self.questions.front() else {
            return Err(Error::corrupt("nothing was asked"));
        };
        let ending = mem::take(&mut self.ending);
        self.state = SessionState::New;
        if self.in_session
            && !matches!(ending, Ending::Lost(_))
            && let Some(session) = self.requester.pool.take()
        {
            (self.session, self.state) = (Some(session), SessionState::Idle);
            return Ok(());
        }
        self.session = Some(self.requester.ask(first, self.in_session, ending)?);
        self.asked = usize::from(first.base.is_none());
        Ok(())
    }

    /// Notes that the session was lost. Returns an error that a new session cannot mend.
    fn lose(&mut self, error: Error) -> Result<(), Error> {
        let (is_between_answers, were_many) = (!self.has_begun, self.asked > 1);
        let tally = self.session.take().map(|session| session.tally.clone()).unwrap_or_default();
        self.asked = 0;
        if !self.has_begun || !self.is_fetch() || tally.bytes == 0 && self.partial.is_none() {
            self.has_begun = false;
        } else if self.partial.is_none() {
            self.partial = Some(tally);
        }
        if let Cause::NoWindow = error.0 {
            self.requester.pool.no_windows.store(true, Relaxed);
            self.ending = Ending::SentAway; // the server may have died with its child
            return Ok(());
        }
        if error.kind() == ErrorKind::TimedOut && were_many {
            self.one_by_one = true;
            return Ok(());
        }
        if !error.is_retryable() {
            return Err(error);
        }
        // A session may end between two answers, even while we ask. But a server that ends each at
        // once is no better than one that dies.
        let was_sent_away = match (&self.state, &error.0) {
            (SessionState::Idle, _) | (SessionState::Answering, Cause::SentAway) => true,
            (SessionState::Answering, Cause::QueueRemoved) => is_between_answers,
            _ => false,
        };
        self.ending = if was_sent_away { Ending::SentAway } else { Ending::Lost(error) };
        Ok(())
    }

    fn is_fetch(&self) -> bool {
        let operation = self.questions.front().map(|planned| planned.operation);
        matches!(operation, Some(Operation::Fetch(_)))
    }

    fn ask_ahead(&mut self) -> Result<(), Error> {
        let Some(session) = &mut self.session else { return Ok(()) };
        while let Some(planned) = self.questions.get(self.asked)
            && !(self.one_by_one && self.asked > 0)
        {
            match session.ask(planned) {
                Ok(true) => self.asked += 1,
                Ok(false) => break,
                // It fails again when its turn comes.
                Err(_) if self.asked > 0 => break,
                Err(error) => return Err(error),
            }
        }
        session.send()
    }

    /// Takes a step. None: the reader need not know of it.
    fn step(&mut self) -> Result<Option<Answer>, Error> {
        self.ask_ahead()?;
        let Some(session) = &mut self.session else { return Ok(None) };
        let Some(answer) = session.next()? else { return Ok(None) };
        match answer {
            Ok(Step::Begun) => {
                self.check_beginning()?;
                self.state = SessionState::Answering;
                if self.partial.is_some() {
                    return Ok(None);
                }
                (self.has_begun, self.parts) = (true, 1);
                Ok(Some(answer))
            }
            Ok(Step::Bytes) if self.partial.is_some() => Ok(self.leave_out()),
            Ok(Step::Bytes) => {
                // A listing begins anew after every loss, so its bytes are no progress.
                if self.is_fetch() {
                    self.requester.restore_retries();
                }
                Ok(Some(answer))
            }
            Ok(Step::Ended(_)) if self.partial.is_some() => Ok(Some(self.end_changed())),
            Ok(Step::Ended(_)) | Err(_) => {
                self.silent.1 = 0;
                self.requester.restore_retries();
                self.end_answer();
                Ok(Some(answer))
            }
        }
    }

    fn check_beginning(&self) -> Result<(), Error> {
        let operation = self.questions.front().map(|planned| planned.operation);
        let wrong = match (operation, self.entry()) {
            (Some(Operation::Fetch(_)), Some(entry)) if entry.stat.kind != Kind::Regular => {
                "not a regular file"
            }
            (Some(Operation::Fetch(range)), Some(entry)) if entry.offset != range.offset => {
                "it begins at the wrong place"
            }
            (Some(Operation::Fetch(Range::WHOLE)), None) | (_, Some(_)) => return Ok(()),
            (_, None) => return Err(Cause::PlainServer.into()),
        };
        Err(Error::corrupt(wrong))
    }

    /// Leaves out bytes that the reader already has, if they are the same.
    fn leave_out(&mut self) -> Option<Answer> {
        let (session, partial) = (self.session.as_mut()?, self.partial.as_ref()?);
        let left = usize::try_from(partial.bytes - session.tally.bytes).unwrap_or(usize::MAX);
        session.consume(left);
        if session.tally.bytes < partial.bytes {
            return None;
        }
        if session.tally.checksum != partial.checksum {
            return Some(self.end_changed());
        }
        self.partial = None;
        self.parts += 1;
        None
    }

    /// Ends an answer whose beginning is no longer what the reader has.
    fn end_changed(&mut self) -> Answer {
        self.end_answer();
        self.ending = Ending::SentAway; // its server may be dead
        self.drop_session();
        Err(Cause::FileChanged.into())
    }

    fn end_answer(&mut self) {
        self.last = match (self.partial.take(), &self.session) {
            (Some(partial), _) => partial,
            (None, Some(session)) => session.tally.clone(),
            (None, None) => Tally::default(),
        };
        self.has_begun = false;
        self.questions.pop_front();
        self.asked = self.asked.saturating_sub(1);
        self.state = if self.asked == 0 { SessionState::Idle } else { SessionState::Answering };
        if self.session.as_ref().is_some_and(|session| !session.inbox.queue.session) {
            self.drop_session();
        }
    }

    fn drop_session(&mut self) {
        (self.session, self.asked) = (None, 0);
    }

    /// Lets other transfers have the session, if nothing more was asked.
    pub(super) fn release(&mut self) {
        if self.questions.is_empty()
            && self.requester.uses_sessions()
            && let Some(mut session) = self.session.take_if(|session| session.is_idle())
        {
            session.inbox.window.detach(); // later questions may never come
            self.requester.pool.put(session);
        }
    }

    pub(super) fn entry(&self) -> Option<Entry<'_>> {
        self.session.as_ref()?.entry()
    }

    /// The session, if the reader may take bytes from it.
    pub(super) fn readable(&mut self) -> Option<&mut Session> {
        self.session.as_mut().filter(|_| self.has_begun && self.partial.is_none())
    }

    pub(super) fn bytes(&mut self) -> &[u8] {
        self.readable().map_or(&[], Session::bytes)
    }

    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> {
        let session = self.session.as_ref().filter(|_| self.has_begun && self.partial.is_none());
        session.into_iter().flat_map(|session| session.extents.iter().copied())
    }

    pub(super) fn consume(&mut self, count: usize) {
        if let Some(session) = self.readable() {
            session.consume(count);
        }
    }

    pub(super) fn tally(&self) -> &Tally {
        match (&self.partial, &self.session) {
            (Some(partial), _) => partial,
            (None, Some(session)) if self.has_begun => &session.tally,
            _ => &self.last,
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.release();
    }
}
