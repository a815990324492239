//! The default key, and the modes by which mqfs's queues and segments are recognised.

use sysv_ipc::{Key, Mode};

/// The default key of the request queue, that of TLPI's file server.
pub const DEFAULT_KEY: Key = Key::new(0x1aaa_aaa1);

/// Our mark on a queue, from the instant of its creation: the x bits, which the kernel ignores.
pub const MARK: Mode = Mode::new(0o111);

/// Only owner and creator can read or write.
pub const REPLY_QUEUE_MODE: Mode = Mode::new(0o711);

/// The mode of a request queue that only its owner may write to. The w bits let group and others
/// send requests. The r bits stay clear, since requests contain cookies.
pub const REQUEST_QUEUE_MODE: Mode = Mode::new(0o600).with(MARK);

/// The mode of a segment of shared memory. The mark tells it from those of other programs.
pub const WINDOW_MODE: Mode = Mode::new(0o600).with(MARK);

/// Whether a mode marks a server's queue. One that others may read, like 0777, is other software's.
pub const fn is_request_queue_mode(mode: Mode) -> bool {
    mode.without(Mode::new(0o022)).bits() == REQUEST_QUEUE_MODE.bits()
}
