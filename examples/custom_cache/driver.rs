//! The driver: each call locks the data for a moment.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mika::base::ids::{InfoHash, PeerId, UserId};
use mika::base::secret::Secret;
use mika::cache::{
    Cache, CacheError, CacheKey, CacheUpkeep, ControlPosition, Generation, KeySet, Mark, Notice,
    Rows, Scan, SharedPeer, Wiped, Write,
};
use mika::change::Batch;
use mika::change::sums::Credited;
use mika::registry::{ClientPrefix, StoredTorrent, StoredUser, UserTotals, Wipe};
use mika::storage::memory::{add_to_torrent, add_to_user};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::data::{Data, ONLY, expect};

type Result<T> = std::result::Result<T, CacheError>;

/// The driver.
#[derive(Default)]
struct Process {
    data: Mutex<Data>,
    /// Wakes calls that wait for batches or notices.
    news: Notify,
}

/// Opens an empty one.
#[allow(clippy::unnecessary_wraps)] // the signature of every driver's `open`
pub fn open(_url: &Secret) -> Result<Option<Arc<dyn Cache>>> {
    Ok(Some(Arc::new(Process::default())))
}

// === impl Process ===

impl Process {
    /// Looks for what a call waits for; at the end of `wait`, there may be none.
    async fn wait_for<T>(
        &self,
        wait: Duration,
        look: impl Fn(&Data) -> T,
        is_there: impl Fn(&T) -> bool,
    ) -> T {
        let wait_for_it = async {
            loop {
                let mut news = std::pin::pin!(self.news.notified());
                // Before looking, so that nothing is missed.
                news.as_mut().enable();
                if is_there(&look(&self.data.lock())) {
                    return;
                }
                news.await;
            }
        };
        // Only whether it came in time; the answer is what is there now.
        let _ = timeout(wait, wait_for_it).await;
        look(&self.data.lock())
    }
}

#[async_trait]
impl Cache for Process {
    async fn ping(&self) -> Result<Generation> {
        Ok(ONLY)
    }

    async fn keep(&self, generation: Generation, batches: &[Arc<Batch>]) -> Result<()> {
        expect(generation)?;
        let mut data = self.data.lock();
        for batch in batches {
            data.keep(batch);
        }
        self.news.notify_waiters();
        Ok(())
    }

    async fn add_totals(&self, generation: Generation, credited: &Credited) -> Result<()> {
        expect(generation)?;
        let mut data = self.data.lock();
        for (id, sum) in &credited.users {
            if let Some(row) = data.users.get_mut(id) {
                add_to_user(&mut row.totals, sum);
            }
        }
        for (info_hash, sum) in &credited.torrents {
            if let Some(row) = data.torrents.get_mut(info_hash) {
                add_to_torrent(row, sum);
            }
        }
        Ok(())
    }

    async fn trim_journal(&self, journal: &str, number: Option<u64>) -> Result<()> {
        let mut data = self.data.lock();
        match (number, data.journals.get_mut(journal)) {
            (None, _) => drop(data.journals.remove(journal)),
            (Some(number), Some(journal)) => journal.batches.retain(|kept, _| *kept > number),
            (Some(_), None) => {}
        }
        Ok(())
    }

    async fn last_kept(&self, journal: &str) -> Result<u64> {
        Ok(self
            .data
            .lock()
            .journals
            .get(journal)
            .map_or(0, |journal| journal.last))
    }

    async fn kept(
        &self,
        journal: &str,
        after: u64,
        limit: u32,
        wait: Duration,
    ) -> Result<Vec<Batch>> {
        let look = |data: &Data| -> Vec<Batch> {
            let journal = data.journals.get(journal).into_iter();
            let later =
                journal.flat_map(|journal| journal.batches.range(after.saturating_add(1)..));
            later
                .take(limit as usize)
                .map(|(_, batch)| Batch::clone(batch))
                .collect()
        };
        Ok(self
            .wait_for(wait, look, |batches| !batches.is_empty())
            .await)
    }

    async fn peers(&self, torrents: &[InfoHash]) -> Result<Vec<(InfoHash, Vec<SharedPeer>)>> {
        let data = self.data.lock();
        let swarm = |hash: &InfoHash| Some((*hash, data.swarms.get(hash)?.peers()));
        Ok(torrents.iter().filter_map(swarm).collect())
    }

    async fn put_peers(
        &self,
        swarms: &[(InfoHash, Vec<SharedPeer>)],
    ) -> Result<Vec<(InfoHash, UserId, PeerId)>> {
        let mut data = self.data.lock();
        let written = swarms
            .iter()
            .flat_map(|(info_hash, peers)| data.put_peers(*info_hash, peers));
        Ok(written.collect())
    }

