//! A thread that owns a connection and runs jobs on it in order.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::timeout;

use super::fault::SqliteFault;
use crate::base::memory;
use crate::storage::sql::database::{SqlFault, SqlResult, late};
use crate::storage::{StorageError, StorageResult};

/// Idle time after which a connection frees its page cache.
const IDLE: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle of one connection's thread. Dropping it waits until queued jobs are done.
pub(super) struct Worker {
    path: Arc<str>,
    /// Who has it has the connection.
    turns: Arc<Mutex<()>>,
    /// None only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The exclusive use of a connection. It ends when this is dropped and all of its jobs are done.
pub(super) struct WorkerTurn<'a> {
    worker: &'a Worker,
    /// Each queued job has it, too.
    guard: Arc<OwnedMutexGuard<()>>,
}

// === impl Worker ===

impl Worker {
    pub(super) fn start(name: &str, path: Arc<str>, connection: Connection) -> StorageResult<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || work(connection, &queue))
            .map_err(|error| StorageError::Away(format!("can't start a thread: {error}")))?;
        Ok(Self {
            path,
            turns: Arc::default(),
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Waits for the connection.
    pub(super) async fn turn(&self, time_limit: Duration) -> SqlResult<WorkerTurn<'_>> {
        match timeout(time_limit, Arc::clone(&self.turns).lock_owned()).await {
            Ok(guard) => Ok(WorkerTurn {
                worker: self,
                guard: Arc::new(guard),
            }),
            Err(_) => Err(self.slow(time_limit)),
        }
    }

    /// Runs a single job, in a turn of its own.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        time_limit: Duration,
        job: impl FnOnce(&mut Connection) -> Result<T, SqliteFault> + Send + 'static,
    ) -> StorageResult<T> {
        let run = async { self.turn(time_limit).await?.run(time_limit, job).await };
        run.await.map_err(|fault: SqlFault| fault.error)
    }

    fn slow(&self, time_limit: Duration) -> SqlFault {
        late(&self.path, time_limit).into()
    }
}

/// Runs jobs until the handle is dropped.
fn work(mut connection: Connection, queue: &mpsc::Receiver<Job>) {
    loop {
        let next = match queue.recv_timeout(IDLE) {
            Err(RecvTimeoutError::Timeout) => {
                // On failure the memory is just kept.
                let _ = connection.release_memory();
                memory::give_back();
                queue.recv().ok()
            }
            next => next.ok(),
        };
        let Some(job) = next else { return };
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

// === impl WorkerTurn ===

impl WorkerTurn<'_> {
    /// The path of the file.
    pub(super) fn path(&self) -> &str {
        &self.worker.path
    }

    /// Runs `job` on the thread. After `time_limit` the caller stops waiting, but the job still runs: only
    /// idempotent jobs should be retried after that.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        time_limit: Duration,
        job: impl FnOnce(&mut Connection) -> Result<T, SqliteFault> + Send + 'static,
    ) -> SqlResult<T> {
        let (reply, answer) = oneshot::channel();
        self.send(move |connection| {
            // The caller may have given up; the job is done anyway.
            let _ = reply.send(job(connection));
        });
        let path = &self.worker.path;
        match timeout(time_limit, answer).await {
            Ok(Ok(result)) => result.map_err(|fault| fault.into_sql_fault(path)),
            Ok(Err(_)) => Err(SqlFault::broken(format!(
                "the thread of {path} has ended: restart Mika and report this"
            ))),
            Err(_) => Err(self.worker.slow(time_limit)),
        }
    }

    /// Queues `job` and does not wait for it.
    pub(super) fn send(&self, job: impl FnOnce(&mut Connection) + Send + 'static) {
        let guard = Arc::clone(&self.guard);
        let job: Job = Box::new(move |connection| {
            job(connection);
            drop(guard);
        });
        if let Some(jobs) = &self.worker.jobs {
            // If the thread has ended, those who wait are told by their channel.
            let _ = jobs.send(job);
        }
    }
}
