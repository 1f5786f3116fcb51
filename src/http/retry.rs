//! The one place that repeats calls, and the only one that names the `backoff` crate.
use std::time::Duration;

use backoff::ExponentialBackoffBuilder;

/// Longest time spent on repeating one call.
const BUDGET: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const TRIES: u32 = 3;

/// What one try came to.
pub enum Try<T, E> {
    Done(Result<T, E>),
    /// Worth repeating; the result counts if no try is left.
    Again(Result<T, E>),
}

/// Repeats `call` while it says [`Try::Again`], at most three tries within two seconds, with jitter.
pub async fn retry<T, E, F>(mut call: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Try<T, E>>,
{
    let policy =
        ExponentialBackoffBuilder::new().with_initial_interval(FIRST_PAUSE).with_max_elapsed_time(Some(BUDGET)).build();
    let mut tries = 0;
    let outcome = backoff::future::retry(policy, || {
        tries += 1;
        let last = tries >= TRIES;
        let call = call();
        async move {
            match call.await {
                Try::Done(result) => Ok(result),
                Try::Again(result) if last => Ok(result),
                Try::Again(result) => Err(backoff::Error::transient(result)),
            }
        }
    })
    .await;
    match outcome {
        Ok(result) | Err(result) => result,
    }
}
