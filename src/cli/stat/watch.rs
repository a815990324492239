//! `mqfs-stat --watch`: shows the state again and again, with rates.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Result;
use console::{Term, is_dumb, truncate_str};

use super::state::{KeyState, Target};
use super::{PROGRAM, json, tables};
use crate::cli::table::utc;
use crate::cli::{INTERRUPTED, signals, stdout};
use crate::sys::{self, nonblocking_write};

/// Shows the state until a signal: in place on a terminal, else one after the other.
pub(super) fn watch(target: Target, every: Duration, json: bool) -> Result<u8> {
    stdout::print("")?;
    let in_place = !json && io::stdout().is_terminal() && !is_dumb();
    signals::handle(move || {
        if in_place {
            // Let the shell's prompt begin on a new line, below the ^C that the terminal echoes.
            let _ = nonblocking_write::write(io::stdout(), b"\n");
        }
        sys::exit_now(INTERRUPTED.into());
    })?;
    let mut before: Option<KeyState> = None;
    loop {
        let mut state = KeyState::read(target, true)?;
        if let Some(before) = &before {
            state.compare_with(before);
        }
        let time = utc(state.time);
        let text = if json {
            json::line(&state)
        } else if in_place {
            let (every, tables) = (humantime::format_duration(every), tables::tables(&state));
            let text = format!("{time}, every {every}; Ctrl-C ends it\n{tables}");
            frame(&text, Term::stdout().size())
        } else {
            format!("{time}\n\n{}\n", tables::tables(&state))
        };
        stdout::print_or_complain(PROGRAM, &text)?;
        before = Some(state);
        stdout::sleep(every)?;
    }
}

/// Text that replaces what a terminal shows, cut to its size. The cursor ends below it.
///
/// Source: console_codes(4).
fn frame(text: &str, (lines, columns): (u16, u16)) -> String {
    const HOME: &str = "\x1b[H";
    const REST_OF_LINE: &str = "\x1b[K";
    const REST_OF_SCREEN: &str = "\x1b[J";
    // The last line of the terminal is the cursor's.
    let (all, room) = (text.lines().count(), usize::from(lines).saturating_sub(1).max(1));
    let shown = if all > room { room - 1 } else { all };
    let mut frame = String::from(HOME);
    let more = (shown < all).then(|| format!("... and {} lines more", all - shown));
    for line in text.lines().take(shown).chain(more.as_deref()) {
        let line = truncate_str(line, columns.into(), "…");
        let _ = writeln!(frame, "{line}{REST_OF_LINE}");
    }
    frame.push_str(REST_OF_SCREEN);
    frame
}
