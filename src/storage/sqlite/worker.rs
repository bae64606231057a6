//! A thread that owns a connection and does one job after the other on it.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::fault::SqliteFault;
use crate::storage::StorageError;

/// Jobs that may wait for the thread; who brings one more waits until there is room.
const QUEUE_MAX: usize = 64;

/// A connection without a job for so long gives back the pages that it keeps in memory.
const IDLE: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The way to one connection. Dropping it lets the thread finish the jobs it has, and waits for that.
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

    /// Does `job` on the thread. One that takes longer than `time_limit` is no longer waited
    /// for, but still done: only jobs that may be repeated should be repeated after that.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        time_limit: Duration,
        job: impl FnOnce(&mut Connection) -> Result<T, SqliteFault> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Who asked may have given up; the work is done all the same.
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

/// Does all jobs that come, until none can come any more.
async fn work(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    loop {
        let job = if let Ok(job) = timeout(IDLE, queue.recv()).await {
            job
        } else {
            // What fails to give memory back has it still, and goes on with it.
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
            // A panic was shown on the thread itself.
            let _ = thread.join();
        }
    }
}
