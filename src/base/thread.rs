//! Work on a thread of its own, for those who wait for it in another runtime.

use std::future::Future;
use std::io;
use std::num::NonZero;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Turns of the runtime after the work: connections say goodbye in tasks of their own.
const LAST_TURNS: usize = 8;

/// Runs `work` on a new thread with a runtime of its own. It is dropped, wherever it is, when nobody waits for the
/// result any more.
///
/// # Errors
/// The thread or its runtime can't be started, or it panicked.
pub async fn on_thread<T, F>(
    name: impl Into<String>,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut reply, result) = oneshot::channel();
    thread::Builder::new().name(name.into()).spawn(move || {
        let done = runtime.block_on(async {
            let done = tokio::select! {
                done = work() => Some(done),
                () = reply.closed() => None,
            };
            for _ in 0..LAST_TURNS {
                tokio::task::yield_now().await;
            }
            done
        });
        if let Some(done) = done {
            // Who waited may have gone just now.
            let _ = reply.send(done);
        }
    })?;
    result.await.map_err(io::Error::other)
}

/// How many threads can work at the same time on this machine, as far as it is known; `max` at most.
pub fn parallelism(max: usize) -> usize {
    thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(max)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_result_comes_from_another_thread() {
        let other = on_thread("other", async || thread::current().id()).await;
        assert_ne!(other.unwrap(), thread::current().id());
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let result: io::Result<()> = on_thread("panics", async || panic!("as it should")).await;
        assert!(result.is_err());
    }

    #[tokio::test]
    async fn work_ends_when_nobody_waits_for_it() {
        let held = Arc::new(());
        let copy = Arc::clone(&held);
        let work = on_thread("waits", async move || {
            pending::<()>().await;
            drop(copy);
        });
        assert!(timeout(Duration::from_millis(10), work).await.is_err());
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
