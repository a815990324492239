//! Answers a question: opens what it names, and sends META, DATA, DATA, …, END.

use nix::errno::Errno;

use super::answer_writer::AnswerWriter;
use super::failure::{SendFailure, Unanswerable};
use super::open::Opened;
use crate::server::confine::{Confined, Sandbox};
use crate::server::resolve::{Entered, Export};
use crate::wire::{Question, Tally, Trailer};

/// Answers a question, but does not send its failure. Seals the sandbox once the file is open.
pub(crate) fn answer(
    export: &Export,
    caller: &Confined,
    question: &Question<'_>,
    entered: &mut Entered,
    sandbox: Option<&Sandbox>,
    writer: &mut AnswerWriter<'_>,
) -> Result<Trailer, SendFailure> {
    let mut open = || Opened::new(export, caller, question, entered, writer);
    let opened = match open() {
        // A file that is moved out of the root meanwhile is not found (EXDEV), or Landlock does not
        // let it be opened. Another one may be in its place by now.
        Err(SendFailure::Unanswerable(why))
            if matches!(why.errno, Errno::EACCES | Errno::EXDEV) =>
        {
            open()
        }
        outcome => outcome,
    };
    let mut opened = opened?;
    if let Some(sandbox) = sandbox {
        sandbox.seal().map_err(|errno| {
            Unanswerable::new("the server lacks resources to confine itself", errno)
        })?;
    }
    writer.meta(&opened.meta())?;
    let mut trailer = Trailer { bytes: 0, checksum: 0, changed: false };
    if let Some(source) = opened.source() {
        let mut tally = Tally::default();
        loop {
            let extents = source.new_extents();
            if !extents.is_empty() {
                writer.extents(extents)?;
            }
            let hole = source.skip_hole()?;
            if hole > 0 {
                tally.add_zeros(hole);
            }
            if writer.data(source, &mut tally)? == 0 {
                break;
            }
        }
        (trailer.bytes, trailer.checksum) = (tally.bytes, tally.checksum);
        trailer.changed = source.has_changed()?;
    }
    writer.end(&trailer)?;
    if sandbox.is_some() {
        // Closing a file may take for ever, and the end was not sent yet. The exit closes it.
        std::mem::forget(opened);
    }
    Ok(trailer)
}
