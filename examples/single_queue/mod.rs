//! What single_queue_server and single_queue_client share: the messages, and where they go.
//!
//! A request is `{mtype 1, i32 id, body}`, an answer `{mtype id, i32 status, body}`. A body is at most
//! 256 bytes, and ends with a NUL, which counts. The classic design has one queue for both. Beside it,
//! for comparison and with the same programs: two queues, where the answers have a queue of their own,
//! and a queue per client, where the id is that of a queue which the client made for its answers.

use clap::Args;
use sysv_ipc::{Key, MessageBuffer, MessageType};

/// The type of a request.
pub(super) const REQUEST: MessageType = MessageType::new(1).unwrap();

/// The most bytes of a body, with its NUL.
pub(super) const BODY: usize = 256;

/// The most bytes of a message of either kind.
pub(super) const LARGEST: usize = size_of::<i32>() + BODY;

/// The status of an answer to a request in order; the server has others for those that are not.
pub(super) const OK: i32 = 0;

/// Which queues there are.
#[derive(Debug, Args)]
pub(super) struct Queues {
    /// Key of the queue: 0x and hexadecimal digits, or a decimal number
    #[arg(short, long, value_name = "KEY", default_value = "0x0c1a0001", value_parser = crate::classic::key)]
    pub(super) key: Key,
    /// Two queues: answers go to the queue under this key
    #[arg(long, value_name = "KEY", conflicts_with = "per_client", value_parser = crate::classic::key)]
    pub(super) reply_key: Option<Key>,
    /// A queue per client: answers go to a private queue, whose id is that of the request
    #[arg(long)]
    pub(super) per_client: bool,
}

/// A message of either kind: its number is an id or a status.
pub(super) fn message(mtype: MessageType, number: i32, body: &[u8]) -> MessageBuffer {
    let mut mtext = number.to_ne_bytes().to_vec();
    mtext.extend_from_slice(body);
    mtext.push(0);
    MessageBuffer::with_text(mtype, &mtext)
}

/// The number of a message and its body; None without a number, or without a NUL.
pub(super) fn decode(mtext: &[u8]) -> Option<(i32, &[u8])> {
    let (number, body) = mtext.split_first_chunk()?;
    let end = body.iter().position(|&byte| byte == 0)?;
    Some((i32::from_ne_bytes(*number), &body[..end]))
}

/// The type of answers to this id, unless they could not be told from requests.
pub(super) fn answer_type(id: i32) -> Option<MessageType> {
    MessageType::new(id.into()).filter(|&mtype| mtype != REQUEST)
}
