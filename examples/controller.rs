//! A controller: commands with types, from any number of senders, for something that one process owns.
//!
//! With `--led FILE` this process makes the queue under a well-known key, receives commands and switches
//! an LED through the kernel's LED class: it writes to FILE, `/sys/class/leds/NAME/brightness`. Without,
//! it sends one command and ends. Type 1 switches, with `on` or `off` in the text; type 2 ends the
//! controller. Commands are carried out in the order in which they were sent. On every way out but
//! SIGKILL the queue is removed and the LED is as it was found.
//!
//! An LED with a trigger is switched by the kernel, too: `echo none > /sys/class/leds/NAME/trigger`.

mod classic;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use sysv_ipc::{Key, MessageBuffer, MessageType, Mode, Queue, ReceiveError, Select};

use classic::{PROGRAM, Stop, complain, is_stopping, own, say};

/// Switch an LED by messages
///
/// controller --led FILE waits for commands; controller on, off or exit sends one.
#[derive(Debug, Parser)]
#[command(after_help = classic::EXIT_STATUS)]
struct Opts {
    /// Key of the queue: 0x and hexadecimal digits, or a decimal number
    #[arg(short, long, value_name = "KEY", default_value = "0x0c1a0003", value_parser = classic::key)]
    key: Key,
    /// Be the controller of this LED: /sys/class/leds/NAME/brightness
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "command",
        conflicts_with = "command"
    )]
    led: Option<PathBuf>,
    /// Say what is done
    #[arg(short, long)]
    verbose: bool,
    /// Send a command to the controller
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

/// More than any command needs; what is longer is none.
const LONGEST: usize = 16;

fn main() -> ! {
    classic::main(|| {
        let opts: Opts = classic::parse();
        match (&opts.led, opts.command) {
            (Some(file), _) => control(&opts, file),
            (None, Some(command)) => send(&opts, command),
            (None, None) => Err(Stop::unavailable("neither --led nor a command")),
        }
    })
}

fn send(opts: &Opts, command: Command) -> Result<(), Stop> {
    let (mtype, text) = match command {
        Command::On => (SWITCH, "on"),
        Command::Off => (SWITCH, "off"),
        Command::Exit => (EXIT, "exit"),
    };
    let queue = classic::find("controller", opts.key)?;
    // A controller that does not keep up must not hang its users.
    queue.try_send(&MessageBuffer::with_text(mtype, text.as_bytes()))?;
    Ok(())
}

fn control(opts: &Opts, file: &Path) -> Result<(), Stop> {
    let led = Led::open(file)?;
    classic::stop_on_signals()?;
    classic::lock(opts.key)?;
    let queue = own(|| make_queue(opts.key), Queue::remove)?;
    say(format!(
        "{PROGRAM}: ready: key {}, queue {}, LED {}",
        opts.key,
        queue.id(),
        file.display()
    ));
    let obeyed = obey(queue, &led, opts.verbose);
    led.write(&led.found)?;
    obeyed
}

/// What lies under the key is another program's, or a killed controller's: that is not for us to say.
fn make_queue(key: Key) -> Result<Queue, Stop> {
    Queue::create(key, Mode::new(0o600)).map_err(|error| match error {
        error if error.already_exists() => Stop::unavailable(format!(
            "key {key} is taken, and not by a controller that lives; \
             if it is nobody's: ipcrm -Q {key}"
        )),
        _ => error.into(),
    })
}

/// Receives commands until `exit` or a signal.
fn obey(queue: Queue, led: &Led, verbose: bool) -> Result<(), Stop> {
    let mut message = MessageBuffer::with_capacity(LONGEST);
    loop {
        match queue.receive_truncated(&mut message, Select::Any) {
            Ok(()) => {}
            Err(ReceiveError::Interrupted) => continue,
            Err(ReceiveError::Gone) if is_stopping() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let text = String::from_utf8_lossy(message.text());
        let text = text.trim_end_matches(['\0', '\n']);
        match (message.mtype(), text) {
            (SWITCH, "on") => led.write(&led.brightest)?,
            (SWITCH, "off") => led.write("0")?,
            (EXIT, _) => return Ok(()),
            // Anybody can send anything.
            (mtype, _) => {
                complain(format!("no command: type {}, {text:?}", mtype.get()));
                continue;
            }
        }
        if verbose {
            complain(text);
        }
    }
}

struct Led {
    file: PathBuf,
    found: String,
    brightest: String,
}

impl Led {
    fn open(file: &Path) -> Result<Self, Stop> {
        let read = |file: &Path| fs::read_to_string(file).map(|text| text.trim().to_owned());
        let found = read(file).map_err(|error| Stop::unavailable(about(file, &error)))?;
        let brightest = read(&file.with_file_name("max_brightness")).unwrap_or("1".to_owned());
        Ok(Self { file: file.to_owned(), found, brightest })
    }

    fn write(&self, brightness: &str) -> Result<(), Stop> {
        // Never made: a file that is missing is no LED.
        let written = fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&self.file)
            .and_then(|mut file| file.write_all(format!("{brightness}\n").as_bytes()));
        written.map_err(|error| Stop::failed(about(&self.file, &error)))
    }
}

fn about(file: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", file.display())
}
