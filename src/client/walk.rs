//! Receives a whole tree.

mod content;

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use sysv_ipc::MessageType;

use super::dir_entry::DirEntry;
use super::error::{Cause, Error};
use super::metadata::Metadata;
use super::requester::Requester;
use super::stream::{Stream, is_entry_name};
use crate::wire::{Entry, Kind, MAX_START, Operation, Reply, Start};
use content::Content;

/// A directory with everything below it, in one request.
///
/// A directory comes before its entries, which are sorted by the bytes of their names. If the
/// server dies on the way, another request asks for the rest.
///
/// ```no_run
/// use std::io::Read;
///
/// let mut walk = mqfs::Client::new(mqfs::DEFAULT_KEY).walk("/etc")?;
/// while let Some(mut entry) = walk.next_entry()? {
///     let mut content = Vec::new();
///     entry.read_to_end(&mut content)?; // nothing, unless it is a regular file
///     println!("{}: {} bytes", mqfs::escape::escape(entry.path()), content.len());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Walk {
    stream: Stream,
    /// Whether the walk is inside the top, which is a directory then.
    in_top: bool,
    /// The names of the directories below the top that were entered, each followed by a slash, then
    /// the name of the last entry, if any.
    path: Vec<u8>,
    /// Where in the path the names of those directories end.
    entered: Vec<usize>,
    entry: DirEntry,
    /// The kind of the entry, unless it is a directory.
    kind: Kind,
    state: State,
    /// The text of the last message.
    text: Vec<u8>,
    /// The type of the last message, if the next step must interpret it.
    held: Option<MessageType>,
    /// Whether the next entry may have the name of the last one.
    again: bool,
    /// Whether the entry changed while the server read it.
    has_changed: bool,
    failed: Option<Error>,
}

#[derive(Debug)]
enum State {
    /// The top was not announced yet.
    New,
    Between,
    InEntry(Content),
    Ended,
}

/// An entry of a tree. Reading yields a file's bytes, and then the end of file once all bytes have
/// arrived and were verified.
#[derive(Debug)]
pub struct WalkEntry<'a> {
    walk: &'a mut Walk,
    depth: usize,
}

impl Walk {
    pub(super) fn open(requester: Requester, path: &Path) -> Result<Self, Error> {
        Ok(Self {
            stream: Stream::open(requester, path, Operation::Tree(Start::BEGINNING))?,
            in_top: false,
            path: Vec::new(),
            entered: Vec::new(),
            entry: DirEntry::failed(b"", Error::corrupt("nothing yet")),
            kind: Kind::Unknown,
            state: State::New,
            text: Vec::new(),
            held: None,
            again: false,
            has_changed: false,
            failed: None,
        })
    }

