//! The one way to change the registry: validated, written to storage, then to the cache, and
//! published to the nodes.
//!
//! Storage is the source of truth, so an edit is done once it is written there. Where nodes share a
//! cache, its rows follow, and notices say which of them nodes have to read again. If the cache is away,
//! nodes find the change in storage's own feed (`Storage::feed`), as they do with plain SQL.

#[cfg(test)]
mod tests;

use std::slice::from_ref;
use std::sync::Arc;

use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::cache::Cache;
use crate::registry::{ClientPrefix, PLAUSIBLE_MAX, Wipe};
use crate::storage::{
    Added, NewTorrent, NewUser, Storage, StorageError, StoredTorrent, TorrentPatch, TorrentRemoval,
    UserPatch,
};

use super::{Mirror, SyncError};

/// The longest user name, torrent name, client name and reason, in characters.
pub const TEXT_MAX: usize = 255;

/// A whitelist prefix is the beginning of a peer id, which has 20 bytes.
pub const PREFIX_MAX: usize = 20;

/// Why a change of the registry was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The value can't be accepted; the text says what is expected.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// An edit that storage has.
#[derive(Debug)]
#[must_use = "a cache that could not be reached is to be reported"]
pub struct Saved<T> {
    pub value: T,
    pub propagation: Propagation,
}

/// Whether the running nodes know of an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They were notified, or follow storage by themselves.
    Done,
    /// The cache could not be brought up to date, for this reason. They follow once it is back.
    Pending(String),
}

/// Rows whose totals are set to 0 at a time, so that others do not wait long for them.
const WIPE_PORTION: u32 = 5000;

/// Changes users, torrents and the whitelist.
#[derive(Clone)]
pub struct Editor {
    storage: Arc<dyn Storage>,
    mirror: Option<Mirror>,
}

/// A passkey of 32 letters and digits from the operating system's random source.
pub fn random_passkey() -> Result<Passkey, EditError> {
    const LENGTH: usize = 32;
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // Bytes from here up would make the first letters likelier than the last.
    const UNBIASED: u8 = 252;

    let mut text = String::with_capacity(LENGTH);
    let mut random = [0; 2 * LENGTH];
    while text.len() < LENGTH {
        getrandom::fill(&mut random)
            .map_err(|error| StorageError::Away(format!("no random bytes: {error}")))?;
        let usable = random.iter().filter(|&&byte| byte < UNBIASED);
        let letters = usable.map(|byte| char::from(ALPHABET[usize::from(byte % 36)]));
        text.extend(letters.take(LENGTH - text.len()));
    }
    text.parse()
        .map_err(|error| EditError::Invalid(format!("{error}")))
}

/// Whether `client` may be in the whitelist: a prefix as clients send it, and a name.
pub fn validate_client(client: &ClientPrefix) -> Result<(), EditError> {
    let prefix = client.prefix.as_str();
    let printable = prefix.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if prefix.is_empty() || prefix.len() > PREFIX_MAX || !printable || prefix.trim() != prefix {
        return Err(EditError::Invalid(format!(
            "the prefix {prefix:?} must have 1 to {PREFIX_MAX} printable ASCII characters, such as -TR3000- or -qB"
        )));
    }
    if prefix.starts_with('#') {
        // Exported lists use it for comments.
        return Err(EditError::Invalid(format!(
            "the prefix {prefix:?} must not begin with '#'"
        )));
    }
    // A site's own rows need not have a name, and what was exported can be imported.
    if client.name.is_empty() {
        return Ok(());
    }
    validate_text("client name", &client.name)
}

// === impl Editor ===

impl Editor {
    /// Edits `storage`, and the cache if nodes share one.
    pub fn new(storage: Arc<dyn Storage>, cache: Option<Arc<dyn Cache>>) -> Self {
        let mirror = cache.map(|cache| Mirror {
            storage: Arc::clone(&storage),
            cache,
        });
        Self { storage, mirror }
    }

    /// Adds a user, with a random passkey if none is given.
    pub async fn add_user(
        &self,
        username: &str,
        passkey: Option<Passkey>,
    ) -> Result<Saved<(UserId, Passkey)>, EditError> {
        validate_text("user name", username)?;
        if !self.storage.users_named(username).await?.is_empty() {
            return Err(StorageError::Duplicate(format!("user {username:?}")).into());
        }
        let passkey = passkey.map_or_else(random_passkey, Ok)?;
        let user = NewUser {
            id: None,
            username: username.into(),
            passkey: passkey.clone(),
            can_leech: true,
        };
        let id = self.storage.add_user(&user).await?;
        Ok(Saved::new((id, passkey), self.mirror_user(id).await))
    }

