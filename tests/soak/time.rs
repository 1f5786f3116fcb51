//! Hours that pass in seconds: the runtime's own clock stands still and jumps whenever nothing is left to be done, and the
//! program's clock follows it.
use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use portalkeeper::api::clock::Clock;
use portalkeeper::http::double::lock;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// The time of all runtimes after each other.
pub struct VirtualClock(Mutex<(Timestamp, Option<Instant>)>);

impl VirtualClock {
    pub fn new(start: Timestamp) -> Self {
        Self(Mutex::new((start, None)))
    }
    /// Goes on with the runtime that this is called in.
    pub fn go_on(&self) {
        lock(&self.0).1 = Some(Instant::now());
    }
    /// Stands until it goes on with another runtime.
    pub fn stand(&self) {
        let now = self.now();
        *lock(&self.0) = (now, None);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let (base, since) = *lock(&self.0);
        let passed = since.map_or(Duration::ZERO, |since| since.elapsed());
        base.saturating_add(SignedDuration::try_from(passed).unwrap()).unwrap()
    }
}

/// A runtime of one thread whose time jumps.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Keeps the time from jumping for as long as it is held: for what is worked on by threads that the runtime knows nothing of,
/// as those of the database.
pub struct Still(#[allow(dead_code, reason = "dropping it is what counts")] std::sync::mpsc::Sender<()>);

pub fn still() -> Still {
    let (held, dropped) = std::sync::mpsc::channel::<()>();
    // The time of a runtime does not jump while it has a blocking task.
    tokio::task::spawn_blocking(move || {
        let _ = dropped.recv();
    });
    Still(held)
}

/// Bounds how far the time jumps while the program waits for its own database, which [`Still`] cannot be held for: a second
/// of it takes some microseconds of the machine's.
pub async fn govern() {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::thread::sleep(Duration::from_micros(10));
    }
}