    /// The next entry; None at the end, after everything was verified. If several answers were
    /// needed, each file was verified by itself.
    ///
    /// # Errors
    /// The rest of the tree cannot arrive. Errors of single entries are in
    /// [`WalkEntry::metadata`].
    pub fn next_entry(&mut self) -> Result<Option<WalkEntry<'_>>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = loop {
            match self.step() {
                Ok(next) => break next,
                Err(error) => self.resume(error)?,
            }
        };
        Ok(next.map(|depth| WalkEntry { walk: self, depth }))
    }

    /// Goes on to the next entry, and returns its depth.
    fn step(&mut self) -> Result<Option<usize>, Error> {
        loop {
            if let State::InEntry(_) = self.state {
                match self.fill_content() {
                    Ok(count) => {
                        self.consume_content(count); // what the caller did not read
                        continue;
                    }
                    Err(error) if self.failed.is_some() => return Err(error),
                    Err(error) => return Ok(Some(self.fail(error))),
                }
            }
            if let State::Ended = self.state {
                return match self.stream.next_header() {
                    Ok(Some(_)) => Err(Error::corrupt("a message after the end of the tree")),
                    // A lost answer had nothing more to say about the tree.
                    Err(error) if !error.is_retryable() => Err(error),
                    _ => Ok(None),
                };
            }
            let mtype = match self.held.take() {
                Some(mtype) => mtype,
                None => self
                    .stream
                    .next_message(&mut self.text)?
                    .ok_or(Error::corrupt("the tree has no end"))?,
            };
            match Reply::decode(mtype, &self.text)? {
                Reply::Meta(_) => return self.begin_entry().map(Some),
                Reply::End(_) => self.leave()?,
                Reply::Failure(failure) => {
                    self.leave()?;
                    return Ok(Some(self.fail(failure.into())));
                }
                Reply::Data(_) => return Err(Error::corrupt("bytes that belong to no file")),
            }
        }
    }

    /// The depth of the next entry below the top.
    fn depth(&self) -> usize {
        if self.in_top { self.entered.len() + 1 } else { 0 }
    }

    /// Where in the path the next entry's name begins.
    fn name_start(&self) -> usize {
        self.entered.last().map_or(0, |end| end + 1)
    }

    /// Replaces the entry by an error, and returns its depth.
    fn fail(&mut self, error: Error) -> usize {
        self.entry = DirEntry::failed(&self.path[self.name_start()..], error);
        self.depth()
    }

    /// Begins the entry that the text announces, and returns its depth.
    fn begin_entry(&mut self) -> Result<usize, Error> {
        let entry = Entry::decode(&self.text)?;
        let is_top = matches!(self.state, State::New);
        if is_top != entry.name.is_empty() || !(is_top || is_entry_name(entry.name)) {
            return Err(Error::corrupt("a name that no entry can have"));
        }
        let (depth, start) = (self.depth(), self.name_start());
        let is_in_order = match entry.name.cmp(&self.path[start..]) {
            Ordering::Less => false,
            Ordering::Equal => is_top || self.again,
            Ordering::Greater => true,
        };
        if !is_in_order {
            return Err(Error::corrupt("entries that are not in their order"));
        }
        if entry.meta.offset != 0 {
            return Err(Error::WRONG_BEGINNING);
        }
        (self.again, self.has_changed) = (false, false);
        self.path.truncate(start);
        self.path.extend_from_slice(entry.name);
        self.entry = DirEntry::of(&entry);
        if entry.meta.kind != Kind::Directory {
            let is_unreadable = entry.meta.kind == Kind::Unknown
                || (entry.meta.kind == Kind::Link && entry.target.is_empty());
            self.kind = entry.meta.kind;
            self.state = State::InEntry(Content::default());
            return if is_unreadable { self.fail_at_once() } else { Ok(depth) };
        }
        self.state = State::Between;
        if is_top {
            self.in_top = true;
        } else {
            self.entered.push(self.path.len());
            self.path.push(b'/');
        }
        Ok(depth)
    }

    /// Reads the FAILURE of an entry that the server could not look at.
    fn fail_at_once(&mut self) -> Result<usize, Error> {
        match self.fill_content() {
            Ok(_) => Err(Error::corrupt("an entry is unknown without a reason")),
            Err(error) if self.failed.is_some() => Err(error),
            Err(error) => Ok(self.fail(error)),
        }
    }

    /// Leaves a directory.
    fn leave(&mut self) -> Result<(), Error> {
        self.again = false;
        match self.entered.pop() {
            Some(end) => self.path.truncate(end),
            None if self.in_top => {
                self.in_top = false;
                self.path.clear();
                self.state = State::Ended;
            }
            None => return Err(Error::corrupt("an end without an entry")),
        }
        Ok(())
    }

    /// How many bytes of the entry are available, receiving some if there are none; 0 at its end.
    /// An error ends this entry, or, if `failed` is set, the whole tree.
    fn fill_content(&mut self) -> Result<usize, Error> {
        loop {
            let is_within = |walk: &Self| matches!(walk.state, State::InEntry(_));
            match self.try_fill_content() {
                Ok(available) => return Ok(available),
                Err(error) if !is_within(self) => return Err(error),
                Err(error) => self.resume(error)?,
            }
            if !is_within(self) {
                return Err(Cause::FileChanged.into()); // the server sends it again
            }
        }
    }

    fn try_fill_content(&mut self) -> Result<usize, Error> {
        loop {
            let State::InEntry(content) = &mut self.state else { return Ok(0) };
            if content.left > 0 {
                let left = usize::try_from(content.left).unwrap_or(usize::MAX);
                return match self.stream.fill()?.len() {
                    0 => Err(Error::corrupt("the bytes end within a message")),
                    available => Ok(available.min(left)),
                };
            }
            let header = self.stream.next_header()?.ok_or(Error::corrupt("an entry has no end"))?;
            if header.mtype == Reply::DATA {
                if content.is_interrupted || self.kind != Kind::Regular {
                    return Err(Error::corrupt("bytes that belong to no file"));
                }
                content.left = header.length.into();
                continue;
            }
            self.stream.read_text(header, &mut self.text)?;
            if content.is_interrupted {
                let arrived = content.whole.bytes;
                content.is_interrupted = false;
                self.check_continues(header.mtype, arrived)?;
                continue;
            }
            match Reply::decode(header.mtype, &self.text)? {
                Reply::End(Some(trailer)) => {
                    content.part().verify(&trailer)?;
                    self.has_changed = trailer.changed;
                    self.end_entry();
                    return Ok(0);
                }
                Reply::Failure(failure) => {
                    self.end_entry();
                    return Err(failure.into());
                }
                _ => return Err(Error::corrupt("an entry has no end")),
            }
        }
    }

    /// Checks that the message announces the rest of the entry. If not, keeps it for the next step.
    fn check_continues(&mut self, mtype: MessageType, arrived: u64) -> Result<(), Error> {
        let start = self.name_start();
        let text = "it disappeared while the server was away".to_owned();
        let mut cause = Cause::Failed { text, errno: Some(Errno::ENOENT) };
        if mtype == Reply::META {
            let next = Entry::decode(&self.text)?;
            if next.name == &self.path[start..] {
                if next.meta.kind == self.kind && next.meta.offset == arrived {
                    return Ok(());
                }
                self.again = true;
                cause = Cause::FileChanged;
            }
        }
        self.held = Some(mtype);
        self.state = if self.in_top { State::Between } else { State::New };
        Err(cause.into())
    }

    /// Counts bytes as consumed.
    fn consume_content(&mut self, count: usize) {
        let State::InEntry(content) = &mut self.state else { return };
        content.add(&self.stream.answer.bytes()[..count]);
        self.stream.answer.consume(count);
    }

    fn end_entry(&mut self) {
        self.state = if self.in_top { State::Between } else { State::Ended };
    }

    /// Asks for the rest after an answer was `lost`. If that is impossible, the whole walk has
    /// failed.
    fn resume(&mut self, lost: Error) -> Result<(), Error> {
        if self.failed.is_none() {
            self.failed = self.try_resume(lost).err();
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn try_resume(&mut self, lost: Error) -> Result<(), Error> {
        let mut arrived = match &self.state {
            State::InEntry(Content { whole, .. }) => Some((whole.bytes, whole.checksum())),
            // It was asked for again, and not announced since.
            State::Between if self.again => Some((0, 0)),
            State::New | State::Between | State::Ended => None,
        };
        self.held = None;
        if self.path.len() > MAX_START {
            self.return_to_nameable();
            arrived = Some((0, 0));
        }
        self.stream.resume(Start { path: &self.path, arrived }, lost)?;
        match &mut self.state {
            State::InEntry(content) => content.interrupt(),
            State::Between if self.path.is_empty() => {
                self.in_top = false; // the server announces the top again
                self.state = State::New;
            }
            _ => {}
        }
        Ok(())
    }

    /// Goes back to the innermost directory whose path fits into a request, to receive it again.
    fn return_to_nameable(&mut self) {
        let nameable = self.entered.iter().rposition(|&end| end <= MAX_START);
        let end = nameable.map_or(0, |i| self.entered[i]);
        self.entered.truncate(nameable.unwrap_or(0));
        self.path.truncate(end);
        self.state = State::Between;
        self.again = true;
    }
}

impl WalkEntry<'_> {
    /// The path below the top, whose own path is empty. In a very deep tree it is longer than any
    /// path that system calls accept (`PATH_MAX`).
    pub fn path(&self) -> &Path {
        let path = &self.walk.path;
        Path::new(OsStr::from_bytes(path.strip_suffix(b"/").unwrap_or(path)))
    }

    /// The name: neither "." nor "..", and without a slash. Empty for the top.
    pub fn file_name(&self) -> &OsStr {
        self.walk.entry.file_name()
    }

    /// The depth below the top, which has depth 0.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The metadata. Symbolic links are not followed.
    ///
    /// # Errors
    /// The server could not look at the entry. Or part of the previous entry, which the caller did
    /// not read, did not arrive: then this entry has the previous one's name. The rest of the tree
    /// is not affected.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        self.walk.entry.metadata()
    }

    /// Where a symbolic link leads. None if this is no link.
    pub fn link_target(&self) -> Option<&Path> {
        self.walk.entry.link_target()
    }

    /// Whether the file changed while the server read it, so that the bytes may be a mixture of old
    /// and new. Known once the file was read to its end.
    pub fn has_changed(&self) -> bool {
        self.walk.has_changed
    }

    /// Whether no other entry will follow.
    pub(super) fn is_fatal(&self) -> bool {
        self.walk.failed.is_some()
    }
}

impl BufRead for WalkEntry<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.metadata().and_then(|_| self.walk.fill_content()) {
            Ok(available) => Ok(&self.walk.stream.answer.bytes()[..available]),
            Err(error) => {
                self.walk.fail(error.clone()); // for the next read
                Err(error.into())
            }
        }
    }

    fn consume(&mut self, amount: usize) {
        self.walk.consume_content(amount);
    }
}

impl Read for WalkEntry<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
