//! The claim of a daemon on a database that no other daemon may use: a lock of the server, named by the database's
//! identity and held by its own connection.
//!
//! The server frees the lock when that connection ends, also if the daemon is killed or its host vanishes. A
//! lost connection is replaced, and the lock acquired again unless another process has it by then. Each server of a
//! cluster has its own locks, so a daemon whose URL names several takes that of each one that it can reach.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::storage::{Claim, StorageError, StorageResult};

/// How long the server may need to notice that a daemon was just killed.
pub(in crate::storage) const GRACE: Duration = Duration::from_secs(2);
/// Seconds of silence after which the server ends the connection, and with it the claim.
pub(in crate::storage) const SILENCE_SECONDS: u32 = 10;
/// How often the connection is pinged; well below that.
const PERIOD: Duration = Duration::from_secs(3);
/// How often to retry to acquire a lost claim.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts for which the holder may still be the lost connection: twice as long as the server keeps a
/// silent one. Later, its number may belong to another connection.
const FORMER_TRIES: u32 = 2 * SILENCE_SECONDS;

/// A lock of a server that its connections exclude each other by.
#[async_trait]
pub(in crate::storage) trait ServerLock: Send + Sync + 'static {
    /// A connection that has the lock.
    type Holding: Send;

    /// Attempts on a new connection, for that long.
    async fn take(&self, wait: Duration) -> StorageResult<Attempt<Self::Holding>>;

    /// Whether the connection still has the lock.
    async fn is_held(&self, holding: &mut Self::Holding) -> bool;

    /// The number of the connection in the server.
    fn number(&self, holding: &Self::Holding) -> u32;

    /// Ends the connection.
    async fn release(&self, holding: Self::Holding);

    /// The URL without its password.
    fn place(&self) -> &str;

    /// What to call the connection of that number, and the lock.
    fn words(&self, number: u32) -> (String, String);
}

/// The result of one attempt to acquire the lock.
pub(in crate::storage) enum Attempt<H> {
    Taken(H),
    /// Another connection has it.
    Refused(LockHolder),
}

/// The holder of the lock.
pub(in crate::storage) struct LockHolder {
    /// None if it was just released.
    pub(in crate::storage) number: Option<u32>,
    /// Account and address, if visible to Mika's account.
    pub(in crate::storage) who: Option<String>,
}

/// Claims the database of these locks, one of each server: of those that can be reached, at least one.
pub(in crate::storage) async fn claim<L: ServerLock>(locks: Vec<L>) -> StorageResult<Claim> {
    let mut taken = Vec::new();
    let mut failure = None;
    for lock in locks {
        let holding = match lock.take(GRACE).await {
            Ok(Attempt::Taken(holding)) => Some(holding),
            Ok(Attempt::Refused(holder)) => {
                return Err(StorageError::Broken(refusal(&lock, &holder)));
            }
            Err(error) => {
                failure = Some(error);
                None
            }
        };
        taken.push((lock, holding));
    }
    if let Some(error) = failure
        && taken.iter().all(|(_, holding)| holding.is_none())
    {
        return Err(error);
    }
    let (guard, dropped) = watch::channel(());
    let (lost, reason) = watch::channel(None);
    for (lock, holding) in taken {
        tokio::spawn(keep(lock, holding, dropped.clone(), lost.clone()));
    }
    Ok(Claim::held_by(guard).until(reason))
}

/// Holds the claim until it is dropped, or another process gets it.
async fn keep<L: ServerLock>(
    lock: L,
    mut held: Option<L::Holding>,
    mut dropped: watch::Receiver<()>,
    lost: watch::Sender<Option<String>>,
) {
    tokio::select! {
        reason = hold(&lock, &mut held) => drop(lost.send_replace(Some(reason))),
        _ = dropped.changed() => {}
    }
    if let Some(holding) = held {
        lock.release(holding).await;
    }
}

/// Holds the claim until another process gets it; returns which.
async fn hold<L: ServerLock>(lock: &L, held: &mut Option<L::Holding>) -> String {
    let mut former = None;
    loop {
        if let Some(holding) = held {
            sleep(PERIOD).await;
            if lock.is_held(holding).await {
                continue;
            }
            former = Some(lock.number(holding));
            *held = None;
            tracing::warn!("the connection that claims the database was lost; claiming it again");
        }
        match take_again(lock, former).await {
            Ok(holding) => *held = Some(holding),
            Err(holder) => return refusal(lock, &holder),
        }
        tracing::info!("the database is claimed again");
    }
}

/// Retries until the lock is acquired, or another process has it. The server may take a while to notice
/// that the `former` connection is lost, or that of this daemon's last start.
async fn take_again<L: ServerLock>(
    lock: &L,
    former: Option<u32>,
) -> Result<L::Holding, LockHolder> {
    let mut refusals = 0;
    loop {
        match lock.take(Duration::ZERO).await {
            Ok(Attempt::Taken(holding)) => return Ok(holding),
            Ok(Attempt::Refused(holder)) => {
                let is_former = |number| former.is_none_or(|former| former == number);
                let may_be_former = holder.number.is_none_or(is_former);
                refusals += 1;
                if !may_be_former || refusals > FORMER_TRIES {
                    return Err(holder);
                }
            }
            Err(error) => tracing::debug!(%error, "the database can't be claimed again yet"),
        }
        sleep(RETRY).await;
    }
}

fn refusal<L: ServerLock>(lock: &L, holder: &LockHolder) -> String {
    let (connection, name) = lock.words(holder.number.unwrap_or_default());
    let connection = match holder.number {
        Some(_) => connection,
        None => "another connection".to_owned(),
    };
    let who = holder.who.as_ref().map(|who| format!(", {who},"));
    format!(
        "{} is in use by another mika ({connection}{} has the {name}): stop that one, or let both share a cache \
         (cache.driver \"redis\"); if this is a copy of its database, give it an id of its own (docs/sql.md)",
        lock.place(),
        who.unwrap_or_default()
    )
}
