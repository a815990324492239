//! A conversation in one reply queue: the question in the request, and in a session more of them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::unistd::{Whence, ftruncate, lseek, write};
use sysv_ipc::{MessageBuffer, SendError};

use super::error::{Cause, Error};
use super::inbox::Inbox;
use super::planned::{Entered, PlannedQuestion, check_path};
use super::reply_watch::WatchedQueue;
use crate::wire::{
    Entry, Extent, FrameType, Lease, MAX_UNANSWERED, QUESTION_TYPE, Tally, Trailer, decode_farewell,
};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) inbox: Inbox,
    /// What was asked, and whose answer has not ended.
    asked: VecDeque<Asked>,
    /// The last questions in `asked`, encoded, which will be sent in one message.
    unsent: Vec<u8>,
    /// How many bytes the questions take that were sent and not answered, and how many these and
    /// the unsent ones may take.
    unanswered: usize,
    max_unanswered: usize,
    /// How many bytes had arrived when the queue had no room for the questions.
    full_at: Option<u64>,
    answered: u64,
    pub(super) entered: Option<Entered>,
    has_begun: bool,
    /// Whether the answer has a META, so that its END must have a trailer.
    is_extended: bool,
    /// The holes of the file whose zeros were not taken yet, and the data behind them.
    pub(super) extents: VecDeque<Extent>,
    pub(super) tally: Tally,
}

#[derive(Debug)]
struct Asked {
    bytes: usize,
    /// Set if the question only enters a directory: its answer is not for the reader.
    enters: Option<Entered>,
}

/// The next step of an answer, or the FAILURE that ends it.
pub(super) type Answer = Result<Step, Error>;

#[derive(Debug)]
pub(super) enum Step {
    /// It begins: see [`Session::entry`].
    Begun,
    Bytes,
    /// It has ended, and was verified if there is a trailer.
    Ended(Option<Trailer>),
}

impl Session {
    /// Waits for the answer to a request that was sent for this reply queue. `entering` is the
    /// directory that its question only enters. `windows`: the request allowed shared memory.
    pub(super) fn begin(
        queue: WatchedQueue,
        entering: Option<Entered>,
        windows: bool,
    ) -> Result<Self, Error> {
        let inbox = Inbox::begin(queue, windows)?;
        let mut most = 0;
        if inbox.queue.session {
            // A DATA takes at most half of the queue. It must fit in beside the questions.
            let capacity = inbox.queue.queue.status().map_or(0, |status| status.max_bytes);
            most = (capacity.saturating_sub(Lease::SIZE as u64) / 2).min(MAX_UNANSWERED as u64);
        }
        Ok(Self {
            inbox,
            asked: VecDeque::from([Asked { bytes: 0, enters: entering.clone() }]),
            unsent: Vec::new(),
            unanswered: 0,
            max_unanswered: most as usize,
            full_at: None,
            answered: 0,
            entered: entering,
            has_begun: false,
            is_extended: false,
            extents: VecDeque::new(),
            tally: Tally::default(),
        })
    }

    /// Notes a question that [`send`](Self::send) will send, and those before it that enter
    /// directories. False: there is no room for another question.
    pub(super) fn ask(&mut self, planned: &PlannedQuestion) -> Result<bool, Error> {
        while self.inbox.queue.session {
            let (mut question, entering) = planned.next_question(self.entered.as_ref());
            check_path(question.path)?;
            question.number = (self.answered + self.asked.len() as u64) as u16;
            let bytes = question.encoded_len();
            let unanswered = self.unanswered + self.unsent.len() + bytes;
            if !self.asked.is_empty() && unanswered > self.max_unanswered {
                break;
            }
            question.append(&mut self.unsent);
            self.asked.push_back(Asked { bytes, enters: entering.clone() });
            if entering.is_none() {
                return Ok(true);
            }
            self.entered = entering;
        }
        Ok(false)
    }

