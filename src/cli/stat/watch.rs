//! `mqfs-stat --watch`: again and again, with rates, until a key or a signal.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal, raise};

use super::look::Look;
use super::rates::Since;
use super::screen::Screen;
use super::{PROGRAM, json, report};
use crate::cli::console::{Console, Event};
use crate::cli::table::utc;
use crate::cli::{INTERRUPTED, NOBODY_READS};
use crate::sys::signals;
use sysv_ipc::Key;

/// Shows it every so often: in its place on a terminal, else one after the other.
pub(super) fn watch(key: Key, every: Duration, json: bool) -> Result<ExitCode> {
    // What is wrong from the beginning is said in a line, and not on a screen.
    let look = Look::now(key)?;
    let on_screen = !json && io::stdout().is_terminal();
    let console = Console::new(PROGRAM, handled(on_screen))?;
    let mut watch =
        Watch { console, on_screen, screen: None, key, every, json, before: None, look };
    let end = watch.run();
    drop(watch); // leaves the screen before anything is said of an error
    Ok(ExitCode::from(match end? {
        Event::Key(_) => 0,
        Event::Signal(_) => INTERRUPTED,
        Event::NobodyReads => NOBODY_READS,
    }))
}

/// Every signal that would end the program before it has left the screen, and those that change the
/// screen; not those of a program that is broken, nor of one in the background that is stopped.
fn handled(on_screen: bool) -> SigSet {
    const NOT: [Signal; 12] = [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGABRT,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGCHLD,
        Signal::SIGURG,
        Signal::SIGPIPE, // an error of write(2) instead
    ];
    const SCREENS: [Signal; 3] = [Signal::SIGWINCH, Signal::SIGTSTP, Signal::SIGCONT];
    let mut handled = SigSet::all();
    NOT.into_iter().for_each(|signal| handled.remove(signal));
    if !on_screen {
        SCREENS.into_iter().for_each(|signal| handled.remove(signal));
    }
    // What is held back is not ignored any more, as under nohup(1): signal(7).
    Signal::iterator()
        .filter(|signal| signals::is_ignored(*signal))
        .for_each(|signal| handled.remove(signal));
    handled
}

struct Watch {
    console: Console,
    on_screen: bool,
    /// None also while somebody else has the terminal.
    screen: Option<Screen>,
    key: Key,
    every: Duration,
    json: bool,
    before: Option<Look>,
    look: Look,
}

impl Watch {
    /// What ended it: a key, a signal, or that nobody reads.
    fn run(&mut self) -> Result<Event> {
        let mut next = Instant::now() + self.every;
        self.enter_screen();
        loop {
            let event = self.show().and_then(|()| self.console.sleep_until(next));
            match event {
                Ok(()) => {
                    let look = Look::now(self.key)?;
                    self.before = Some(std::mem::replace(&mut self.look, look));
                    next = Instant::now() + self.every;
                    if self.screen.is_none() {
                        self.enter_screen(); // nobody stopped it: see stop
                    }
                }
                Err(Event::Key(b'q' | b'Q')) => return Ok(Event::Key(b'q')),
                Err(Event::Key(_)) => {}
                Err(Event::Signal(signal)) if signal == Signal::SIGWINCH as i32 => {}
                Err(Event::Signal(signal)) if signal == Signal::SIGTSTP as i32 => self.stop(),
                // Whoever had the terminal meanwhile may have left it in any state.
                Err(Event::Signal(signal)) if signal == Signal::SIGCONT as i32 => {
                    self.leave_screen();
                    self.enter_screen();
                }
                Err(end) => return Ok(end),
            }
        }
    }

    fn show(&self) -> Result<(), Event> {
        let since = self.before.as_ref().and_then(|before| Since::of(before, &self.look));
        if self.json {
            return self.console.write(&json::line(&self.look, since));
        }
        let time = utc(self.look.time);
        let tables = report::tables(&self.look, since);
        match &self.screen {
            None if self.on_screen => Ok(()),
            Some(screen) => {
                let every = humantime::format_duration(self.every);
                let text = format!("{time}, every {every}; q ends it\n\n{tables}");
                self.console.write(&screen.frame(&text))
            }
            None => self.console.write(&format!("{time}\n\n{tables}\n")),
        }
    }

    fn enter_screen(&mut self) {
        if !self.on_screen {
            return;
        }
        let screen = Screen::enter();
        self.console.read_keys(screen.has_keys());
        self.screen = Some(screen);
    }

    fn leave_screen(&mut self) {
        self.console.read_keys(false);
        self.screen = None;
    }

    /// Gives the terminal back and stops, as Ctrl-Z wants it. Once it goes on there is SIGCONT, which
    /// takes the screen again, but for who is to end: that signal has the lower number and comes first.
    /// A program that has no shell to let it go on is not stopped by the kernel, and gets none.
    fn stop(&mut self) {
        self.leave_screen();
        let stop = SigSet::from(Signal::SIGTSTP);
        let _ = raise(Signal::SIGTSTP);
        let _ = stop.thread_unblock(); // stands here
        let _ = stop.thread_block();
    }
}
