//! How bytes leave: what a question names is opened, and becomes the messages of its answer.

mod answer;
mod answer_writer;
mod failure;
mod file;
mod listing;
mod open;
mod outbox;
mod source;
mod window;

pub(super) use answer::answer;
pub(super) use answer_writer::AnswerWriter;
pub(super) use failure::{SendFailure, Unanswerable};
pub(super) use outbox::{Outbox, Undelivered};
pub(super) use window::WindowPolicy;
