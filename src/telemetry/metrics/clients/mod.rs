//! Sessions begun by client name and version, as read from peer ids (BEP 20).
//!
//! All sizes are fixed, whatever clients send: the names are those of [`KNOWN`], and each has slots
//! for the first [`VERSIONS_MAX`] versions seen.

mod known;
mod version;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use self::known::{KNOWN, identify};
use self::version::ClientVersion;
use crate::base::lanes::Lanes;

/// Versions counted separately for one client; others count as `other`.
pub const VERSIONS_MAX: usize = 8;

/// The name for all other clients or versions.
const OTHER: &str = "other";

/// The known clients, and one slot for all others.
const CLIENTS: usize = KNOWN.len() + 1;

/// The versions of a client, and one slot for all others.
struct Counts([[AtomicU64; VERSIONS_MAX + 1]; CLIENTS]);

/// Sessions by client and version, cheap to add to from many threads.
pub struct Clients {
    /// The versions of each client seen so far; 0 is a free slot.
    versions: [[AtomicU64; VERSIONS_MAX]; CLIENTS],
    lanes: Lanes<Counts>,
}

/// Sessions begun by a version of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSessions {
    pub client: &'static str,
    pub version: String,
    pub sessions: u64,
}

impl Default for Counts {
    fn default() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self(std::array::from_fn(|_| zeros()))
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            versions: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            lanes: Lanes::default(),
        }
    }
}

impl Clients {
    /// Counts the start of a session by a client with that peer id.
    pub fn count(&self, peer_id: &[u8; 20]) {
        let (client, version) = match identify(peer_id) {
            Some((client, version)) => (client, self.place(client, version)),
            None => (KNOWN.len(), VERSIONS_MAX),
        };
        let Counts(counts) = self.lanes.own();
        counts[client][version].fetch_add(1, Ordering::Relaxed);
    }

    /// All clients seen, in the order of their names.
    pub fn all(&self) -> Vec<ClientSessions> {
        let mut sums: BTreeMap<(&str, String), u64> = BTreeMap::new();
        for client in 0..CLIENTS {
            for place in 0..=VERSIONS_MAX {
                let lanes = self.lanes.iter();
                let counts = lanes.map(|lane| lane.0[client][place].load(Ordering::Relaxed));
                let sessions: u64 = counts.sum();
                if sessions > 0 {
                    let key = (name(client), self.version(client, place));
                    *sums.entry(key).or_default() += sessions;
                }
            }
        }
        let counts = sums.into_iter();
        let count = |((client, version), sessions)| ClientSessions {
            client,
            version,
            sessions,
        };
        counts.map(count).collect()
    }

    /// The slot of that version: its own, if it has one or one is free.
    fn place(&self, client: usize, version: Option<ClientVersion>) -> usize {
        let Some(version) = version.map(ClientVersion::code) else {
            return VERSIONS_MAX;
        };
        let places = self.versions[client].iter();
        let mut places = places.map(|place| match place.load(Ordering::Relaxed) {
            0 => match place.compare_exchange(0, version, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => version,
                Err(other) => other,
            },
            taken => taken,
        });
        let found = places.position(|taken| taken == version);
        found.unwrap_or(VERSIONS_MAX)
    }

    fn version(&self, client: usize, place: usize) -> String {
        let code = self.versions[client]
            .get(place)
            .map_or(0, |version| version.load(Ordering::Relaxed));
        ClientVersion::of_code(code).map_or_else(|| OTHER.into(), |version| version.to_string())
    }
}

fn name(client: usize) -> &'static str {
    KNOWN.get(client).map_or(OTHER, |known| known.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer_id(begin: &str) -> [u8; 20] {
        let mut bytes = *b"xxxxxxxxxxxxxxxxxxxx";
        bytes[..begin.len()].copy_from_slice(begin.as_bytes());
        bytes
    }

    fn rows(clients: &Clients) -> Vec<(&'static str, String, u64)> {
        let all = clients.all().into_iter();
        all.map(|client| (client.client, client.version, client.sessions))
            .collect()
    }

    #[test]
    fn clients_are_counted_by_name_and_version() {
        let clients = Clients::default();
        let ids = ["-qB4650-", "-qB4650-", "-TR4050-", "-qB5010-", "-ZQ1234-"];
        for id in ids {
            clients.count(&peer_id(id));
        }
        let expected = [
            ("Transmission", "4.0.5".into(), 1),
            ("other", "other".into(), 1),
            ("qBittorrent", "4.6.5".into(), 2),
            ("qBittorrent", "5.0.1".into(), 1),
        ];
        assert_eq!(rows(&clients), expected);
    }

    #[test]
    fn client_names_cannot_grow_the_lists() {
        let clients = Clients::default();
        let mut rng = fastrand::Rng::with_seed(3);
        for number in 0..100_000_u32 {
            let mut id = [0; 20];
            rng.fill(&mut id);
            if number % 2 == 0 {
                let version = format!("-qB{:04}-", number / 2 % 10_000);
                id[..8].copy_from_slice(version.as_bytes());
            }
            clients.count(&id);
        }
        let all = clients.all();
        assert!(all.len() <= CLIENTS * (VERSIONS_MAX + 1));
        let of = |name| all.iter().filter(move |row| row.client == name);
        assert_eq!(of("qBittorrent").count(), VERSIONS_MAX + 1);
        let other = of("qBittorrent").find(|row| row.version == OTHER).unwrap();
        assert!(other.sessions > 40_000);
        assert_eq!(all.iter().map(|row| row.sessions).sum::<u64>(), 100_000);
    }

    #[test]
    fn threads_agree_on_the_places_of_versions() {
        let clients = Clients::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..1000 {
                        clients.count(&peer_id(&format!("-DE2{}0s-", round % 8)));
                    }
                });
            }
        });
        let sessions: Vec<u64> = clients.all().iter().map(|row| row.sessions).collect();
        assert_eq!(sessions, [1000; 8]);
    }
}
