//! The keys of one server, with values of the types that Mika uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

/// Milliseconds and sequence number.
pub type EntryId = (u64, u64);

/// What Redis calls a string.
pub type Bytes = Vec<u8>;

pub type Hash = BTreeMap<Bytes, Bytes>;
pub type Set = BTreeSet<Bytes>;
pub type Sorted = BTreeMap<Bytes, i64>;

/// Fields and values of an entry.
pub type Fields = Vec<(Bytes, Bytes)>;

/// Copies share their values. All keys of Mika are text.
#[derive(Clone, Default)]
pub struct Keyspace {
    keys: BTreeMap<Arc<str>, Arc<Held>>,
    /// When some of the keys expire.
    expiring: BTreeMap<Arc<str>, Instant>,
    /// Grows with each change.
    pub version: u64,
}

#[derive(Clone)]
pub enum Held {
    Text(Bytes),
    Hash(Hash),
    Set(Set),
    Sorted(Sorted),
    Stream(Stream),
}

#[derive(Clone, Default)]
pub struct Stream {
    pub entries: BTreeMap<EntryId, Arc<Fields>>,
    pub last: EntryId,
}

/// A type that a key can hold.
pub trait Kind: Default {
    fn of(held: &Held) -> Option<&Self>;
    fn of_mut(held: &mut Held) -> Option<&mut Self>;
    fn held(self) -> Held;
    fn is_empty(&self) -> bool;
}

/// The key holds another type of value.
pub struct WrongType;

macro_rules! kinds {
    ($($kind:ty => $variant:ident, $is_empty:expr;)*) => {$(
        impl Kind for $kind {
            fn of(held: &Held) -> Option<&Self> {
                match held {
                    Held::$variant(value) => Some(value),
                    _ => None,
                }
            }
            fn of_mut(held: &mut Held) -> Option<&mut Self> {
                match held {
                    Held::$variant(value) => Some(value),
                    _ => None,
                }
            }
            fn held(self) -> Held {
                Held::$variant(self)
            }
            fn is_empty(&self) -> bool {
                let is_empty: fn(&$kind) -> bool = $is_empty;
                is_empty(self)
            }
        }
    )*};
}

kinds! {
    Bytes => Text, |_| false;
    Hash => Hash, BTreeMap::is_empty;
    Set => Set, BTreeSet::is_empty;
    Sorted => Sorted, BTreeMap::is_empty;
    // A stream stays when its last entry is gone.
    Stream => Stream, |_| false;
}

// === impl Keyspace ===

impl Keyspace {
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.keys.keys()
    }

    pub fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// The value of a key.
    pub fn get<K: Kind>(&self, key: &str) -> Result<Option<&K>, WrongType> {
        match self.keys.get(key) {
            Some(held) => K::of(held).map(Some).ok_or(WrongType),
            None => Ok(None),
        }
    }

    /// Changes the value of a key, which is created if it is missing and removed if it is empty afterwards.
    pub fn change<K: Kind, T>(
        &mut self,
        key: &str,
        change: impl FnOnce(&mut K) -> T,
    ) -> Result<T, WrongType> {
        self.version += 1;
        let new = || Arc::new(K::default().held());
        let held = self.keys.entry(key.into()).or_insert_with(new);
        let value = K::of_mut(Arc::make_mut(held)).ok_or(WrongType)?;
        let result = change(value);
        if value.is_empty() {
            self.remove(key);
        }
        Ok(result)
    }

    /// Writes a text, whatever the key held.
    pub fn set(&mut self, key: &str, text: Bytes, until: Option<Instant>) {
        self.remove(key);
        self.version += 1;
        let key: Arc<str> = key.into();
        if let Some(until) = until {
            self.expiring.insert(Arc::clone(&key), until);
        }
        self.keys.insert(key, Arc::new(Held::Text(text)));
    }

    /// Lets a key expire then; false if it is missing.
    pub fn expire(&mut self, key: &str, until: Instant) -> bool {
        let is_there = self.has(key);
        if is_there {
            self.version += 1;
            self.expiring.insert(key.into(), until);
        }
        is_there
    }

    pub fn remove(&mut self, key: &str) -> bool {
        self.expiring.remove(key);
        let is_gone = self.keys.remove(key).is_some();
        self.version += u64::from(is_gone);
        is_gone
    }

    /// Removes what has expired by `now`.
    pub fn purge(&mut self, now: Instant) {
        let (keys, version) = (&mut self.keys, &mut self.version);
        self.expiring.retain(|key, until| {
            let is_alive = *until > now;
            if !is_alive {
                keys.remove(key);
                *version += 1;
            }
            is_alive
        });
    }

    /// Keeps these keys only.
    pub fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.version += 1;
        self.keys.retain(|key, _| is_kept(key));
        self.expiring.retain(|key, _| is_kept(key));
    }

    /// Moves a key from another server to this one.
    pub fn take_from(&mut self, other: &mut Self, key: &str) {
        self.version += 1;
        other.version += 1;
        if let Some((key, held)) = other.keys.remove_entry(key) {
            self.keys.insert(key, held);
        }
        if let Some((key, until)) = other.expiring.remove_entry(key) {
            self.expiring.insert(key, until);
        }
    }
}
