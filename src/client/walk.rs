//! A whole tree on its way.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::metadata::{DirEntry, Metadata};
use super::stream::{Stream, Wanted, is_name};
use super::{Client, Error, failed};
use crate::wire::{Entry, Kind, MAX_START, Reply, Start, Trailer};
use sysv_ipc::MessageType;

/// A directory with all that is below it, in one request.
///
/// Directories come before what is in them, the entries of each in the order of their names' bytes.
/// Where a server dies on the way, another request asks for the rest.
///
/// ```no_run
/// use std::io::Read;
///
/// let mut walk = mqfs::Client::connect(mqfs::DEFAULT_KEY)?.walk("/etc")?;
/// while let Some(mut entry) = walk.next_entry()? {
///     let mut content = Vec::new();
///     entry.read_to_end(&mut content)?; // nothing, but of a file
///     println!("{}: {} bytes", mqfs::escape::escape(entry.path()), content.len());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Walk {
    stream: Stream,
    /// Whether it is in the top, and that a directory.
    in_top: bool,
    /// The directories below that it is in, each with a slash behind its name, then the name of the
    /// entry that came last there, if one came.
    path: Vec<u8>,
    /// Where in the path the names of those directories end.
    entered: Vec<usize>,
    entry: DirEntry,
    state: State,
    /// The text of the last message, and its type while that is to be heeded still.
    text: Vec<u8>,
    held: Option<MessageType>,
    /// Whether the next entry may be the one that came last.
    again: bool,
    /// Whether the entry did, as its END says.
    has_changed: bool,
    failed: Option<Error>,
}

#[derive(Debug)]
enum State {
    /// Nothing came yet, not even the top.
    New,
    Between,
    InEntry(Content),
    Ended,
}

/// What came of an entry.
#[derive(Debug, Default)]
struct Content {
    /// Of the packed DATA that it is in.
    left: u64,
    arrived: u64,
    checksum: crc32fast::Hasher,
    /// The same since the request that END will speak for.
    counted: u64,
    checksum_counted: crc32fast::Hasher,
    /// Whether another request was made, and the entry is to be announced anew.
    is_interrupted: bool,
}

/// An entry of a tree. Reading yields a file's bytes and, once all are there and verified, the end.
#[derive(Debug)]
pub struct WalkEntry<'a> {
    walk: &'a mut Walk,
    depth: usize,
    error: Option<Error>,
}

/// What comes next: at a depth an entry, or why one has no end.
type Next = Option<(usize, Option<Error>)>;

impl Client {
    /// Asks for a directory and all that is below it, or for a file. A link that the path ends in is
    /// followed, others are entries themselves.
    ///
    /// # Errors
    /// Any of [`Error`]; [`Error::Failed`] if the caller may not list the directory.
    pub fn walk(&self, path: impl AsRef<Path>) -> Result<Walk, Error> {
        let stream = Stream::open(self, path.as_ref().to_owned(), Wanted::Tree)?;
        Ok(Walk {
            stream,
            in_top: false,
            path: Vec::new(),
            entered: Vec::new(),
            entry: DirEntry::unknown(b""),
            state: State::New,
            text: Vec::new(),
            held: None,
            again: false,
            has_changed: false,
            failed: None,
        })
    }
}

