//! Threads for expressions. They have the stack that parser and interpreter may need, there are few of them, and
//! what goes wrong on one stays there.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Expressions that are worked on at once.
const THREADS: usize = 2;
/// Enough for what [`super::bounds`] lets pass, several times; only what is used takes memory.
const STACK: usize = 256 << 20;
/// How long one waits for a thread and its work. The work itself ends earlier, by [`super::meter`].
const PATIENCE: Duration = Duration::from_secs(10);

/// Why nothing came of a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    #[error("the interpreter of rules failed")]
    Failed,
    #[error("the server is busy with other rules; try again later")]
    Busy,
}

type Work = Box<dyn FnOnce() + Send>;

/// Hands out work. `None` where no thread could be started.
fn threads() -> Option<&'static Sender<Work>> {
    static STARTED: OnceLock<Option<Sender<Work>>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let (sender, receiver) = channel::<Work>();
        let receiver = Arc::new(Mutex::new(receiver));
        let started = (0..THREADS).filter(|number| {
            let receiver = Arc::clone(&receiver);
            let thread = std::thread::Builder::new().name(format!("rules-{number}")).stack_size(STACK);
            thread.spawn(move || serve(&receiver)).is_ok()
        });
        if started.count() == 0 {
            tracing::error!(stack = STACK, "no thread for the rules of custom resources could be started");
            return None;
        }
        Some(sender)
    });
    started.as_ref()
}

fn serve(receiver: &Mutex<Receiver<Work>>) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}

/// Does a piece of work on one of the threads. Errors: [`WorkError`].
pub fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkError> {
    let (sender, answer) = channel();
    let wanted = Arc::new(AtomicBool::new(true));
    let still_wanted = Arc::clone(&wanted);
    let work = move || {
        // Nobody waits for it any more.
        if !still_wanted.load(Ordering::Relaxed) {
            return;
        }
        let done = catch_unwind(AssertUnwindSafe(work)).map_err(|_| WorkError::Failed);
        // Whoever asked may be gone.
        let _ = sender.send(done);
    };
    threads().ok_or(WorkError::Busy)?.send(Box::new(work)).map_err(|_| WorkError::Busy)?;
    aside(|| match answer.recv_timeout(PATIENCE) {
        Ok(done) => done,
        Err(RecvTimeoutError::Timeout) => {
            wanted.store(false, Ordering::Relaxed);
            Err(WorkError::Busy)
        }
        Err(RecvTimeoutError::Disconnected) => Err(WorkError::Failed),
    })
}

/// Does what takes long where the requests of others are not held up by it, if there is such a place.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
