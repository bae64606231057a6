//! Records of the cache that storage no longer has.

use std::collections::{BTreeSet, HashMap};

use anyhow::Result;

use super::PAGE;
use super::print::Printer;
use crate::base::ids::{InfoHash, Passkey, UserId};
use crate::cache::{Cache, CacheKey, KeySet};
use crate::storage::Storage;
use crate::sync::load::{stored_torrents, stored_users};

/// Keys of the cache without a row in storage.
#[derive(Default)]
pub struct Orphans {
    pub users: BTreeSet<UserId>,
    /// Passkeys that are no longer those of their users.
    pub passkeys: HashMap<Passkey, UserId>,
    pub torrents: BTreeSet<InfoHash>,
    pub swarms: BTreeSet<InfoHash>,
}

impl Orphans {
    /// Reads the cache first, so that rows added meanwhile are not taken for orphans. With `with_swarms`,
    /// every swarm must have a torrent in storage.
    pub async fn find(
        storage: &dyn Storage,
        cache: &dyn Cache,
        with_swarms: bool,
        printer: &mut Printer,
    ) -> Result<Self> {
        let mut orphans = Self::default();
        orphans.read(cache, with_swarms, printer).await?;
        orphans.subtract(storage, printer).await?;
        Ok(orphans)
    }

    async fn read(
        &mut self,
        cache: &dyn Cache,
        with_swarms: bool,
        printer: &Printer,
    ) -> Result<()> {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = cache.users(at).await?;
            cursor = scan.next;
            printer.progress(scan.rows.len() as u64);
            self.users.extend(scan.rows.iter().map(|row| row.user.id));
        }
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = cache.keys(KeySet::Passkeys, at).await?;
            cursor = scan.next;
            for key in scan.rows {
                if let CacheKey::Passkey(passkey, Some(user)) = key {
                    self.passkeys.insert(passkey, user);
                }
            }
        }
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = cache.torrents(at).await?;
            cursor = scan.next;
            printer.progress(scan.rows.len() as u64);
            let hashes = scan.rows.iter().map(|row| row.torrent.info_hash);
            self.torrents.extend(hashes);
        }
        let mut cursor = with_swarms.then_some(0);
        while let Some(at) = cursor {
            let scan = cache.swarms(at).await?;
            cursor = scan.next;
            self.swarms.extend(scan.rows);
        }
        Ok(())
    }

    async fn subtract(&mut self, storage: &dyn Storage, printer: &Printer) -> Result<()> {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let page = stored_users(storage, at, PAGE).await?;
            cursor = page.next;
            printer.progress(page.rows.len() as u64);
            for row in &page.rows {
                self.users.remove(&row.user.id);
                if self.passkeys.get(&row.user.passkey) == Some(&row.user.id) {
                    self.passkeys.remove(&row.user.passkey);
                }
            }
        }
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let page = stored_torrents(storage, at, PAGE).await?;
            cursor = page.next;
            printer.progress(page.rows.len() as u64);
            for row in &page.rows {
                self.torrents.remove(&row.torrent.info_hash);
                self.swarms.remove(&row.torrent.info_hash);
            }
        }
        Ok(())
    }

    /// Removes all of them from the cache.
    pub async fn remove(self, cache: &dyn Cache) -> Result<()> {
        let users = self.users.into_iter().map(CacheKey::User);
        let passkeys = self.passkeys.into_keys();
        let passkeys = passkeys.map(|passkey| CacheKey::Passkey(passkey, None));
        let torrents = self.torrents.into_iter().map(CacheKey::Torrent);
        let swarms = self.swarms.into_iter().map(CacheKey::Swarm);
        let all = users.chain(passkeys).chain(torrents).chain(swarms);
        let all: Vec<CacheKey> = all.collect();
        cache.remove(&all).await?;
        Ok(())
    }
}
