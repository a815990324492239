//! The parts of this program that are measured, each as a process of its own.
//!
//! ```text
//! speed worker clients N WINDOW_MS SOURCE            closed-loop clients: prints requests
//! speed worker crowd N TIMES SOURCE                  clients that start at once: prints seconds
//! speed worker turns ROUNDS SOURCE…                  requests in turns: prints medians in µs
//! speed worker spin                                  keeps a core busy until it is ended
//! ```

mod clients;
mod source;
mod turns;

use std::process::ExitCode;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// # Panics
/// If the arguments are wrong or the work fails. The parent process checks the exit status.
pub(crate) fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    set_pdeathsig(Signal::SIGTERM).expect("prctl");
    let role = arguments.next().expect("a role");
    let arguments: Vec<String> = arguments.collect();
    match &*role {
        "clients" => clients::main(&arguments),
        "crowd" => clients::crowd(&arguments),
        "turns" => turns::main(&arguments),
        "spin" => loop {
            std::hint::spin_loop();
        },
        _ => panic!("{role}: no such role"),
    }
    ExitCode::SUCCESS
}