    async fn put(&self, rows: Rows<'_>, _write: Write) -> Result<()> {
        let mut data = self.data.lock();
        match rows {
            Rows::Users(users) => users.iter().for_each(|row| data.put_user(row.clone())),
            Rows::Torrents(rows) => rows.iter().for_each(|row| data.put_torrent(row.clone())),
            Rows::Whitelist(clients) => data.whitelist = clients.to_vec(),
        }
        Ok(())
    }

    async fn users(&self, _cursor: u64) -> Result<Scan<StoredUser>> {
        Ok(Scan::whole(
            self.data.lock().users.values().cloned().collect(),
        ))
    }

    async fn torrents(&self, _cursor: u64) -> Result<Scan<StoredTorrent>> {
        Ok(Scan::whole(
            self.data.lock().torrents.values().cloned().collect(),
        ))
    }

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>> {
        Ok(self.data.lock().whitelist.clone())
    }

    async fn keys(&self, which: KeySet, _cursor: u64) -> Result<Scan<CacheKey>> {
        Ok(Scan::whole(self.data.lock().keys(which)))
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        let mut data = self.data.lock();
        for key in keys {
            data.remove(key);
        }
        Ok(())
    }

    async fn mark(&self, mark: Mark) -> Result<Option<String>> {
        Ok(self.data.lock().marks.get(&mark).cloned())
    }

    async fn set_mark(&self, mark: Mark, text: Option<(Generation, &str)>) -> Result<()> {
        let Some((generation, text)) = text else {
            self.data.lock().marks.remove(&mark);
            return Ok(());
        };
        expect(generation)?;
        self.data.lock().marks.insert(mark, text.to_owned());
        Ok(())
    }

    async fn publish(&self, notices: &[Notice]) -> Result<()> {
        self.data.lock().publish(notices);
        self.news.notify_waiters();
        Ok(())
    }

    async fn control(
        &self,
        after: Option<&ControlPosition>,
        wait: Duration,
    ) -> Result<(Vec<Notice>, ControlPosition)> {
        let is_there = |read: &(Vec<Notice>, _)| !read.0.is_empty();
        Ok(self
            .wait_for(wait, |data| data.notices(after), is_there)
            .await)
    }

    async fn beat(&self, journal: &str, sign: &str) -> Result<()> {
        self.data.lock().nodes.insert(journal.into(), sign.into());
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<(String, String)>> {
        Ok(self.data.lock().nodes.clone().into_iter().collect())
    }

    async fn leave(&self, journal: &str) -> Result<()> {
        self.data.lock().nodes.remove(journal);
        Ok(())
    }

    async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<bool> {
        let (mut data, now) = (self.data.lock(), Instant::now());
        let lease = data.leases.get(name);
        let is_free = lease.is_none_or(|(owner, until)| owner == holder || *until <= now);
        if is_free {
            data.leases.insert(name.into(), (holder.into(), now + time));
        }
        Ok(is_free)
    }
}

#[async_trait]
impl CacheUpkeep for Process {
    async fn prune(&self, _cursor: u64, members: i64, guests: i64) -> Result<Option<u64>> {
        self.data.lock().swarms.retain(|_, swarm| {
            swarm
                .members
                .retain(|_, member| member.record.last_announce >= members);
            swarm
                .guests
                .retain(|_, record| record.last_announce >= guests);
            !swarm.is_empty()
        });
        Ok(None)
    }

    async fn set_totals(&self, user: UserId, up: Option<u64>, down: Option<u64>) -> Result<()> {
        if let Some(row) = self.data.lock().users.get_mut(&user) {
            row.totals.uploaded = up.unwrap_or(row.totals.uploaded);
            row.totals.downloaded = down.unwrap_or(row.totals.downloaded);
        }
        Ok(())
    }

    async fn wipe(&self, what: Wipe, _cursor: u64) -> Result<Wiped> {
        let mut data = self.data.lock();
        let rows = match what {
            Wipe::Users => {
                data.users
                    .values_mut()
                    .for_each(|row| row.totals = UserTotals::default());
                data.users.len()
            }
            Wipe::Torrents => {
                for row in data.torrents.values_mut() {
                    (row.uploaded, row.downloaded, row.announces) = (0, 0, 0);
                    row.torrent.snatches = 0;
                }
                data.torrents.len()
            }
        };
        let (rows, next) = (rows as u64, None);
        Ok(Wiped { rows, next })
    }
}
