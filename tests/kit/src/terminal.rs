//! A terminal for programs under test.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};

use crate::{Running, wait_until};

/// A terminal, and the bytes that were written to it.
#[derive(Debug)]
pub struct Terminal {
    /// Writing here is typing.
    pub keyboard: File,
    /// The program's side.
    pub inside: File,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn new(lines: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let (keyboard, written) = (File::from(pty.master), Arc::<Mutex<Vec<u8>>>::default());
        let (mut from, to) = (keyboard.try_clone().unwrap(), Arc::clone(&written));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: no process has the other end open.
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { keyboard, inside: pty.slave.into(), written }
    }

    /// Starts a program with this terminal, an xterm, as its standard error.
    pub fn start(&self, command: &mut Command) -> Running {
        self.start_on("xterm", command)
    }

    pub fn start_on(&self, kind: &str, command: &mut Command) -> Running {
        command.env("TERM", kind);
        let running = Running::start(command.stderr(self.inside.try_clone().unwrap()));
        command.stdout(Stdio::null()).stderr(Stdio::null()); // it lets go of this terminal
        running
    }

    /// All bytes that were written, once the program has ended.
    #[track_caller]
    pub fn close(mut self) -> String {
        // Do not wait for the end of file: other forked processes may have this terminal open.
        const END: &str = "<end>";
        self.inside.write_all(END.as_bytes()).unwrap();
        wait_until("the end arrives", || self.written().ends_with(END));
        self.written().strip_suffix(END).unwrap().to_owned()
    }

    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_until(text, || self.written().contains(text));
    }
}
