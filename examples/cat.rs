//! Prints files of a server, like cat.
//!
//! ```sh
//! cargo run --example cat -- /etc/hostname
//! ```

use std::io;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = std::env::var("MQFS_KEY").map_or(Ok(mqfs::DEFAULT_KEY), |key| key.parse())?;
    let client = mqfs::Client::new(key);
    for path in std::env::args_os().skip(1) {
        // The copy succeeds only if the whole file arrived and was verified.
        io::copy(&mut client.open(&path)?, &mut io::stdout().lock())?;
    }
    Ok(())
}
