//! Why requests fail or are refused: each reason has a name in the counters and words for the log.

use crate::ownership::liveness::reasons;

/// Makes an enum of reasons whose order is that of their counters.
macro_rules! counted_reasons {
    ($(#[$doc:meta])* $type:ident: $($reason:ident, $name:literal, $words:literal;)+) => {
        reasons! {
            $(#[$doc])*
            $type {
                $($reason = $words,)+
            }
        }

        impl $type {
            /// Every reason, in the order of the counters.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$reason),+];

            /// The reason's name in the counters.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)+
                }
            }
        }
    };
}

counted_reasons! {
    /// Why a child could not answer a question.
    FailureReason:
    NotFound, "not_found", "the path does not exist";
    Denied, "denied", "the caller may not read it";
    NotRegular, "not_regular", "it is a directory, a device, a FIFO or a socket";
    BadPath, "bad_path", "the path is too long, or its links do not end";
    Read, "read", "a read failed, or the file shrank";
    Stalled, "stalled", "the client did not read for the stall timeout";
    ChildDied, "child_died", "the child was killed, or failed";
    Other, "other", "another reason";
    Hung, "hung", "the file system did not answer for the stall timeout";
}

counted_reasons! {
    /// Why the server refused a request and forked no child for it: see "Admission" in
    /// docs/security.md.
    RefusalReason:
    Malformed, "malformed", "malformed";
    NoReplyQueue, "no_reply_queue", "the reply queue does not exist";
    NotPrivate, "not_private", "the reply queue has a key";
    Unreadable, "unreadable",
        "the reply queue cannot be read: it was not handed over to this server";
    UnknownLease, "unknown_lease", "the reply queue's lease is of an unknown version";
    HandedToAnother, "handed_to_another", "the reply queue was handed over to another user";
    Used, "used", "somebody has received from the reply queue before";
    ForAnotherServer, "for_another_server", "the reply queue's lease is for another server";
    NoLease, "no_lease", "the reply queue carries no lease";
    WrongCookie, "wrong_cookie", "the cookie is not that of the reply queue's lease";
    UnknownUid, "unknown_uid", "the caller's uid is unknown in this user namespace";
    UnknownGid, "unknown_gid", "the caller's gid is unknown in this user namespace";
    Plain, "plain", "a plain request, and --plain does not take it";
    PlainForLeased, "plain_for_leased", "a plain request that names an extended client's queue";
    Unsupported, "unsupported", "an extension or operation that this build does not know";
    NoPeek, "no_peek",
        "this kernel has no MSG_COPY: only callers with the server's own uid are served";
    UserBusy, "user_busy", "the user has as many children as one may have";
    ForkFailed, "fork_failed", "fork failed";
    UserHung, "user_hung",
        "the user has as many children as one may have, and a file system does not answer some";
}
