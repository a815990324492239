//! A session by hand: its reply queue, its questions, and the frames of its answers.

use mqfs::wire::{
    Cookie, Entry, Extension, Failure, FrameHeader, FrameType, Kind, MAX_REPLY, NORMAL_PRIORITY,
    Operation, QUESTION_TYPE, Question, REPLY_QUEUE_MODE, Range, Request, Stat, Trailer,
    WindowPart, decode_farewell,
};
use nix::errno::Errno;
use sysv_ipc::{MessageBuffer, MessageType, OwnedQueue, Queue, ReceiveError, Select, SharedMemory};

use crate::{extension, lease_of, put_lease, wait_until};

/// A client that asks what a test wants, and watches nothing but its queue.
#[derive(Debug)]
pub struct RawSession {
    pub queue: OwnedQueue,
    /// Whether requests allow shared memory.
    pub windows: bool,
    /// How many messages have arrived.
    pub messages: usize,
    unread: Vec<u8>,
    /// Whether the stream has begun, with the cookie.
    opened: bool,
    /// How many questions were asked, and how many of them have answers.
    asked: u16,
    answered: u16,
    /// The number of the question that the last frame belongs to.
    number: u16,
}

/// What arrives in a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Meta(Answer),
    Data(Vec<u8>),
    /// Bytes in shared memory.
    Window(WindowPart),
    End(Trailer),
    Failure(Failure),
    Farewell(u64),
    /// A message about the whole request.
    Refused(Failure),
    /// The queue was removed.
    Gone,
}

/// What an answer says about a file, and the bytes that follow.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub kind: Kind,
    pub size: u64,
    pub target: Vec<u8>,
    pub bytes: Vec<u8>,
}

impl RawSession {
    /// A session that begins with this question.
    pub fn start(requests: Queue, first: &Question<'_>) -> Self {
        Self::allowing(false, requests, first)
    }

    /// The same, and it allows shared memory.
    pub fn with_windows(requests: Queue, first: &Question<'_>) -> Self {
        Self::allowing(true, requests, first)
    }

    fn allowing(windows: bool, requests: Queue, first: &Question<'_>) -> Self {
        let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
        let (unread, opened, asked) = (Vec::new(), false, 1);
        let session =
            Self { queue, windows, messages: 0, unread, opened, asked, answered: 0, number: 0 };
        session.request(requests, first);
        session
    }

    /// A session whose first question is answered, and that has none after it.
    pub fn idle(requests: Queue) -> Self {
        let mut session = Self::start(requests, &stat("/"));
        assert_eq!(session.answer().unwrap().kind, Kind::Directory);
        session
    }

    /// Puts a lease into the queue, and sends a request.
    pub fn request(&self, requests: Queue, first: &Question<'_>) {
        let cookie = put_lease(*self.queue, requests);
        let windows = self.windows;
        let extension = Some(Extension { session: true, windows, ..extension(cookie) });
        let request = Request { reply_queue: self.queue.id(), question: *first, extension };
        let request = MessageBuffer::with_text(NORMAL_PRIORITY, &request.encode());
        requests.send(&request).unwrap();
    }

    pub fn ask(&mut self, question: &Question<'_>) {
        self.ask_all(&[*question]);
    }

