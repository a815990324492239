//! A terminal for programs under test.

use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};

use crate::wait_until;

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
    #[track_caller]
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

    /// All bytes so far.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_until(text, || self.written().contains(text));
    }
}
