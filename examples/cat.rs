//! Prints files of a server, like cat.
//!
//! ```sh
//! cargo run --example cat -- /etc/hostname
//! ```

use std::io;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = std::env::var("MQFS_KEY").map_or(Ok(mqfs::DEFAULT_KEY), |key| key.parse())?;
    let client = mqfs::Client::new(key);
    let mut files = client.open_all(std::env::args_os().skip(1));
    while let Some(file) = files.next_file() {
        // The copy succeeds only if the whole file arrived and was verified.
        io::copy(file?, &mut io::stdout().lock())?;
    }
    Ok(())
}
