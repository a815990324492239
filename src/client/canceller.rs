use super::reply_watch::Watch;

/// Stops a client from another thread: removes its reply queues, so that every wait on one fails
/// with [`ErrorKind::Cancelled`](super::ErrorKind::Cancelled), and lets it create no new ones.
///
/// ```no_run
/// use std::{thread, time::Duration};
///
/// let client = mqfs::Client::new(mqfs::DEFAULT_KEY);
/// let canceller = client.canceller();
/// thread::spawn(move || {
///     thread::sleep(Duration::from_secs(60));
///     canceller.cancel();
/// });
/// let transfer = client.open("/var/log/wtmp")?;
/// # Ok::<(), mqfs::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Canceller(pub(super) Watch);

impl Canceller {
    /// Stops the client and its clones for good.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}