    /// Sends the questions, unless the server still has more to answer: then more will be sent at
    /// once later, since for each message the other side is woken. It never waits: the server may
    /// be waiting for room in the same queue.
    pub(super) fn send(&mut self) -> Result<(), Error> {
        let is_enough = self.unsent.len() >= self.unanswered.max(1);
        if !is_enough || self.full_at == Some(self.inbox.received) {
            return Ok(());
        }
        let is_waiting = self.unanswered > 0 || self.answered == 0;
        if !is_waiting {
            if !self.inbox.is_empty() {
                return Ok(()); // a farewell, or the news that the child has died
            }
            if self.inbox.received_at.elapsed() >= Inbox::PAUSE && self.inbox.queue.is_lost() {
                return Err(Cause::QueueRemoved.into());
            }
        }
        let message = MessageBuffer::with_text(QUESTION_TYPE, &self.unsent);
        // From now on, the last sender may be this process.
        self.inbox.queue.identify_child();
        let queue = self.inbox.queue.queue;
        let is_empty = || queue.status().is_ok_and(|status| status.messages <= 1);
        match queue.try_send(&message) {
            Ok(()) => {
                self.unanswered += self.unsent.len();
                self.unsent.clear();
                return Ok(());
            }
            Err(_) if is_waiting => {} // an error comes again when nothing else is waited for
            Err(SendError::Full | SendError::Interrupted) if !is_empty() => {}
            Err(SendError::Full | SendError::Interrupted | SendError::TooBig) => {
                return Err(Cause::RequestTooBig.into());
            }
            Err(SendError::Os(error)) => return Err(error.into()),
            Err(_) => return Err(Cause::QueueRemoved.into()),
        }
        self.full_at = Some(self.inbox.received);
        Ok(())
    }

    /// Waits for the next step of the answers. None: it was about a directory that is only entered;
    /// there may be room for more questions now. An error means that nothing more comes here.
    pub(super) fn next(&mut self) -> Result<Option<Answer>, Error> {
        if self.hole() > 0 {
            return Ok(Some(Ok(Step::Bytes)));
        }
        let part = self.inbox.next(self.answered as u16)?;
        if part == FrameType::Farewell {
            let is_right = decode_farewell(&self.inbox.text) == Ok(self.answered);
            if is_right && self.answered > 0 && !self.has_begun {
                return Err(Cause::SentAway.into());
            }
            return Err(Error::corrupt("a farewell with a wrong number of answers"));
        }
        let Some(Asked { enters, .. }) = self.asked.front() else {
            return Err(Error::corrupt("an answer to no question"));
        };
        let is_for_reader = enters.is_none();
        // A walk cannot go on below another top than the one that it found first.
        let top = enters.as_ref().and_then(Entered::top);
        let answer = match part {
            FrameType::Meta if !self.has_begun => {
                self.begin_answer(true);
                let found = Entry::decode(&self.inbox.text)?.stat;
                if top.is_some_and(|top| top != (found.device, found.inode)) {
                    return Err(Cause::FileChanged.into());
                }
                Ok(Step::Begun)
            }
            FrameType::Failure if top.is_some() => return Err(self.inbox.failure()),
            FrameType::Failure => {
                self.end_answer();
                Err(self.inbox.failure())
            }
            part if !self.has_begun && !self.inbox.queue.is_framed() => {
                if part != FrameType::Data {
                    self.inbox.pending = Some(Ok(part));
                }
                self.begin_answer(false); // a plain server sends no META
                Ok(Step::Begun)
            }
            FrameType::Data if self.has_begun && is_for_reader => Ok(Step::Bytes),
            FrameType::Extents if self.has_begun && is_for_reader && self.extents.is_empty() => {
                self.extents = Extent::decode_all(&self.inbox.text, self.tally.bytes)?.into();
                Ok(Step::Bytes)
            }
            FrameType::End if self.has_begun => {
                let trailer = self.verify()?;
                self.end_answer();
                Ok(Step::Ended(trailer))
            }
            FrameType::Meta => return Err(Error::corrupt("a second beginning")),
            _ => return Err(Error::corrupt("bytes that belong to no file")),
        };
        // If a directory cannot be entered, the questions about what is below it fail too.
        Ok(is_for_reader.then_some(answer))
    }