impl Walk {
    /// The next entry; None at the end, when all of it was verified: of what several servers sent, or
    /// one that died with nothing but the very end to send, each file by itself.
    ///
    /// # Errors
    /// What is fatal to the rest of the tree. What is not stands in its [entry](WalkEntry::error).
    pub fn next_entry(&mut self) -> Result<Option<WalkEntry<'_>>, Error> {
        loop {
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            match self.step() {
                Ok(next) => {
                    return Ok(next.map(|(depth, error)| WalkEntry { walk: self, depth, error }));
                }
                Err(error) => self.go_on(error),
            }
        }
    }

    /// How many requests it took.
    pub fn requests(&self) -> u32 {
        self.stream.requests
    }

    fn step(&mut self) -> Result<Next, Error> {
        loop {
            if let State::InEntry(_) = self.state {
                match self.fill_content() {
                    Ok(count) => {
                        self.consume_content(count);
                        continue;
                    }
                    Err(error) if self.failed.is_some() => return Err(error),
                    Err(error) => return Ok(Some(self.fail(error))),
                }
            }
            if let State::Ended = self.state {
                return match self.stream.opening() {
                    Ok(Some(_)) => Err(Error::Corrupt("something behind the end of the tree")),
                    // What gets lost now would have said no more of the tree than its entries did.
                    Err(error) if !error.is_passing() => Err(error),
                    _ => Ok(None),
                };
            }
            let mtype = match self.held.take() {
                Some(mtype) => mtype,
                None => self.next_message()?,
            };
            match Reply::decode(mtype, &self.text)? {
                Reply::Meta(_) => return self.begin_entry().map(Some),
                Reply::End(_) => self.leave()?,
                Reply::Failure(failure) => {
                    let error = failed(failure);
                    self.leave()?;
                    return Ok(Some(self.fail(error)));
                }
                Reply::Data(_) => return Err(Error::Corrupt("bytes of no file")),
            }
        }
    }

    /// Takes a message that is not DATA.
    fn next_message(&mut self) -> Result<MessageType, Error> {
        let packed = self.stream.opening()?.ok_or(Error::Corrupt("the tree has no end"))?;
        if packed.mtype == Reply::DATA {
            return Err(Error::Corrupt("bytes of no file"));
        }
        self.stream.text(packed, &mut self.text)?;
        Ok(packed.mtype)
    }

    /// How far below the top the next entry is.
    fn depth(&self) -> usize {
        if self.in_top { self.entered.len() + 1 } else { 0 }
    }

    /// Where in the path the name of the next entry begins.
    fn place(&self) -> usize {
        self.entered.last().map_or(0, |end| end + 1)
    }

    fn fail(&mut self, error: Error) -> (usize, Option<Error>) {
        self.entry = DirEntry::unknown(&self.path[self.place()..]);
        (self.depth(), Some(error))
    }

    /// Takes up the entry in the text.
    fn begin_entry(&mut self) -> Result<(usize, Option<Error>), Error> {
        let entry = Entry::decode(&self.text)?;
        let is_top = matches!(self.state, State::New);
        if is_top != entry.name.is_empty() || !(is_top || is_name(entry.name)) {
            return Err(Error::Corrupt("a name that no entry can have"));
        }
        let (depth, place) = (self.depth(), self.place());
        let is_in_order = match entry.name.cmp(&self.path[place..]) {
            Ordering::Less => false,
            Ordering::Equal => is_top || self.again,
            Ordering::Greater => true,
        };
        if !is_in_order {
            return Err(Error::Corrupt("entries that are not in their order"));
        }
        if entry.meta.offset != 0 {
            return Err(Error::WRONG_BEGINNING);
        }
        (self.again, self.has_changed) = (false, false);
        self.path.truncate(place);
        self.path.extend_from_slice(entry.name);
        self.entry = DirEntry::of(&entry);
        if entry.meta.kind != Kind::Directory {
            self.state = State::InEntry(Content::default());
            return Ok((depth, None));
        }
        self.state = State::Between;
        if is_top {
            self.in_top = true;
        } else {
            self.entered.push(self.path.len());
            self.path.push(b'/');
        }
        Ok((depth, None))
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
            None => return Err(Error::Corrupt("the end of nothing")),
        }
        Ok(())
    }

    /// How many bytes are there of the entry; none at its end. An error leaves the state as it is if it
    /// is fatal, and is then taken down; otherwise it is this entry's alone, which has ended with it.
    fn fill_content(&mut self) -> Result<usize, Error> {
        loop {
            let is_within = |walk: &Self| matches!(walk.state, State::InEntry(_));
            match self.try_fill_content() {
                Ok(there) => return Ok(there),
                Err(error) if !is_within(self) => return Err(error),
                Err(error) => self.go_on(error),
            }
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            if !is_within(self) {
                return Err(Error::FileChanged); // it comes again
            }
        }
    }

    fn try_fill_content(&mut self) -> Result<usize, Error> {
        loop {
            let State::InEntry(content) = &mut self.state else { return Ok(0) };
            if content.left > 0 {
                let left = usize::try_from(content.left).unwrap_or(usize::MAX);
                return match self.stream.fill()?.len() {
                    0 => Err(Error::Corrupt("it ends within a message")),
                    there => Ok(there.min(left)),
                };
            }
            let packed = self.stream.opening()?.ok_or(Error::Corrupt("an entry has no end"))?;
            if packed.mtype == Reply::DATA {
                if content.is_interrupted || self.entry.metadata().kind() != Kind::Regular {
                    return Err(Error::Corrupt("bytes of no file"));
                }
                content.left = packed.length.into();
                continue;
            }
            self.stream.text(packed, &mut self.text)?;
            if content.is_interrupted {
                let arrived = content.arrived;
                content.is_interrupted = false;
                self.check_goes_on(packed.mtype, arrived)?;
                continue;
            }
            match Reply::decode(packed.mtype, &self.text)? {
                Reply::End(Some(trailer)) => {
                    content.verify(&trailer)?;
                    self.has_changed = trailer.changed;
                    self.end_entry();
                    return Ok(0);
                }
                Reply::Failure(failure) => {
                    let error = failed(failure);
                    self.end_entry();
                    return Err(error);
                }
                _ => return Err(Error::Corrupt("an entry has no end")),
            }
        }
    }

    /// Whether the message announces the rest of the entry; otherwise it is one to be heeded next.
    fn check_goes_on(&mut self, mtype: MessageType, arrived: u64) -> Result<(), Error> {
        let place = self.place();
        let mut error = Error::Failed {
            text: "it went while the server was away".to_owned(),
            errno: Some(Errno::ENOENT),
        };
        if mtype == Reply::META {
            let next = Entry::decode(&self.text)?;
            if next.name == &self.path[place..] {
                let same_kind = next.meta.kind == self.entry.metadata().kind();
                if same_kind && next.meta.offset == arrived {
                    return Ok(());
                }
                self.again = true;
                error = Error::FileChanged;
            }
        }
        self.held = Some(mtype);
        self.state = if self.in_top { State::Between } else { State::New };
        Err(error)
    }

    /// Counts bytes as taken.
    fn consume_content(&mut self, count: usize) {
        let State::InEntry(content) = &mut self.state else { return };
        let bytes = &self.stream.bytes()[..count];
        content.checksum.update(bytes);
        if content.counted != content.arrived {
            content.checksum_counted.update(bytes);
        }
        content.left -= count as u64;
        content.arrived += count as u64;
        content.counted += count as u64;
        self.stream.take(count);
    }

    fn end_entry(&mut self) {
        self.state = if self.in_top { State::Between } else { State::Ended };
    }

    /// Asks for the rest, or takes down that there will be none.
    fn go_on(&mut self, lost: Error) {
        if let Err(error) = self.try_go_on(lost) {
            self.failed = Some(error);
        }
    }

    fn try_go_on(&mut self, lost: Error) -> Result<(), Error> {
        let mut arrived = match &self.state {
            State::InEntry(content) => Some((content.arrived, content.checksum.clone().finalize())),
            // Asked for once more, and not seen since.
            State::Between if self.again => Some((0, 0)),
            State::New | State::Between | State::Ended => None,
        };
        self.held = None;
        if self.path.len() > MAX_START {
            // From the last directory on that can be named.
            let nameable = self.entered.iter().rposition(|&end| end <= MAX_START);
            let end = nameable.map_or(0, |i| self.entered[i]);
            self.entered.truncate(nameable.unwrap_or(0));
            self.path.truncate(end);
            self.state = State::Between;
            self.again = true;
            arrived = Some((0, 0));
        }
        self.stream.go_on(Start { path: &self.path, arrived }, lost)?;
        match &mut self.state {
            State::InEntry(content) => {
                content.left = 0;
                (content.counted, content.checksum_counted) = (0, crc32fast::Hasher::new());
                content.is_interrupted = true;
            }
            State::Between if self.path.is_empty() => {
                self.in_top = false; // the top comes again
                self.state = State::New;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Content {
    /// What arrived since the last request is what was sent.
    fn verify(&self, trailer: &Trailer) -> Result<(), Error> {
        let counted = match self.counted == self.arrived {
            true => &self.checksum,
            false => &self.checksum_counted,
        };
        if trailer.bytes != self.counted {
            return Err(Error::Corrupt("not as many bytes arrived as were sent"));
        }
        if trailer.checksum != counted.clone().finalize() {
            return Err(Error::Corrupt("the checksum is not that of the bytes sent"));
        }
        Ok(())
    }
}

impl WalkEntry<'_> {
    /// Where it is below the top, which itself has an empty path. Longer than any path that system
    /// calls take (`PATH_MAX`) where the tree is very deep.
    pub fn path(&self) -> &Path {
        let path = &self.walk.path;
        Path::new(OsStr::from_bytes(path.strip_suffix(b"/").unwrap_or(path)))
    }

    /// Its name: a single one, neither "." nor "..", without a slash. Empty for the top.
    pub fn name(&self) -> &OsStr {
        self.walk.entry.name()
    }

    /// How far below the top: 0 for that itself, 1 for what is in it.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// What it is.
    pub fn metadata(&self) -> &Metadata {
        self.walk.entry.metadata()
    }

    /// Where a symbolic link leads; empty if it may not be read.
    pub fn target(&self) -> Option<&Path> {
        self.walk.entry.target()
    }

    /// Why it did not arrive, or not to its end: the caller may not read it, it went, reading it
    /// failed. Its kind is then unknown. The rest of the tree comes nevertheless.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Whether a file that was read to its end changed meanwhile: the bytes may be of both states.
    pub fn has_changed(&self) -> bool {
        self.walk.has_changed
    }

    /// Whether nothing more will come.
    pub(super) fn is_fatal(&self) -> bool {
        self.walk.failed.is_some()
    }
}

impl BufRead for WalkEntry<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(error) = &self.error {
            return Err(error.clone().into());
        }
        match self.walk.fill_content() {
            Ok(there) => Ok(&self.walk.stream.bytes()[..there]),
            Err(error) => {
                self.error = Some(error.clone()); // whoever reads on gets it again
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
