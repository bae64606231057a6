//! For drivers whose client blocks: its calls on other threads, each with a time limit.

use std::time::Duration;

use super::{StorageError, StorageResult};

/// Runs a job that may block, on a thread for such jobs. [`StorageError::Away`] if it takes longer than `timeout`: then
/// it goes on without its caller, so it must do no harm if the call is repeated.
pub async fn blocking<T: Send + 'static>(
    timeout: Duration,
    job: impl FnOnce() -> StorageResult<T> + Send + 'static,
) -> StorageResult<T> {
    match tokio::time::timeout(timeout, tokio::task::spawn_blocking(job)).await {
        Ok(joined) => joined.map_err(StorageError::broken)?,
        Err(_) => Err(StorageError::away(format_args!(
            "no answer within {} s",
            timeout.as_secs_f64()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_job_has_a_time_limit_and_its_result_is_passed_on() {
        let minute = Duration::from_secs(60);
        assert_eq!(blocking(minute, || Ok(1)).await.unwrap(), 1);
        let failed = blocking(minute, || Err::<(), _>(StorageError::away("full"))).await;
        assert!(matches!(failed, Err(StorageError::Away(problem)) if problem == "full"));
        let (release, wait) = mpsc::channel::<()>();
        let hung = blocking(Duration::from_millis(10), move || {
            let _ = wait.recv();
            Ok(())
        });
        assert!(matches!(hung.await, Err(StorageError::Away(_))));
        drop(release);
    }
}