    /// Adds users as the web application has them, ids and all, in one transaction; for each, returns its
    /// id, none if the id or the passkey is taken, or why the database refuses it. Names need not be
    /// unique.
    pub async fn register_users(
        &self,
        users: &[NewUser],
    ) -> Result<Saved<Vec<Added<UserId>>>, EditError> {
        for user in users {
            validate_text("user name", &user.username)?;
        }
        let ids = self.storage.add_users(users).await?;
        let added: Vec<UserId> = ids.iter().flatten().flatten().copied().collect();
        let propagation = self.propagate(|mirror| mirror.users(&added)).await;
        Ok(Saved::new(ids, propagation))
    }

    /// Tells the nodes of a user that was changed in storage by other means.
    pub async fn publish_user(&self, id: UserId) -> Saved<()> {
        Saved::new((), self.mirror_user(id).await)
    }

    /// Changes what the patch names, and nothing else.
    pub async fn update_user(&self, id: UserId, patch: &UserPatch) -> Result<Saved<()>, EditError> {
        if let Some(username) = &patch.username {
            validate_text("user name", username)?;
        }
        for total in [patch.uploaded, patch.downloaded].into_iter().flatten() {
            if total > PLAUSIBLE_MAX {
                return Err(EditError::Invalid(format!(
                    "a total must be at most {PLAUSIBLE_MAX} bytes"
                )));
            }
        }
        self.storage.update_user(id, patch).await?;
        let user = self.mirror_user(id).await;
        let totals = self.propagate(|mirror| mirror.totals(id, patch));
        Ok(Saved::new((), user.and(totals.await)))
    }

    pub async fn set_user_enabled(
        &self,
        id: UserId,
        enabled: bool,
    ) -> Result<Saved<()>, EditError> {
        let patch = UserPatch {
            enabled: Some(enabled),
            ..UserPatch::default()
        };
        self.update_user(id, &patch).await
    }

    /// Gives a user a new random passkey; the old one is refused from then on.
    pub async fn new_passkey(&self, id: UserId) -> Result<Saved<Passkey>, EditError> {
        let passkey = random_passkey()?;
        let patch = UserPatch {
            passkey: Some(passkey.clone()),
            ..UserPatch::default()
        };
        Ok(self.update_user(id, &patch).await?.map(|()| passkey))
    }

    /// Adds torrents in one transaction; for each, its id, none if it is known already, or why the
    /// database refuses it.
    pub async fn add_torrents(
        &self,
        torrents: &[NewTorrent],
    ) -> Result<Saved<Vec<Added<TorrentId>>>, EditError> {
        for torrent in torrents {
            validate_length("torrent name", &torrent.name)?;
        }
        let ids = self.storage.add_torrents(torrents).await?;
        let added: Vec<TorrentId> = ids.iter().flatten().flatten().copied().collect();
        let propagation = self.propagate(|mirror| mirror.torrents(&added)).await;
        Ok(Saved::new(ids, propagation))
    }

    /// Registers a torrent as the web application has it. One that is registered under this info
    /// hash gets this name and this id, with all that is recorded of it, and is enabled again.
    ///
    /// # Errors
    /// [`StorageError::Duplicate`] if another torrent has the id, or had it and left records; or if
    /// the id can't be changed here, because the web application's own table has it.
    pub async fn register_torrent(
        &self,
        id: TorrentId,
        info_hash: InfoHash,
        name: &str,
    ) -> Result<Saved<()>, EditError> {
        validate_length("torrent name", name)?;
        let known = self.storage.torrent(info_hash).await?;
        let Some(known) = known else {
            let torrent = NewTorrent {
                id: Some(id),
                info_hash,
                info_hash_v2: None,
                name: name.to_owned(),
            };
            let added = self.add_torrents(&[torrent]).await?;
            return match added.value.first() {
                Some(Ok(Some(_))) => Ok(Saved::new((), added.propagation)),
                Some(Err(problem)) => Err(EditError::Invalid(problem.clone())),
                _ => Err(StorageError::Duplicate(format!("torrent {}", id.0)).into()),
            };
        };
        let patch = TorrentPatch {
            id: (known.torrent.id != id).then_some(id),
            name: Some(name.to_owned()),
            enabled: Some(true),
            reason: Some(None),
            ..TorrentPatch::default()
        };
        let saved = self.update_torrent(info_hash, &patch).await?;
        Ok(saved.map(drop))
    }

    /// Disables a torrent, with the reason that clients are given, or enables it again.
    pub async fn set_torrent_enabled(
        &self,
        info_hash: InfoHash,
        enabled: bool,
        reason: Option<String>,
    ) -> Result<Saved<StoredTorrent>, EditError> {
        let patch = TorrentPatch {
            enabled: Some(enabled),
            reason: Some(reason),
            ..TorrentPatch::default()
        };
        self.update_torrent(info_hash, &patch).await
    }