    pub fn ask_all(&mut self, questions: &[Question<'_>]) {
        let mut text = Vec::new();
        for question in questions {
            Question { number: self.asked, ..*question }.append(&mut text);
            self.asked += 1;
        }
        self.queue.try_send(&MessageBuffer::with_text(QUESTION_TYPE, &text)).unwrap();
    }

    #[track_caller]
    pub fn answer_to(&mut self, question: &Question<'_>) -> Result<Answer, Errno> {
        self.ask(question);
        self.answer()
    }

    /// The next answer, or the errno of its failure.
    #[track_caller]
    pub fn answer(&mut self) -> Result<Answer, Errno> {
        let mut answer = Answer { kind: Kind::Unknown, size: 0, target: vec![], bytes: vec![] };
        loop {
            let part = self.next_part();
            assert_eq!(self.number, self.answered, "{part:?} belongs to another question");
            match part {
                Part::Meta(meta) => answer = meta,
                Part::Data(part) => answer.bytes.extend(part),
                Part::Window(part) => {
                    let memory = SharedMemory::from_id(part.segment).attach_read_only().unwrap();
                    let start = answer.bytes.len();
                    answer.bytes.resize(start + part.length as usize, 0);
                    memory.copy_to(part.offset as usize, &mut answer.bytes[start..]);
                }
                Part::End(end) => {
                    assert_eq!(end.bytes, answer.bytes.len() as u64);
                    self.answered += 1;
                    return Ok(answer);
                }
                Part::Failure(failure) => {
                    self.answered += 1;
                    return Err(failure.errno.unwrap());
                }
                other => panic!("{other:?} instead of an answer"),
            }
        }
    }

    #[track_caller]
    pub fn next_part(&mut self) -> Part {
        loop {
            if let Some(part) = self.take_frame() {
                return part;
            }
            let mut message = MessageBuffer::with_capacity(MAX_REPLY);
            let mut outcome = Err(ReceiveError::Empty);
            wait_until("a message", || {
                outcome =
                    self.queue.try_receive(&mut message, Select::UpTo(FrameType::Meta.mtype()));
                !matches!(outcome, Err(ReceiveError::Empty))
            });
            if outcome.is_err() {
                return Part::Gone;
            }
            if message.mtype() == FrameType::Failure.mtype() {
                return Part::Refused(Failure::decode(message.text()));
            }
            assert_eq!(message.mtype(), FrameType::Data.mtype(), "a session has no other messages");
            self.messages += 1;
            self.unread.extend_from_slice(message.text());
            if !self.opened {
                self.opened = true;
                let opening: Vec<_> = self.unread.drain(..size_of::<Cookie>()).collect();
                assert_eq!(&opening, lease_of(*self.queue).cookie.as_bytes());
            }
        }
    }

    fn take_frame(&mut self) -> Option<Part> {
        let (header, rest) = self.unread.split_at_checked(FrameHeader::SIZE)?;
        let FrameHeader { frame_type, length, question } = FrameHeader::decode(header).unwrap();
        let text = rest.get(..length as usize)?;
        self.number = question;
        let part = match frame_type {
            FrameType::Meta => {
                let Entry { stat: Stat { kind, size, .. }, target, .. } =
                    Entry::decode(text).unwrap();
                Part::Meta(Answer { kind, size, target: target.to_vec(), bytes: Vec::new() })
            }
            FrameType::Data => Part::Data(text.to_vec()),
            FrameType::Window => Part::Window(WindowPart::decode(text).unwrap()),
            FrameType::End => Part::End(Trailer::decode(text).unwrap().unwrap()),
            FrameType::Failure => Part::Failure(Failure::decode(text)),
            FrameType::Farewell => Part::Farewell(decode_farewell(text).unwrap()),
            FrameType::Extents => panic!("the request does not allow it"),
        };
        let taken = FrameHeader::SIZE + text.len();
        self.unread.drain(..taken);
        Some(part)
    }
}

pub fn fetch(path: &str) -> Question<'_> {
    Question::new(path.as_ref(), Operation::Fetch(Range::WHOLE))
}

pub fn range(path: &str, offset: u64, length: u64) -> Question<'_> {
    let range = Range { offset, length: Some(length) };
    Question::new(path.as_ref(), Operation::Fetch(range))
}

pub fn stat(path: &str) -> Question<'_> {
    Question::new(path.as_ref(), Operation::Stat { follow: true })
}

pub fn lstat(path: &str) -> Question<'_> {
    Question::new(path.as_ref(), Operation::Stat { follow: false })
}

pub fn list(path: &str) -> Question<'_> {
    Question::new(path.as_ref(), Operation::List)
}

pub fn enter(path: &str) -> Question<'_> {
    Question::new(path.as_ref(), Operation::Enter)
}

/// The same question about a path below the directory that was entered.
pub fn below(question: Question<'_>) -> Question<'_> {
    Question { below: true, ..question }
}

pub fn question_message(question: &Question<'_>) -> MessageBuffer {
    let mut text = Vec::new();
    question.append(&mut text);
    MessageBuffer::with_text(QUESTION_TYPE, &text)
}

/// The type of messages that neither side receives.
const FILLER: MessageType = MessageType::MAX;

/// Fills a queue with messages that neither side receives.
pub fn fill(queue: Queue) {
    for size in [1024, 1] {
        let filler = MessageBuffer::with_text(FILLER, &vec![0; size]);
        while queue.try_send(&filler).is_ok() {}
    }
}

/// Takes those messages out.
pub fn unfill(queue: Queue) {
    let mut filler = MessageBuffer::with_capacity(1024);
    while queue.try_receive(&mut filler, Select::Type(FILLER)).is_ok() {}
}

/// The names in a listing, in order.
pub fn names(listing: &Answer) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), &listing.bytes[..]);
    while !rest.is_empty() {
        let entry = Entry::decode(rest).unwrap();
        names.push(String::from_utf8(entry.name.to_vec()).unwrap());
        rest = &rest[entry.encoded_len()..];
    }
    names.sort_unstable();
    names
}
