//! Opens what a question names, with the rights of the caller.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::answer_writer::AnswerWriter;
use super::failure::{SendFailure, Unanswerable};
use super::file::OpenedFile;
use super::listing::Listing;
use super::source::Source;
use crate::server::confine::Confined;
use crate::server::resolve::{Entered, Export, PathFd, entry};
use crate::sys::mode_without_acl;
use crate::wire::{Entry, Kind, Operation, Question};

pub(crate) struct Opened {
    meta: Entry<'static>,
    /// Where a symbolic link leads.
    target: Vec<u8>,
    content: Content,
}

enum Content {
    Nothing,
    File(OpenedFile),
    Directory(Listing),
}

impl Opened {
    /// Opens what a question names. It may begin below the directory that was entered last, and may
    /// enter another.
    ///
    /// A file system may hang, so answers that are ready leave before a path is looked up there.
    pub(crate) fn new(
        export: &Export,
        caller: &Confined,
        question: &Question<'_>,
        entered: &mut Entered,
        writer: &mut AnswerWriter<'_>,
    ) -> Result<Self, SendFailure> {
        if let Operation::Unknown { .. } = question.operation {
            return Err(Errno::EPROTONOSUPPORT.into());
        }
        let mut found = export.find(caller, question, entered, writer.is_flushed());
        if matches!(found, Err(Errno::EAGAIN)) && !writer.is_flushed() {
            writer.flush()?;
            found = export.find(caller, question, entered, true);
        }
        if question.operation == Operation::Enter {
            *entered = Err(found.as_ref().err().copied().unwrap_or(Errno::ENOTDIR));
        }
        // A root that was removed is found, but nothing below it.
        let may_be_removed = match &found {
            Ok(found) => found.stat.st_nlink == 0,
            Err(errno) => *errno == Errno::ENOENT,
        };
        if may_be_removed && export.is_removed() {
            let text = "the directory that the server serves was removed";
            tracing::warn!("{text}: start the server again");
            return Err(Unanswerable::new(text, Errno::ENOENT).into());
        }
        let mut found = found?;
        let mut meta = entry(&found.stat);
        let (mut target, mut content) = (Vec::new(), Content::Nothing);
        match question.operation {
            Operation::Fetch(range) => {
                let file = open_file(export, caller, &mut found, question, writer)?;
                meta = entry(&found.stat);
                meta.stat.mode =
                    mode_without_acl(&file, found.stat.st_mode, export.is_local(&found.stat));
                let file = OpenedFile::new(file, found, range, writer.wants_extents)?;
                meta.offset = range.offset;
                meta.length = if meta.stat.size == 0 { None } else { file.announced() };
                content = Content::File(file);
            }
            Operation::List => {
                let directory = export.open_directory(&found)?;
                meta.stat.mode = mode_without_acl(&directory, found.stat.st_mode, false);
                content = Content::Directory(Listing::new(directory, found.stat.st_dev)?);
                meta.length = None;
            }
            Operation::Enter if found.kind() == Kind::Directory => *entered = Ok(Some(found)),
            _ => target = found.target()?,
        }
        Ok(Self { meta, target, content })
    }

    pub(super) fn meta(&self) -> Entry<'_> {
        Entry { target: &self.target, ..self.meta }
    }

    pub(super) fn source(&mut self) -> Option<&mut dyn Source> {
        match &mut self.content {
            Content::Nothing => None,
            Content::File(file) => Some(file),
            Content::Directory(listing) => Some(listing),
        }
    }
}

/// Opens a regular file. It checks the kind before: opening a FIFO lets its writer continue, and
/// opening a device may have any effect.
///
/// If another process has a lease on the file (`F_SETLEASE`, fcntl(2)), the first attempt asks that
/// process to give the lease up, which may take a while, and may change the file.
fn open_file(
    export: &Export,
    caller: &Confined,
    found: &mut PathFd,
    question: &Question<'_>,
    writer: &mut AnswerWriter<'_>,
) -> Result<File, SendFailure> {
    /// A client gives up after 30 s, the kernel takes the lease away after 45 s.
    const MAX_LEASE_WAIT: Duration = Duration::from_secs(20);
    const PAUSE: Duration = Duration::from_millis(10);
    match found.kind() {
        Kind::Regular => {}
        Kind::Directory => return Err(Errno::EISDIR.into()),
        Kind::Link => return Err(Errno::ELOOP.into()), // below a directory, where none is followed
        kind => {
            let text = format!("Is a {kind}, not a regular file");
            return Err(Unanswerable::new(text, Errno::EOPNOTSUPP).into());
        }
    }
    if let Some(file) = export.open_again(caller, found, question) {
        return Ok(file);
    }
    let mut since = None;
    loop {
        match export.open_file(found) {
            Err(Errno::EAGAIN)
                if since.get_or_insert_with(Instant::now).elapsed() > MAX_LEASE_WAIT =>
            {
                // Not EAGAIN, for which the client would ask again.
                let text = "another process holds a lease on the file";
                return Err(Unanswerable::new(text, Errno::EBUSY).into());
            }
            Err(Errno::EAGAIN) => {
                writer.flush()?;
                writer.outbox.check_client()?;
                thread::sleep(PAUSE);
                found.stat = fstat(&*found)?;
            }
            outcome => return Ok(outcome?),
        }
    }
}