    /// Removes torrents, with the records of their peers; returns those that were there and are gone.
    pub async fn remove_torrents(
        &self,
        torrents: &[TorrentRemoval],
    ) -> Result<Saved<Vec<InfoHash>>, EditError> {
        let mut known = Vec::new();
        for torrent in torrents {
            let stored = self.storage.torrent(torrent.info_hash).await?;
            // It may have been named by its second info hash.
            known.extend(stored.map(|stored| TorrentRemoval {
                info_hash: stored.torrent.info_hash,
                ..*torrent
            }));
        }
        self.storage.remove_torrents(&known).await?;
        let mut gone = Vec::new();
        for TorrentRemoval { info_hash, .. } in known {
            if self.storage.torrent(info_hash).await?.is_none() {
                gone.push(info_hash);
            }
        }
        let propagation = self
            .propagate(|mirror| mirror.torrents_gone(gone.clone()))
            .await;
        Ok(Saved::new(gone, propagation))
    }

    /// Changes what the patch names, and nothing else; returns the torrent as it is then.
    pub async fn update_torrent(
        &self,
        info_hash: InfoHash,
        patch: &TorrentPatch,
    ) -> Result<Saved<StoredTorrent>, EditError> {
        if let Some(Some(reason)) = &patch.reason {
            validate_text("reason", reason)?;
        }
        if let Some(name) = &patch.name {
            validate_length("torrent name", name)?;
        }
        let not_found = || StorageError::NotFound(format!("torrent {info_hash}"));
        let stored = self.storage.torrent(info_hash).await?;
        let id = stored.ok_or_else(not_found)?.torrent.id;
        self.storage.update_torrent(id, patch).await?;
        let id = patch.id.unwrap_or(id);
        let propagation = self.propagate(|mirror| mirror.torrents(from_ref(&id)));
        let propagation = propagation.await;
        let stored = self.storage.torrent(info_hash).await?;
        Ok(Saved::new(stored.ok_or_else(not_found)?, propagation))
    }

    /// Allows clients, or renames those whose prefix is there; all of them or, if one is invalid, none.
    pub async fn add_clients(&self, clients: &[ClientPrefix]) -> Result<Saved<()>, EditError> {
        clients.iter().try_for_each(validate_client)?;
        self.storage.add_clients(clients).await?;
        Ok(Saved::new((), self.mirror_whitelist().await))
    }

    pub async fn remove_client(&self, prefix: &str) -> Result<Saved<()>, EditError> {
        self.storage.remove_client(prefix).await?;
        Ok(Saved::new((), self.mirror_whitelist().await))
    }

    /// Sets the totals of all users or torrents to 0, in portions, with a call of `progress` after each.
    pub async fn wipe(
        &self,
        what: Wipe,
        progress: &mut (dyn FnMut() + Send),
    ) -> Result<Saved<()>, EditError> {
        let mut after = None;
        while let Some(last) = self.storage.wipe(what, after, WIPE_PORTION).await? {
            after = Some(last);
            progress();
        }
        let propagation = self.propagate(|mirror| mirror.wipe(what, progress)).await;
        Ok(Saved::new((), propagation))
    }

    async fn mirror_user(&self, id: UserId) -> Propagation {
        self.propagate(|mirror| mirror.users(from_ref(&id))).await
    }

    async fn mirror_whitelist(&self) -> Propagation {
        self.propagate(Mirror::whitelist).await
    }

    /// Brings an edit to the nodes, where they share a cache.
    async fn propagate<'a, F>(&'a self, write: impl FnOnce(&'a Mirror) -> F) -> Propagation
    where
        F: Future<Output = Result<(), SyncError>>,
    {
        let Some(mirror) = &self.mirror else {
            return Propagation::Done;
        };
        match write(mirror).await {
            Ok(()) => Propagation::Done,
            Err(error) => Propagation::Pending(error.to_string()),
        }
    }
}

// === impl Propagation ===

impl Propagation {
    /// Whether nodes know of both of two edits.
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::Done => other,
            pending @ Self::Pending(_) => pending,
        }
    }
}

// === impl Saved ===

impl<T> Saved<T> {
    fn new(value: T, propagation: Propagation) -> Self {
        Self { value, propagation }
    }

    pub fn map<U>(self, other: impl FnOnce(T) -> U) -> Saved<U> {
        Saved {
            value: other(self.value),
            propagation: self.propagation,
        }
    }
}

/// 1 to [`TEXT_MAX`] characters, none of them a control character.
pub fn validate_text(what: &str, text: &str) -> Result<(), EditError> {
    validate_length(what, text)?;
    if text.chars().any(char::is_control) {
        return Err(EditError::Invalid(format!(
            "the {what} must not have control characters"
        )));
    }
    Ok(())
}

fn validate_length(what: &str, text: &str) -> Result<(), EditError> {
    if text.is_empty() || text.chars().nth(TEXT_MAX).is_some() {
        return Err(EditError::Invalid(format!(
            "the {what} must have 1 to {TEXT_MAX} characters"
        )));
    }
    Ok(())
}
