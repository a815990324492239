//! Why bytes are not a message.

/// Why bytes are not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// There are fewer bytes than the message's fixed fields take.
    #[error("too short")]
    TooShort,
    /// There are more bytes than in any valid message.
    #[error("too long")]
    TooLong,
    /// The id of the reply queue is negative. No queue has such an id.
    #[error("a reply queue id below zero")]
    QueueId,
    /// The first `PATH_MAX` bytes of the path contain no NUL.
    #[error("a path without its NUL")]
    UnterminatedPath,
    /// The bytes do not begin with the expected magic.
    #[error("no magic")]
    Magic,
    /// This build does not know the version.
    #[error("unknown version {0}")]
    Version(u16),
    /// The protocol has no such message type.
    #[error("unknown message type {0}")]
    Type(libc::c_long),
    /// A field has an invalid value.
    #[error("a field out of range")]
    Field,
}
