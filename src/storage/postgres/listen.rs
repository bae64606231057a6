//! Notices changes at once: a connection of its own LISTENs to what the trigger of `mika_feed` sends.
//!
//! A notification is only a hint that the feed has more. While the connection is lost, the feed is read as often as
//! where nobody tells of changes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::fault::PostgresResult;
use super::link::{PostgresConn, PostgresDial};
use crate::base::backoff::Backoff;
use crate::storage::sql::database::ANSWER_TIMEOUT;

/// How long notifications are gathered, so that a burst is one. An edit of `mika-manage` reaches the cache in that
/// time, so that the mirror finds it there.
const GATHER: Duration = Duration::from_millis(50);
/// How often a silent connection is pinged.
const PING_PERIOD: Duration = Duration::from_secs(30);
/// The pauses before attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Listens from when it is first asked until it is dropped.
#[derive(Default)]
pub(super) struct FeedListener {
    changed: Arc<Notify>,
    task: OnceLock<JoinSet<()>>,
}

impl FeedListener {
    /// Resolves when the feed may have more.
    pub(super) async fn changed(&self, dial: &PostgresDial) {
        self.task.get_or_init(|| {
            let mut task = JoinSet::new();
            task.spawn(run(dial.clone(), Arc::clone(&self.changed)));
            task
        });
        self.changed.notified().await;
    }
}

async fn run(dial: PostgresDial, changed: Arc<Notify>) {
    let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut is_failing = false;
    loop {
        match listen(&dial).await {
            Ok(conn) => {
                if is_failing {
                    tracing::info!("PostgreSQL tells of edits again");
                }
                is_failing = false;
                delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
                forward(&conn, &changed).await;
            }
            Err(fault) if !is_failing => {
                let error = fault.explain(dial.place(), ANSWER_TIMEOUT);
                tracing::warn!(%error, "PostgreSQL can't tell of edits; they are polled until it can");
                is_failing = true;
            }
            Err(_) => {}
        }
        sleep(delays.next().unwrap_or(RETRY_MAX)).await;
    }
}

/// A connection that listens.
async fn listen(dial: &PostgresDial) -> PostgresResult<PostgresConn> {
    let conn = dial.connect().await?;
    let listening = conn.client.batch_execute("LISTEN mika_feed");
    timeout(ANSWER_TIMEOUT, listening).await??;
    Ok(conn)
}

/// Forwards notifications until the connection is lost.
async fn forward(conn: &PostgresConn, changed: &Notify) {
    // There was no notification of what was committed before.
    changed.notify_one();
    while !conn.client.is_closed() {
        if timeout(PING_PERIOD, conn.heard.notified()).await.is_ok() {
            sleep(GATHER).await;
            changed.notify_one();
        } else if !conn.is_alive().await {
            return;
        }
    }
}
