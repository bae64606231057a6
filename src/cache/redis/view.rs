//! The servers as they are known at one moment.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use sha1::{Digest as _, Sha1};

use super::connection::Connection;
use super::keys;
use super::place::Address;
use super::slots::{SlotMap, TAGS, slot_of, tag_of};
use crate::cache::{CacheError, Generation};

/// Servers, and which of them serves which key. Replaced as a whole when something changes.
#[derive(Clone)]
pub(super) struct View {
    pub(super) generation: Generation,
    /// Identifies the present runs of all servers.
    pub(super) run: Arc<str>,
    /// The masters of a cluster in the order of their addresses; else one server.
    pub(super) servers: Vec<Server>,
    /// None if there is one server.
    pub(super) slots: Option<SlotMap>,
    /// The keys of the epochs in a cluster: one for each tag, and one of each master that has none of these.
    pub(super) epoch_keys: Arc<[String]>,
    /// Differs from that of the view before if slots have moved; wraps.
    pub(super) version: u8,
}

/// A server of a [`View`].
#[derive(Clone)]
pub(super) struct Server {
    /// For messages; without secrets.
    pub(super) name: Arc<str>,
    pub(super) address: Option<Address>,
    /// Its run, as far as it was ever known.
    pub(super) run: Option<Arc<str>>,
    /// None while it is away.
    pub(super) connection: Option<Arc<Connection>>,
    /// Why it is away.
    pub(super) problem: Option<String>,
}

// === impl View ===

impl View {
    /// The one server.
    pub(super) fn of_one(connection: Connection) -> Self {
        Self {
            generation: Generation(0),
            run: Arc::clone(&connection.run),
            servers: vec![Server::connected(Arc::new(connection))],
            slots: None,
            epoch_keys: Arc::default(),
            version: 0,
        }
    }

    /// The masters of a cluster, in the order of the slots' indices.
    pub(super) fn of_cluster(servers: Vec<Server>, slots: SlotMap) -> Self {
        Self {
            generation: Generation(0),
            run: common_run(&servers),
            epoch_keys: epoch_keys(&slots, servers.len()),
            servers,
            slots: Some(slots),
            version: 0,
        }
    }

    /// Whether every server is connected and every slot is served.
    pub(super) fn is_whole(&self) -> bool {
        self.servers.iter().all(|it| it.connection.is_some())
            && self
                .slots
                .as_ref()
                .is_none_or(|slots| slots.unserved() == 0)
    }

    pub(super) fn has_connection(&self) -> bool {
        self.servers.iter().any(|it| it.connection.is_some())
    }

    /// What is away, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        if let Some(problem) = self.servers.iter().find_map(|it| it.problem.clone()) {
            return Some(problem);
        }
        let unserved = self.slots.as_ref().map_or(0, SlotMap::unserved);
        (unserved > 0).then(|| format!("no master of the cluster serves {unserved} of its slots"))
    }

    /// The index of the server that has a key; none if no master serves its slot.
    pub(super) fn server_of(&self, key: &[u8]) -> Option<usize> {
        match &self.slots {
            Some(slots) => slots.master_of(slot_of(key)),
            None => Some(0),
        }
    }

    pub(super) fn index_of(&self, address: &Address) -> Option<usize> {
        self.servers
            .iter()
            .position(|it| it.address.as_ref() == Some(address))
    }

    /// The version of the view that follows this one.
    pub(super) fn version_after(&self, next: &Self) -> u8 {
        let is_same = self.slots == next.slots
            && self.servers.len() == next.servers.len()
            && self
                .servers
                .iter()
                .zip(&next.servers)
                .all(|(a, b)| a.address == b.address);
        self.version.wrapping_add(u8::from(!is_same))
    }

    /// With a slot at another of these masters; none if it is not one of them.
    pub(super) fn with_moved(&self, slot: u16, master: &Address) -> Option<Self> {
        let index = self.index_of(master)?;
        let slots = self.slots.as_ref()?.with(slot, index);
        Some(Self {
            version: self.version.wrapping_add(1),
            epoch_keys: epoch_keys(&slots, self.servers.len()),
            slots: Some(slots),
            ..self.clone()
        })
    }

    /// Without that connection; none if it is not there.
    pub(super) fn without(&self, lost: &Arc<Connection>, error: &CacheError) -> Option<Self> {
        let is_lost = |it: &Server| {
            it.connection
                .as_ref()
                .is_some_and(|it| Arc::ptr_eq(it, lost))
        };
        let index = self.servers.iter().position(is_lost)?;
        let mut view = self.clone();
        let server = view.servers.get_mut(index)?;
        server.connection = None;
        server.problem = Some(error.to_string());
        Some(view)
    }
}

/// The keys of the epochs for so many masters.
fn epoch_keys(slots: &SlotMap, masters: usize) -> Arc<[String]> {
    let of_tags: Vec<Option<usize>> = TAGS
        .iter()
        .map(|tag| slots.master_of(slot_of(tag.as_bytes())))
        .collect();
    let others = (0..masters).filter(|index| !of_tags.contains(&Some(*index)));
    let tags_of_others = others.filter_map(|index| slots.first_of(index)).map(tag_of);
    let tags = TAGS.iter().map(|tag| (*tag).to_owned());
    tags.chain(tags_of_others)
        .map(|tag| keys::epoch(&tag))
        .collect()
}

/// Identifies the runs of several servers, in any order.
fn common_run(servers: &[Server]) -> Arc<str> {
    let mut runs: Vec<String> = servers
        .iter()
        .map(|server| match (&server.run, &server.address) {
            (Some(run), _) => run.to_string(),
            (None, Some(address)) => format!("unknown at {address}"),
            (None, None) => String::new(),
        })
        .collect();
    runs.sort();
    HEXLOWER.encode(&Sha1::digest(runs.join(" "))).into()
}

// === impl Server ===

impl Server {
    pub(super) fn connected(connection: Arc<Connection>) -> Self {
        Self {
            name: Arc::clone(&connection.server),
            address: connection.address.clone(),
            run: Some(Arc::clone(&connection.run)),
            connection: Some(connection),
            problem: None,
        }
    }

    /// One that is away; `run` as it was before.
    pub(super) fn away(
        name: Arc<str>,
        address: Address,
        run: Option<Arc<str>>,
        problem: String,
    ) -> Self {
        Self {
            name,
            address: Some(address),
            run,
            connection: None,
            problem: Some(problem),
        }
    }
}
