//! The terminal's alternate screen, which is left as it was found.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::sys::terminal::{self, Keys};

/// The alternate screen, for as long as this lives. Source: "xterm Control Sequences".
#[derive(Debug)]
pub(super) struct Screen {
    /// None where standard input is no terminal.
    keys: Option<Keys>,
}

/// Switches to it, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

impl Screen {
    /// Keys first: a program in the background is stopped by the kernel there, before it has written
    /// over the shell's screen (`SIGTTOU`).
    pub(super) fn enter() -> Self {
        let keys = Keys::of(io::stdin()).ok();
        say(ENTER);
        Self { keys }
    }

    pub(super) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// What makes the screen show this text, as far as there is room, and nothing else.
    pub(super) fn frame(&self, text: &str) -> String {
        let (lines, columns) = terminal::size(io::stdout()).unwrap_or((24, 80));
        let all = text.lines().count();
        // The last line tells what is not shown.
        let shown = if all > lines { lines - 1 } else { all };
        let mut frame = "\x1b[H".to_owned();
        for (number, line) in text.lines().take(shown).enumerate() {
            let line: String = line.chars().take(columns).collect();
            let end = if number + 1 < lines { "\n" } else { "" };
            let _ = write!(frame, "{line}\x1b[K{end}");
        }
        if shown < all {
            let rest = format!("... and {} lines more", all - shown);
            let rest: String = rest.chars().take(columns).collect();
            let _ = write!(frame, "{rest}\x1b[K");
        } else if shown < lines {
            frame.push_str("\x1b[J");
        }
        frame
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        say(LEAVE);
    }
}

fn say(sequence: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(sequence.as_bytes()).and_then(|()| stdout.flush());
}
