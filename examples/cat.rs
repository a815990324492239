//! Prints files of a server, like cat.
//!
//! ```sh
//! cargo run --example cat -- /etc/hostname
//! ```

use std::io;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = std::env::var("MQFS_KEY").map_or(Ok(mqfs::DEFAULT_KEY), |key| key.parse())?;
    let client = mqfs::Client::connect(key)?;
    for path in std::env::args_os().skip(1) {
        // An error here means that what came is not the whole file, or not what was sent.
        io::copy(&mut client.open(&path)?, &mut io::stdout().lock())?;
    }
    Ok(())
}
