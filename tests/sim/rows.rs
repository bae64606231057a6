//! Edits of the simulated database's users, torrents and whitelist, each with its line in the feed.

use std::collections::BTreeSet;

use mika::base::ids::{TorrentId, UserId};
use mika::registry::{ClientPrefix, RowChange};
use mika::storage::{
    Added, NewTorrent, NewUser, StorageError, TorrentPatch, TorrentRemoval, UserPatch,
};

use super::storage::Tables;

// === impl Tables ===

impl Tables {
    /// Rows that changed, each once and as it is now: the real feed has keys only.
    pub fn latest(&self, changes: &[RowChange]) -> Vec<RowChange> {
        let (mut users, mut torrents) = (BTreeSet::new(), BTreeSet::new());
        let mut is_whitelist = false;
        for change in changes {
            match change {
                RowChange::User(row) => drop(users.insert(row.user.id)),
                RowChange::UserGone(id) => drop(users.insert(*id)),
                RowChange::Torrent(row) => drop(torrents.insert(row.torrent.id)),
                RowChange::TorrentGone(id) => drop(torrents.insert(*id)),
                RowChange::Whitelist(_) => is_whitelist = true,
            }
        }
        let user = |id: UserId| match self.users.get(&id) {
            Some(row) => RowChange::User(row.clone()),
            None => RowChange::UserGone(id),
        };
        let torrent = |id: TorrentId| match self.torrents.get(&id) {
            Some(row) => RowChange::Torrent(row.clone()),
            None => RowChange::TorrentGone(id),
        };
        let whitelist = is_whitelist.then(|| RowChange::Whitelist(self.whitelist.clone()));
        let rows = users.into_iter().map(user);
        let rows = rows.chain(torrents.into_iter().map(torrent));
        rows.chain(whitelist).collect()
    }

    pub fn add_users(&mut self, users: Vec<NewUser>) -> Vec<Added<UserId>> {
        let mut added = Vec::new();
        for new in users {
            let mut rows = self.users.values();
            if rows.any(|row| row.user.passkey == new.passkey) {
                added.push(Ok(None));
                continue;
            }
            let last = self.users.last_key_value().map_or(0, |(id, _)| id.0);
            let id = new.id.unwrap_or(UserId(last + 1));
            let row = new.stored(id);
            self.users.insert(id, row.clone());
            self.feed.push(RowChange::User(row));
            added.push(Ok(Some(id)));
        }
        added
    }

    pub fn update_user(&mut self, id: UserId, patch: UserPatch) -> Result<(), StorageError> {
        let Some(row) = self.rows.users.get_mut(&id) else {
            return Err(StorageError::NotFound(format!("user {}", id.0)));
        };
        row.user.enabled = patch.enabled.unwrap_or(row.user.enabled);
        row.user.can_leech = patch.can_leech.unwrap_or(row.user.can_leech);
        if let Some(passkey) = patch.passkey {
            row.user.passkey = passkey;
        }
        self.feed.push(RowChange::User(row.clone()));
        Ok(())
    }

    pub fn add_torrents(&mut self, torrents: Vec<NewTorrent>) -> Vec<Added<TorrentId>> {
        let mut added = Vec::new();
        for new in torrents {
            let mut rows = self.torrents.values();
            if rows.any(|row| row.torrent.info_hash == new.info_hash) {
                added.push(Ok(None));
                continue;
            }
            // No id is given twice, not even that of a torrent that is gone.
            let last = self.torrents.last_key_value().map_or(0, |(id, _)| id.0);
            self.last_torrent = self.last_torrent.max(last);
            let id = new.id.unwrap_or(TorrentId(self.last_torrent + 1));
            self.last_torrent = self.last_torrent.max(id.0);
            let row = new.stored(id);
            self.torrents.insert(id, row.clone());
            self.feed.push(RowChange::Torrent(row));
            added.push(Ok(Some(id)));
        }
        added
    }

    pub fn update_torrent(
        &mut self,
        id: TorrentId,
        patch: TorrentPatch,
    ) -> Result<(), StorageError> {
        let Some(row) = self.rows.torrents.get_mut(&id) else {
            return Err(StorageError::NotFound(format!("torrent {}", id.0)));
        };
        let it = &mut row.torrent;
        it.enabled = patch.enabled.unwrap_or(it.enabled);
        it.reason = patch.reason.unwrap_or_else(|| it.reason.clone());
        it.multi_up = patch.multi_up.unwrap_or(it.multi_up);
        it.multi_down = patch.multi_down.unwrap_or(it.multi_down);
        self.feed.push(RowChange::Torrent(row.clone()));
        Ok(())
    }

    /// What users did with them stays, as in the real tables.
    pub fn remove_torrents(&mut self, torrents: &[TorrentRemoval]) -> u64 {
        let is_meant = |hash| torrents.iter().any(|removal| removal.info_hash == hash);
        let gone = self.torrents.values().map(|row| &row.torrent);
        let gone = gone.filter(|torrent| is_meant(torrent.info_hash));
        let gone: Vec<TorrentId> = gone.map(|torrent| torrent.id).collect();
        for id in &gone {
            self.torrents.remove(id);
            self.peers.retain(|key, _| key.torrent != *id);
            self.feed.push(RowChange::TorrentGone(*id));
        }
        gone.len() as u64
    }

    pub fn add_clients(&mut self, clients: &[ClientPrefix]) {
        for client in clients {
            self.whitelist.retain(|it| it.prefix != client.prefix);
            self.whitelist.push(client.clone());
        }
        self.feed.push(RowChange::Whitelist(self.whitelist.clone()));
    }

    pub fn remove_client(&mut self, prefix: &str) -> Result<(), StorageError> {
        let count = self.whitelist.len();
        self.whitelist.retain(|it| it.prefix != prefix);
        if self.whitelist.len() == count {
            return Err(StorageError::NotFound(format!("client {prefix}")));
        }
        self.feed.push(RowChange::Whitelist(self.whitelist.clone()));
        Ok(())
    }
}
