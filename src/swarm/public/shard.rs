//! The public swarms of one shard: a table of them, and a pool for the peers of the small ones.

use crate::base::addr::Endpoint;
use crate::base::ids::InfoHash;
use crate::swarm::classes::PeerCounts;
use crate::swarm::public::pool::Pool;
use crate::swarm::public::{PrefetchPath, PublicStore, PublicSwarm};
use crate::swarm::table::{Cursor, Key, SwarmTable, Visit};

/// The public swarms whose info hashes fall into one shard.
#[derive(Debug, Default)]
pub struct PublicShard {
    swarms: SwarmTable<PublicStore>,
    pool: Pool,
}

impl PublicShard {
    pub fn len(&self) -> usize {
        self.swarms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.swarms.is_empty()
    }

    /// Prefetches the slots where a look-up of that key begins.
    pub fn prefetch_slots(&self, key: &Key) -> usize {
        self.swarms.prefetch_slots(key)
    }

    /// The path to a peer of a swarm, if there is a swarm.
    pub(in crate::swarm) fn prefetch_path(
        &self,
        key: Key,
        endpoint: Endpoint,
    ) -> Option<PrefetchPath<'_>> {
        Some(PrefetchPath {
            store: self.swarms.get(key)?,
            pool: &self.pool,
            endpoint,
        })
    }

    /// The counts and the snatches of a swarm.
    pub fn get(&self, key: Key) -> Option<(PeerCounts, u32)> {
        let store = self.swarms.get(key)?;
        Some((store.counts(&self.pool), store.snatches()))
    }

    pub fn get_mut(&mut self, key: Key) -> Option<PublicSwarm<'_>> {
        self.tidy();
        let store = self.swarms.get_mut(key)?;
        let pool = &mut self.pool;
        Some(PublicSwarm { store, pool })
    }

    /// The swarm of that key; a new one if there is none.
    pub fn get_or_default(&mut self, key: Key) -> PublicSwarm<'_> {
        self.tidy();
        PublicSwarm {
            store: self.swarms.get_or_default(key),
            pool: &mut self.pool,
        }
    }

    /// The swarm of that key; if there is none, a new one unless `may_create` says no.
    pub fn get_or_create(
        &mut self,
        key: Key,
        may_create: impl FnOnce() -> bool,
    ) -> Option<PublicSwarm<'_>> {
        self.tidy();
        let create = || may_create().then(PublicStore::default);
        let store = self.swarms.get_or_create(key, create)?;
        let pool = &mut self.pool;
        Some(PublicSwarm { store, pool })
    }

    /// The counts of every swarm.
    pub fn counts(&self) -> impl Iterator<Item = (&InfoHash, PeerCounts)> {
        self.swarms
            .iter()
            .map(|(info_hash, store)| (info_hash, store.counts(&self.pool)))
    }

    /// Visits one swarm after the other, like [`SwarmTable::walk`].
    pub fn walk(
        &mut self,
        from: Cursor,
        mut visit: impl FnMut(&InfoHash, &mut PublicSwarm) -> Visit,
    ) -> Option<Cursor> {
        let pool = &mut self.pool;
        let rest = self.swarms.walk(from, |info_hash, store| {
            let mut swarm = PublicSwarm { store, pool };
            let next = visit(info_hash, &mut swarm);
            if let (Visit::Remove, PublicStore::Small(small)) = (next, swarm.store) {
                small.clear(swarm.pool);
            }
            next
        });
        self.tidy();
        rest
    }

    /// Packs the pool if too much of it is free.
    fn tidy(&mut self) {
        if self.pool.is_sparse(self.swarms.len()) {
            self.pack();
        }
    }

    /// Copies all small swarms' peers to a new array in the table's order, without spare units.
    /// Measured: 75 ns a swarm, so some 70 us with a million torrents, and below a
    /// millisecond with ten million. It is rare: a shard that grows with four million peers is packed six
    /// times, and not again while as many peers come as go, because runs are reused.
    fn pack(&mut self) {
        let mut pool = Pool::default();
        for small in self.swarms.values_mut().filter_map(PublicStore::small_mut) {
            small.move_over(&self.pool, &mut pool);
        }
        self.pool = pool;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl PublicShard {
        /// Every unit of the pool is some swarm's, or is free.
        pub fn check(&mut self) {
            let swarms = self.swarms.values_mut().filter_map(PublicStore::small_mut);
            self.pool.check(swarms.filter_map(|small| small.run()));
        }

        /// Units that the pool has memory for.
        pub fn pool_units(&self) -> usize {
            self.pool.units()
        }
    }
}
