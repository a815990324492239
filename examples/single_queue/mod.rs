//! What single_queue_server and its clients share: the messages, and where they go.
//!
//! A request is `{mtype 1, i32 id, body}`, an answer `{mtype id, i32 status, body}`. A body has at
//! most 256 bytes and ends with a NUL, which counts.

#![allow(dead_code)] // no program uses all of this

use clap::Args;
use sysv_ipc::{Key, MessageBuffer, MessageType};

pub(super) const REQUEST: MessageType = MessageType::new(1).unwrap();

/// The most bytes of a body, with its NUL.
pub(super) const BODY: usize = 256;

/// The most bytes of a message.
pub(super) const LARGEST: usize = size_of::<i32>() + BODY;

/// Statuses of answers.
pub(super) const OK: i32 = 0;
pub(super) const MALFORMED: i32 = 1;
pub(super) const TOO_LONG: i32 = 2;

#[derive(Debug, Args)]
pub(super) struct Queues {
    /// Key of the queue
    #[arg(short, long, default_value = "0x0c1a0001")]
    pub(super) key: Key,
    /// Two queues: answers go to the queue under this key
    #[arg(long, value_name = "KEY", conflicts_with = "per_client")]
    pub(super) reply_key: Option<Key>,
    /// A queue per client: answers go to the queue whose id is the id in the request
    #[arg(long)]
    pub(super) per_client: bool,
}

/// A message of either kind: the number is an id or a status.
pub(super) fn message(mtype: MessageType, number: i32, body: &[u8]) -> MessageBuffer {
    MessageBuffer::with_text(mtype, &[&number.to_ne_bytes()[..], body, b"\0"].concat())
}

/// The number of a message and its body; None without a number or a NUL.
pub(super) fn decode(mtext: &[u8]) -> Option<(i32, &[u8])> {
    let (number, body) = mtext.split_first_chunk()?;
    let end = body.iter().position(|&byte| byte == 0)?;
    Some((i32::from_ne_bytes(*number), &body[..end]))
}

/// The type of answers to an id. The type of requests is no client's id.
pub(super) fn answer_type(id: i32) -> Option<MessageType> {
    MessageType::new(id.into()).filter(|&mtype| mtype != REQUEST)
}
