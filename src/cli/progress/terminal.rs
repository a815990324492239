//! stderr, as far as a line on it goes.

use std::io::{self, IsTerminal};

use nix::unistd::{getpgrp, tcgetpgrp};
use terminal_size::{Width, terminal_size_of};

use crate::sys::nonblocking_write;

/// To the beginning of the line, and everything on it gone: console_codes(4).
const CLEAR: &str = "\r\x1b[2K";

/// Whether stderr is a terminal on which a line can be drawn, and drawn over.
pub(super) fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stderr().is_terminal() && !is_dumb
}

/// Whether to use colours: <https://no-color.org>.
pub(super) fn has_colours() -> bool {
    is_there() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// How many columns there are.
pub(super) fn width() -> u16 {
    match terminal_size_of(io::stderr()) {
        Some((Width(columns), _)) if columns > 0 => columns,
        _ => 80,
    }
}

/// Draws over the line, and leaves the cursor at its beginning: what the terminal echoes then, as
/// `^C`, goes with the next [`clear`]. Whether there was room for it.
pub(super) fn draw(text: &str) -> bool {
    if is_there() {
        write(&format!("{CLEAR}{text}\r"))
    } else {
        write(&format!("\r{text:<columns$}", columns = usize::from(width()) - 1))
    }
}

/// Leaves nothing of the line. Where it was not drawn on a terminal it stays, and ends.
pub(super) fn clear() {
    write(if is_there() { CLEAR } else { "\n" });
}

/// Writes if that does not have to wait. A terminal that another job has the foreground of is not ours
/// to draw on, and may stop us if we do: `TOSTOP`, termios(3).
fn write(text: &str) -> bool {
    let stderr = io::stderr();
    let is_others = tcgetpgrp(&stderr).is_ok_and(|foreground| foreground != getpgrp());
    !is_others && nonblocking_write::write(stderr, text.as_bytes()).is_ok()
}
