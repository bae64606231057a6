//! Edits of users, torrents and the whitelist while clients announce, as the API and `mika-manage` make them.

use std::borrow::Borrow as _;
use std::sync::Arc;
use std::time::Duration;

use mika::base::ids::{InfoHash, UserId};
use mika::registry::{ClientPrefix, Permille, Registry, StoredTorrent, StoredUser, Whitelist};
use mika::storage::{NewTorrent, Storage, TorrentPatch, TorrentRemoval, UserPatch};
use mika::sync::edit::Editor;
use tokio::time::sleep;

use super::storage;
use super::storage::{Tables, info_hash};
use super::story::About;
use super::world::World;

/// Multipliers in thousandths; 0 is freeleech.
const FACTORS: [u32; 5] = [0, 500, 1000, 1500, 3000];

/// Torrents and clients of the whitelist that come and go have numbers from here on; how many of each.
const OTHERS: u32 = 100;
const OTHERS_COUNT: u32 = 4;

/// An editor.
pub struct Operator {
    world: Arc<World>,
    random: fastrand::Rng,
    editor: Editor,
}

// === impl Operator ===

impl Operator {
    pub fn new(world: &Arc<World>, random: fastrand::Rng) -> Self {
        let host = world.new_host(0);
        let storage: Arc<dyn Storage> = Arc::new(storage::Link {
            database: Arc::clone(&world.database),
            network: Arc::clone(&world.network),
            host,
            story: world.story.clone(),
        });
        let cache = world.cache_of(host);
        Self {
            world: Arc::clone(world),
            random,
            editor: Editor::new(storage, cache),
        }
    }

    /// Edits now and then, until it is dropped.
    pub async fn go_on(&mut self) {
        loop {
            let wait = self.random.u64(1_000..30_000);
            sleep(Duration::from_millis(wait)).await;
            self.edit().await;
        }
    }

    async fn edit(&mut self) {
        let user = UserId(self.random.u32(1..=self.world.plan.users));
        let torrent = info_hash(self.random.u32(1..=self.world.plan.torrents));
        let number = OTHERS + self.random.u32(..OTHERS_COUNT);
        let (what, saved) = match self.random.u32(..8) {
            0 | 1 => {
                let enabled = self.random.u32(..3) > 0;
                let saved = self.editor.set_user_enabled(user, enabled).await;
                (format!("user {} enabled: {enabled}", user.0), saved)
            }
            2..=4 => self.set_factors(torrent).await,
            5 => self.add_or_remove_torrent(info_hash(number)).await,
            6 => {
                let name = format!("new-{}", self.random.u32(..1000));
                let passkey = format!("{name}-passkey").parse().ok();
                let added = self.editor.add_user(&name, passkey).await;
                (format!("{name} is added"), added.map(|it| it.map(drop)))
            }
            _ => self.edit_whitelist(number).await,
        };
        let how = match saved {
            Ok(saved) => format!("{:?}", saved.propagation),
            Err(error) => format!("not known to be saved: {error}"),
        };
        self.world
            .story
            .record(About::All, format!("edit: {what}: {how}"));
    }

    async fn set_factors(&mut self, torrent: InfoHash) -> Edited {
        let mut factor = || Permille(FACTORS[self.random.usize(..FACTORS.len())]);
        let patch = TorrentPatch {
            multi_up: Some(factor()),
            multi_down: Some(factor()),
            ..TorrentPatch::default()
        };
        let saved = self.editor.update_torrent(torrent, &patch).await;
        let (up, down) = (patch.multi_up, patch.multi_down);
        let what = format!("factors of {torrent}: {up:?} and {down:?}");
        (what, saved.map(|it| it.map(drop)))
    }

    async fn add_or_remove_torrent(&mut self, info_hash: InfoHash) -> Edited {
        if self.random.bool() {
            let new = NewTorrent {
                id: None,
                info_hash,
                info_hash_v2: None,
                name: "new".to_owned(),
            };
            let added = self.editor.add_torrents(&[new]).await;
            return (
                format!("{info_hash} is added"),
                added.map(|it| it.map(drop)),
            );
        }
        let removal = TorrentRemoval {
            info_hash,
            unused: None,
        };
        let removed = self.editor.remove_torrents(&[removal]).await;
        let removed = removed.map(|it| it.map(drop));
        (format!("{info_hash} is removed"), removed)
    }

    async fn edit_whitelist(&mut self, number: u32) -> Edited {
        let prefix = format!("-X{number}");
        if self.random.bool() {
            let client = ClientPrefix {
                prefix: prefix.clone(),
                name: "a client".to_owned(),
            };
            let added = self.editor.add_clients(&[client]).await;
            return (format!("{prefix} is allowed"), added);
        }
        let removed = self.editor.remove_client(&prefix).await;
        (format!("{prefix} is allowed no more"), removed)
    }

    /// Enables all users again.
    pub async fn end(&mut self) {
        let patch = UserPatch {
            enabled: Some(true),
            ..UserPatch::default()
        };
        for user in 1..=self.world.plan.users {
            while let Err(error) = self.editor.update_user(UserId(user), &patch).await {
                self.world
                    .story
                    .record(About::All, format!("user {user} is not enabled: {error}"));
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// What an edit was, and what came of it.
type Edited = (
    String,
    Result<mika::sync::edit::Saved<()>, mika::sync::edit::EditError>,
);

/// What a node's registry has otherwise than storage.
pub fn differences(registry: &Registry, tables: &Tables) -> Vec<String> {
    let user_differs = |row: &&StoredUser| {
        let known = registry.access(row.user.passkey.borrow());
        let known = known.map(|it| (it.user, it.enabled, it.can_leech));
        known != Some((row.user.id, row.user.enabled, row.user.can_leech))
    };
    let torrent_differs = |row: &&StoredTorrent| {
        let it = &row.torrent;
        let known = registry.torrent(&it.info_hash);
        let known = known.map(|known| (known.id, known.multi_up, known.multi_down));
        known != Some((it.id, it.multi_up, it.multi_down))
    };
    let users = tables.users.values().filter(user_differs);
    let torrents = tables.torrents.values().filter(torrent_differs);
    let users = users.map(|row| format!("user {}", row.user.id.0));
    let torrents = torrents.map(|row| format!("torrent {}", row.torrent.id.0));
    let mut differences: Vec<String> = users.chain(torrents).collect();
    if **registry.whitelist() != Whitelist::new(&tables.whitelist) {
        differences.push("the whitelist".to_owned());
    }
    let is_stored = |hash: &InfoHash| {
        let mut stored = tables.torrents.values();
        stored.any(|row| row.torrent.info_hash == *hash)
    };
    let gone = registry
        .info_hashes()
        .into_iter()
        .filter(|it| !is_stored(it));
    differences.extend(gone.map(|hash| format!("torrent {hash}, which was deleted")));
    let (users, torrents, _) = registry.sizes();
    if (users, torrents) != (tables.users.len(), tables.torrents.len()) {
        differences.push(format!(
            "the numbers of users and torrents: {users} and {torrents}"
        ));
    }
    differences
}
