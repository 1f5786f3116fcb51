//! One signal that ends everything.
use tokio::sync::watch;

/// Ends what waits on the matching [`Shutdown`]; dropping it does the same.
#[derive(Debug)]
pub struct ShutdownHandle(watch::Sender<bool>);

/// Tells when to end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// A signal and what gives it.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> (ShutdownHandle, Self) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownHandle(sender), Self(receiver))
    }

    /// Ends when shutdown begins, at once if it has begun.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        // A dropped handle is a shutdown, too.
        let _ = receiver.wait_for(|begun| *begun).await;
    }

    pub fn begun(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

impl ShutdownHandle {
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}
