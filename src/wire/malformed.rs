//! Why bytes are not a message.

/// Why bytes are not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    #[error("too short")]
    TooShort,
    #[error("too long")]
    TooLong,
    /// The id of the reply queue is negative. No queue has such an id.
    #[error("a reply queue id below zero")]
    QueueId,
    /// The first `PATH_MAX` bytes of the path contain no NUL.
    #[error("a path without its NUL")]
    UnterminatedPath,
    #[error("no magic")]
    Magic,
    #[error("unknown version {0}")]
    Version(u16),
    #[error("unknown message type {0}")]
    Type(libc::c_long),
    #[error("a field out of range")]
    Field,
}
