//! A thread that owns a connection and runs jobs on it in order.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::fault::SqliteFault;
use crate::storage::StorageError;

/// Capacity of the job queue; callers wait while it is full.
const QUEUE_MAX: usize = 64;

/// Idle time after which a connection frees its page cache.
const IDLE: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle of one connection's thread. Dropping it waits until queued jobs are done.
pub(super) struct Worker {
    path: Arc<str>,
    /// None only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(
        name: &str,
        path: Arc<str>,
        connection: Connection,
    ) -> Result<Self, StorageError> {
        let (jobs, queue) = mpsc::channel::<Job>(QUEUE_MAX);
        let cant = |error| StorageError::Away(format!("can't start a thread: {error}"));
        let mut builder = runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build().map_err(cant)?;
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || runtime.block_on(work(connection, queue)))
            .map_err(cant)?;
        Ok(Self {
            path,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Runs `job` on the thread. After `time_limit` the caller stops waiting, but the job still runs: only
    /// idempotent jobs should be retried after that.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        time_limit: Duration,
        job: impl FnOnce(&mut Connection) -> Result<T, SqliteFault> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The caller may have given up; the job is done anyway.
            let _ = reply.send(job(connection));
        });
        let work = async {
            self.jobs.as_ref()?.send(job).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(time_limit, work).await {
            Ok(Some(result)) => result.map_err(|fault| fault.explain(&self.path)),
            Ok(None) => Err(StorageError::Broken(format!(
                "the thread of {} has ended: restart Mika and report this",
                self.path
            ))),
            Err(_) => Err(StorageError::Away(format!(
                "{} did not answer within {} s",
                self.path,
                time_limit.as_secs()
            ))),
        }
    }
}

/// Runs jobs until the handle is dropped.
async fn work(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    loop {
        let job = if let Ok(job) = timeout(IDLE, queue.recv()).await {
            job
        } else {
            // On failure the memory is just kept.
            let _ = connection.release_memory();
            queue.recv().await
        };
        let Some(job) = job else { return };
        job(&mut connection);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The panic was logged on the thread itself.
            let _ = thread.join();
        }
    }
}
