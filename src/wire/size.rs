//! How large messages may be.

/// The longest path, in bytes without its NUL: `PATH_MAX` - 1.
pub const MAX_PATH: usize = 4095;

/// The most bytes of `mtext` in a valid request.
pub const MAX_REQUEST: usize = 8192;

/// The most bytes of `mtext` in a request that every plain server accepts: an id, and a path of 256
/// bytes. TLPI's server accepts 4,100, and exits when a request is larger (`E2BIG`).
pub const MAX_PLAIN_REQUEST: usize = 260;

/// The most bytes of `mtext` in a message to a plain client. Its buffer may be no larger.
pub const MAX_PLAIN_REPLY: usize = 4096;

/// The most bytes of `mtext` in a message to an extended client.
pub const MAX_REPLY: usize = 65_536;
