//! A controller: one process owns something, and any number of others send it commands.
//!
//! With `--led FILE` this program makes the queue under a well-known key, receives commands and
//! switches an LED: it writes to FILE, `/sys/class/leds/NAME/brightness`. Without, it sends one
//! command and ends. Type 1 switches, with `on` or `off` in the text; type 2 ends the controller.
//! It carries out commands in the order in which they were sent, and leaves the LED as it found it.
//!
//! An LED with a trigger is switched by the kernel, too: `echo none >
//! /sys/class/leds/NAME/trigger`.

mod classic;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use sysv_ipc::{Key, MessageBuffer, MessageType, Queue, ReceiveError, Select};

use classic::{complain, own, say};

/// Switch an LED by messages
///
/// controller --led FILE waits for commands; controller on, off or exit sends one.
#[derive(Debug, Parser)]
struct Opts {
    /// Key of the queue
    #[arg(short, long, default_value = "0x0c1a0003")]
    key: Key,
    /// Control this LED: /sys/class/leds/NAME/brightness
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    led: Option<PathBuf>,
    /// Send a command to the controller
    #[arg(required_unless_present = "led")]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Command {
    On,
    Off,
    Exit,
}

const SWITCH: MessageType = MessageType::new(1).unwrap();
const EXIT: MessageType = MessageType::new(2).unwrap();

fn main() -> ! {
    let opts = Opts::parse();
    classic::main(0, || match opts.command {
        None => control(opts.key, opts.led.unwrap_or_default()),
        Some(Command::On) => send(opts.key, SWITCH, "on"),
        Some(Command::Off) => send(opts.key, SWITCH, "off"),
        Some(Command::Exit) => send(opts.key, EXIT, "exit"),
    })
}

fn send(key: Key, mtype: MessageType, text: &str) -> Result<()> {
    // Without waiting: if the controller does not keep up, its users must not hang.
    classic::find_server(key)?.try_send(&MessageBuffer::with_text(mtype, text.as_bytes()))?;
    Ok(())
}

fn control(key: Key, led: PathBuf) -> Result<()> {
    let found = fs::read_to_string(&led).with_context(|| led.display().to_string())?;
    let brightest = fs::read_to_string(led.with_file_name("max_brightness"));
    let brightest = brightest.unwrap_or_else(|_| "1".to_owned());
    classic::lock(key)?;
    let queue = classic::server_queue(key)?;
    let restored = led.clone();
    own(|| Ok::<_, anyhow::Error>(()), move |()| switch(&restored, &found))?;
    say(format!("controller: ready: key {key}, queue {}", queue.id()));
    obey(queue, &led, &brightest)
}

/// Carries out commands until `exit`.
fn obey(queue: Queue, led: &Path, brightest: &str) -> Result<()> {
    let mut message = MessageBuffer::with_capacity(16); // what is longer is no command
    loop {
        match queue.receive_truncated(&mut message, Select::Any) {
            Err(ReceiveError::Interrupted) => continue,
            received => received?,
        }
        let text = String::from_utf8_lossy(message.text());
        match (message.mtype(), text.trim_end_matches('\0')) {
            (SWITCH, "on") => switch(led, brightest)?,
            (SWITCH, "off") => switch(led, "0")?,
            (EXIT, _) => return Ok(()),
            // Anybody can send anything.
            (mtype, text) => complain(format!("no command: type {}, {text:?}", mtype.get())),
        }
    }
}

/// Writes to the file of an LED. A file that does not exist is no LED, and is not made.
fn switch(led: &Path, brightness: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(led)?;
    Ok(writeln!(file, "{}", brightness.trim())?)
}