    fn begin_answer(&mut self, is_extended: bool) {
        (self.has_begun, self.is_extended) = (true, is_extended);
        self.extents.clear();
        self.tally = Tally::default();
    }

    fn end_answer(&mut self) {
        self.has_begun = false;
        self.answered += 1;
        self.unanswered -= self.asked.pop_front().map_or(0, |asked| asked.bytes);
    }

    /// Checks that the answer is complete. A plain server gives no means to do so.
    fn verify(&self) -> Result<Option<Trailer>, Error> {
        let trailer = Trailer::decode(&self.inbox.text)?;
        let wrong = match &trailer {
            None if self.is_extended => "no count and checksum at the end",
            Some(sent) if sent.bytes != self.tally.bytes => {
                "not as many bytes arrived as were sent"
            }
            Some(sent) if sent.checksum != self.tally.checksum => {
                "the checksum is not that of the bytes sent"
            }
            _ => return Ok(trailer),
        };
        Err(Error::corrupt(wrong))
    }

    /// What the server says about the file that has just begun. None from a plain server.
    pub(super) fn entry(&self) -> Option<Entry<'_>> {
        Entry::decode(&self.inbox.text).ok().filter(|_| self.is_extended)
    }

    /// How many zeros come next, which are in no message.
    pub(super) fn hole(&self) -> u64 {
        self.extents.front().map_or(0, |extent| extent.hole)
    }

    pub(super) fn has_bytes(&self) -> bool {
        self.hole() > 0 || self.inbox.has_bytes()
    }

    pub(super) fn bytes(&mut self) -> &[u8] {
        match self.hole() {
            0 => self.inbox.bytes(),
            hole => zeros(hole),
        }
    }

    /// Takes bytes that are there. They may be more of a hole than [`bytes`](Self::bytes) shows.
    pub(super) fn consume(&mut self, count: usize) {
        let hole = self.hole();
        if hole > 0 {
            return self.note_taken(hole.min(count as u64));
        }
        let bytes = self.inbox.bytes();
        let count = count.min(bytes.len());
        self.tally.add(&bytes[..count]);
        self.inbox.consume(count);
        self.note_taken(count as u64);
    }

    /// Takes bytes and writes them to a file. Returns how many: not all that are there, perhaps. A
    /// file that may be sparse gets longer by a whole hole, and nothing is written.
    pub(super) fn write_to(&mut self, file: BorrowedFd<'_>, sparse: bool) -> io::Result<usize> {
        let hole = self.hole();
        let count = loop {
            let written = match hole {
                0 => self.inbox.write_to(file, |bytes| self.tally.add(bytes)),
                _ if sparse => extend(file, hole),
                _ => write(file, zeros(hole)).map_err(io::Error::from),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.note_taken(count as u64);
        Ok(count)
    }

    fn note_taken(&mut self, count: u64) {
        let Some(extent) = self.extents.front_mut() else { return };
        if extent.hole > 0 {
            extent.hole -= count;
            self.tally.add_zeros(count);
        } else {
            extent.data = extent.data.saturating_sub(count);
        }
        if *extent == Extent::default() {
            self.extents.pop_front();
        }
    }

    /// Whether more questions can be asked later.
    pub(super) fn is_idle(&self) -> bool {
        self.inbox.queue.session && self.asked.is_empty() && self.inbox.is_empty()
    }
}

fn zeros(hole: u64) -> &'static [u8] {
    static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
    &ZEROS[..usize::try_from(hole).map_or(ZEROS.len(), |hole| hole.min(ZEROS.len()))]
}

fn extend(file: BorrowedFd<'_>, hole: u64) -> io::Result<usize> {
    let end = lseek(file, 0, Whence::SeekCur)?.checked_add_unsigned(hole).ok_or(Errno::EFBIG)?;
    ftruncate(file, end)?;
    lseek(file, end, Whence::SeekSet)?;
    Ok(hole as usize)
}
