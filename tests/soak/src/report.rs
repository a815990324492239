//! What a soak test found: figures for people, and reasons why it failed.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// The reasons why the test failed. Figures are printed at once.
#[derive(Debug, Default)]
pub struct Report(Vec<String>);

impl Report {
    /// Prints a figure.
    pub fn row(&self, name: impl Display, value: impl Display) {
        print(&format!("{name:<48}  {value}"));
    }

    /// Prints a number, which must be 0.
    pub fn none(&mut self, name: &str, count: usize) {
        self.row(name, count);
        self.check(count == 0, || format!("{name}: {count}, not 0"));
    }

    pub fn check(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        if !holds {
            self.wrong(wrong());
        }
    }

    /// Adds a reason why the test failed.
    pub fn wrong(&mut self, reason: impl Into<String>) {
        self.0.push(reason.into());
    }

    /// Exit status 0 only if everything held.
    pub fn finish(self) -> ExitCode {
        self.0.iter().for_each(|wrong| print(&format!("WRONG: {wrong}")));
        if !self.0.is_empty() {
            return ExitCode::FAILURE;
        }
        print("everything held");
        ExitCode::SUCCESS
    }
}

/// If standard output is closed, the exit status still tells.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
