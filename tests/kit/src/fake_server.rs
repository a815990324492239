//! A server by hand, and what it sends instead of an answer.

use std::path::Path;
use std::thread;

use mqfs::wire::{
    Cookie, Entry, Failure, FrameHeader, FrameType, Kind, QUESTION_TYPE, Question, Request, Stat,
    Trailer, encode_farewell,
};
use nix::errno::Errno;
use sysv_ipc::{MessageBuffer, Mode, OwnedQueue, Queue, Select};

use crate::{Finished, client, reply_queues, run, unique_key};

/// The frames of an answer, or what is sent instead.
#[derive(Debug, Default, Clone)]
pub struct Answer {
    pub frames: Vec<(FrameType, Vec<u8>)>,
    /// Bytes behind them that are no frame.
    pub garbage: Vec<u8>,
    /// The number of the question, if it is not the right one.
    pub question: Option<u16>,
    /// A message of this type follows the frames.
    pub message: Option<(FrameType, Vec<u8>)>,
    /// No other answer follows in this session.
    pub is_last: bool,
    /// What the server does then with the reply queue.
    pub then: Option<fn(Queue)>,
}

impl Answer {
    pub fn frame(mut self, frame_type: FrameType, text: &[u8]) -> Self {
        self.frames.push((frame_type, text.to_vec()));
        self
    }

    pub fn garbage(mut self, bytes: &[u8]) -> Self {
        self.garbage = bytes.to_vec();
        self
    }

    pub fn meta(self, entry: &Entry<'_>) -> Self {
        self.frame(FrameType::Meta, &encoded(&[*entry]))
    }

    pub fn data(self, bytes: &[u8]) -> Self {
        self.frame(FrameType::Data, bytes)
    }

    /// The end of an answer that consists of these bytes.
    pub fn end(self, bytes: &[u8]) -> Self {
        let checksum = crc32fast::hash(bytes);
        let trailer = Trailer { bytes: bytes.len() as u64, checksum, changed: false };
        self.frame(FrameType::End, &trailer.encode())
    }

    pub fn failure(self, errno: Errno) -> Self {
        let failure = Failure { text: b"not now".to_vec(), errno: Some(errno), cookie: None };
        self.frame(FrameType::Failure, &failure.encode())
    }

    pub fn farewell(self, answered: u64) -> Self {
        self.frame(FrameType::Farewell, &encode_farewell(answered)).last()
    }

    pub fn last(mut self) -> Self {
        self.is_last = true;
        self
    }

    pub fn then(mut self, then: fn(Queue)) -> Self {
        self.then = Some(then);
        self
    }

    /// A correct answer for a file.
    pub fn file(self) -> Self {
        self.meta(&entry(Kind::Regular, "", "")).data(b"planted").end(b"planted")
    }

    /// A correct answer for a directory.
    pub fn dir(self, entries: &[Entry<'_>]) -> Self {
        let bytes = encoded(entries);
        self.meta(&entry(Kind::Directory, "", "")).data(&bytes).end(&bytes)
    }

    /// Sends it, and returns whether another one may follow. To a plain client, whose
    /// request has no cookie, each frame is a message.
    pub fn send(&self, to: Queue, question: u16, cookie: Option<Cookie>) -> bool {
        let is_plain = cookie.is_none();
        let send = |part: FrameType, text: &[u8]| {
            let _ = to.send(&MessageBuffer::with_text(part.mtype(), text));
        };
        // The stream opens with the cookie.
        let opening = cookie.filter(|_| question == 0);
        let mut stream = opening.map_or(Vec::new(), |cookie| cookie.as_bytes().to_vec());
        for (frame_type, text) in &self.frames {
            let question = self.question.unwrap_or(question);
            let (frame_type, length) = (*frame_type, text.len() as u32);
            stream.extend(FrameHeader { frame_type, length, question }.encode());
            stream.extend(text);
            if is_plain {
                send(frame_type, text);
            }
        }
        stream.extend(&self.garbage);
        if !is_plain {
            stream.chunks(4000).for_each(|part| send(FrameType::Data, part));
        }
        if let Some((part, text)) = &self.message {
            let text = match part {
                FrameType::Failure => Failure { cookie, ..Failure::decode(text) }.encode(),
                _ => text.clone(),
            };
            send(*part, &text);
        }
        if let Some(then) = self.then {
            then(to);
        }
        !self.is_last
    }
}

pub fn entry<'a>(kind: Kind, name: &'a (impl AsRef<[u8]> + ?Sized), target: &'a str) -> Entry<'a> {
    let (name, target) = (name.as_ref(), target.as_bytes());
    let stat = Stat { kind, mode: 0o777, device: 1, inode: 2, ..Stat::default() };
    Entry { stat, name, target, ..Entry::default() }
}

pub fn encoded(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.append(&mut bytes));
    bytes
}

/// Answers requests and the questions in their sessions, until the request queue is removed.
pub fn serve(requests: Queue, answer: &dyn Fn(&Question<'_>) -> Answer) {
    let mut message = MessageBuffer::with_capacity(65_536);
    while requests.receive(&mut message, Select::Any).is_ok() {
        let request = Request::decode(message.text()).unwrap();
        let reply = Queue::from_id(request.reply_queue);
        let cookie = request.extension.map(|extension| extension.cookie);
        let in_session = request.extension.is_some_and(|extension| extension.session);
        let mut goes_on = answer(&request.question).send(reply, 0, cookie) && in_session;
        while goes_on && reply.receive(&mut message, Select::Type(QUESTION_TYPE)).is_ok() {
            let mut rest = message.text();
            while goes_on && !rest.is_empty() {
                let question;
                (question, rest) = Question::decode(rest).unwrap();
                goes_on = answer(&question).send(reply, question.number, cookie);
            }
        }
    }
}

pub fn ask(
    answer: impl Fn(&Question<'_>) -> Answer + Sync,
    arguments: &[&str],
    here: &Path,
) -> Finished {
    let key = unique_key();
    thread::scope(|scope| {
        let requests = OwnedQueue::create(key, Mode::new(0o711)).unwrap();
        let (queue, answer) = (*requests, &answer);
        scope.spawn(move || serve(queue, answer));
        let finished = run(client(key).args(["--timeout", "1s"]).args(arguments).current_dir(here));
        assert_eq!(reply_queues(), [], "{arguments:?}");
        finished
    })
}
