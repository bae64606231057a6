//! The marks: how much of the state that nodes share is in the cache.

use super::{Cache, CacheError, Generation};

/// The version of the registry's keys: a cache filled by another version is filled again. Version 2: the
/// sets of users are restored from storage.
const LAYOUT: &str = "2";

/// The text of [`Mark::Peers`].
const ALL: &str = "all";

/// What a mark says to be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Registry,
    Peers,
}

/// How far the registry in the cache follows storage. Set once it is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// The position in storage's feed up to which the cache has the changes.
    pub position: u64,
    /// The identity of that database; without `/`.
    pub storage: String,
    /// [`CacheUpkeep::evicted`](super::CacheUpkeep::evicted) before the registry was loaded. If it has
    /// grown, rows may be missing.
    pub evicted: u64,
}

impl dyn Cache + '_ {
    /// How far the registry here follows storage; none if it is incomplete, or if the server was restarted
    /// since.
    pub async fn mirrored(&self) -> Result<Option<Mirrored>, CacheError> {
        let mark = self.mark(Mark::Registry).await?;
        Ok(mark.as_deref().and_then(Mirrored::of))
    }

    /// Fenced like [`Cache::set_mark`].
    pub async fn set_mirrored(
        &self,
        generation: Generation,
        mirrored: Mirrored,
    ) -> Result<(), CacheError> {
        let text = mirrored.text();
        self.set_mark(Mark::Registry, Some((generation, &text)))
            .await
    }

    /// Marks the registry as incomplete: the cache has to be filled again.
    pub async fn forget_mirrored(&self) -> Result<(), CacheError> {
        self.set_mark(Mark::Registry, None).await
    }

    /// Whether all peers that nodes know are here, so that a node may start from them. False once the
    /// server was restarted.
    pub async fn has_all_peers(&self) -> Result<bool, CacheError> {
        Ok(self.mark(Mark::Peers).await?.as_deref() == Some(ALL))
    }

    /// Records that all peers were written; fenced like [`Cache::set_mark`].
    pub async fn set_has_all_peers(&self, generation: Generation) -> Result<(), CacheError> {
        self.set_mark(Mark::Peers, Some((generation, ALL))).await
    }

    /// Records that peers are missing here: a start loads those of storage.
    pub async fn forget_peers(&self) -> Result<(), CacheError> {
        self.set_mark(Mark::Peers, None).await
    }
}

impl Mirrored {
    fn text(&self) -> String {
        let Self {
            position,
            storage,
            evicted,
        } = self;
        format!("{position}/{LAYOUT}/{evicted}/{storage}")
    }

    /// What [`Mirrored::text`] wrote; none if it was written by a version with other keys.
    fn of(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [position, LAYOUT, evicted, storage] = parts[..] else {
            return None;
        };
        Some(Self {
            position: position.parse().ok()?,
            evicted: evicted.parse().ok()?,
            storage: storage.to_owned(),
        })
    }
}
