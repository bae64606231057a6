//! The connections of one worker, ordered by how long each has been in its phase.
//!
//! Every connection is in two doubly linked lists: that of its phase, and that of its phase within
//! its network. Both are ordered by the start of the phase, so that the one that has been in its
//! phase longest, of all or of one network, is found and moved in constant time.

use std::collections::HashMap;

use strum::VariantArray as _;
use tokio::task::AbortHandle;

use super::Phase;
use crate::base::hash::RandomState;

/// The end of a list.
const END: u32 = u32::MAX;

/// All connections that one worker serves.
#[derive(Default)]
pub(super) struct ConnectionTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    lists: Lists,
    /// The lists of each network that has a connection here, by its key.
    networks: HashMap<u32, Network, RandomState>,
    /// Seconds since the start, by the ticks of the worker.
    seconds: u32,
}

#[derive(Default)]
struct Network {
    connections: u32,
    lists: Lists,
}

/// A list for each phase.
type Lists = [List; Phase::VARIANTS.len()];

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

/// The neighbours in a list.
#[derive(Clone, Copy)]
struct Links {
    before: u32,
    after: u32,
}

struct Slot {
    state: State,
    phase: Phase,
    /// The tick at which the phase began.
    second: u32,
    /// When the phase began, in nanoseconds: the sort key of the lists.
    since: u64,
    /// None for a connection that counts for no network.
    network: Option<u32>,
    links: [Links; 2],
}

enum State {
    Free,
    /// Its task is not known yet, so it is in no list.
    Reserved,
    Served(AbortHandle),
    /// Its task is being ended; its permit is released already.
    Evicted,
}

/// Which connections may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EvictionScope {
    All,
    Network(u32),
}

/// A connection that was removed and whose task is to be ended.
pub(super) struct Evicted {
    pub task: AbortHandle,
    pub network: Option<u32>,
}

/// A connection that ended by itself.
pub(super) struct Released {
    pub network: Option<u32>,
}

/// Which of a slot's two lists: that of all connections, or that of its network.
#[derive(Clone, Copy)]
enum Chain {
    All = 0,
    Network = 1,
}

// === impl List ===

impl Default for List {
    fn default() -> Self {
        Self {
            first: END,
            last: END,
        }
    }
}

impl List {
    fn push(&mut self, slots: &mut [Slot], at: u32, chain: Chain) {
        let before = std::mem::replace(&mut self.last, at);
        *links(slots, at, chain) = Links { before, after: END };
        if before == END {
            self.first = at;
        } else {
            links(slots, before, chain).after = at;
        }
    }

    fn remove(&mut self, slots: &mut [Slot], at: u32, chain: Chain) {
        let Links { before, after } = *links(slots, at, chain);
        if before == END {
            self.first = after;
        } else {
            links(slots, before, chain).after = after;
        }
        if after == END {
            self.last = before;
        } else {
            links(slots, after, chain).before = before;
        }
    }

    fn first(self) -> Option<u32> {
        (self.first != END).then_some(self.first)
    }
}

fn links(slots: &mut [Slot], at: u32, chain: Chain) -> &mut Links {
    &mut slots[at as usize].links[chain as usize]
}

// === impl ConnectionTable ===

impl ConnectionTable {
    /// Reserves a slot for a new connection.
    pub fn insert(&mut self, network: Option<u32>) -> u32 {
        let end = Links {
            before: END,
            after: END,
        };
        let slot = Slot {
            state: State::Reserved,
            phase: Phase::Request,
            second: self.seconds,
            since: 0,
            network,
            links: [end; 2],
        };
        let at = if let Some(at) = self.free.pop() {
            self.slots[at as usize] = slot;
            at
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        };
        if let Some(network) = network {
            self.networks.entry(network).or_default().connections += 1;
        }
        at
    }

    /// Makes the connection evictable through its task.
    pub fn attach(&mut self, at: u32, task: AbortHandle, phase: Phase, now: u64) {
        // A task that has ended has freed its slot.
        if task.is_finished() {
            return;
        }
        let slot = &mut self.slots[at as usize];
        if matches!(slot.state, State::Reserved) {
            slot.state = State::Served(task);
            slot.phase = phase;
            self.push(at, now);
        }
    }

    /// Puts the connection into that phase, which begins now.
    pub fn begin(&mut self, at: u32, phase: Phase, now: u64) {
        let is_served = matches!(self.slots[at as usize].state, State::Served(_));
        if is_served {
            self.unlink(at);
        }
        let slot = &mut self.slots[at as usize];
        slot.phase = phase;
        slot.second = self.seconds;
        if is_served {
            self.push(at, now);
        }
    }

    pub fn phase(&self, at: u32) -> Phase {
        self.slots[at as usize].phase
    }

    /// Frees a slot. Returns none if the connection was evicted: it is no longer counted then.
    pub fn remove(&mut self, at: u32) -> Option<Released> {
        let is_served = matches!(self.slots[at as usize].state, State::Served(_));
        if is_served {
            self.unlink(at);
        }
        let slot = &mut self.slots[at as usize];
        let network = slot.network;
        let state = std::mem::replace(&mut slot.state, State::Free);
        self.free.push(at);
        if matches!(state, State::Evicted) {
            return None;
        }
        self.leave_network(network);
        Some(Released { network })
    }

    /// When the connection that has been longest in one of `phases` entered that phase.
    pub fn oldest(&self, scope: EvictionScope, phases: &[Phase]) -> Option<u64> {
        self.first(scope, phases).map(|(_, since)| since)
    }

    /// Removes the connection that has been in one of the phases longest.
    pub fn evict(&mut self, scope: EvictionScope, phases: &[Phase]) -> Option<Evicted> {
        let (at, _) = self.first(scope, phases)?;
        self.take_out(at)
    }

    /// Advances by a second, and removes the connections that have been in their phase for more than
    /// `limit` seconds. Returns each with its phase and its seconds in it.
    pub fn tick(&mut self, limit: impl Fn(Phase) -> u32) -> Vec<(Evicted, Phase, u32)> {
        self.seconds += 1;
        let mut overdue = Vec::new();
        for &phase in Phase::VARIANTS {
            while let Some(at) = self.lists[phase as usize].first() {
                let age = self.seconds - self.slots[at as usize].second;
                // At `limit` ticks it may be younger than `limit` seconds: the first may come early.
                if age <= limit(phase) {
                    break;
                }
                let Some(evicted) = self.take_out(at) else {
                    break;
                };
                overdue.push((evicted, phase, age));
            }
        }
        overdue
    }

    /// Whether every slot is free.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    fn first(&self, scope: EvictionScope, phases: &[Phase]) -> Option<(u32, u64)> {
        let lists = match scope {
            EvictionScope::All => &self.lists,
            EvictionScope::Network(network) => &self.networks.get(&network)?.lists,
        };
        phases
            .iter()
            .filter_map(|&phase| lists[phase as usize].first())
            .map(|at| (at, self.slots[at as usize].since))
            .min_by_key(|&(_, since)| since)
    }

    fn take_out(&mut self, at: u32) -> Option<Evicted> {
        self.unlink(at);
        let slot = &mut self.slots[at as usize];
        let network = slot.network;
        let State::Served(task) = std::mem::replace(&mut slot.state, State::Evicted) else {
            return None;
        };
        self.leave_network(network);
        Some(Evicted { task, network })
    }

    fn push(&mut self, at: u32, now: u64) {
        let Slot { phase, network, .. } = self.slots[at as usize];
        self.slots[at as usize].since = now;
        self.lists[phase as usize].push(&mut self.slots, at, Chain::All);
        if let Some(network) = network.and_then(|key| self.networks.get_mut(&key)) {
            network.lists[phase as usize].push(&mut self.slots, at, Chain::Network);
        }
    }

    fn unlink(&mut self, at: u32) {
        let Slot { phase, network, .. } = self.slots[at as usize];
        self.lists[phase as usize].remove(&mut self.slots, at, Chain::All);
        if let Some(network) = network.and_then(|key| self.networks.get_mut(&key)) {
            network.lists[phase as usize].remove(&mut self.slots, at, Chain::Network);
        }
    }

    fn leave_network(&mut self, network: Option<u32>) {
        let Some(key) = network else { return };
        if let Some(network) = self.networks.get_mut(&key) {
            network.connections -= 1;
            if network.connections == 0 {
                self.networks.remove(&key);
            }
        }
    }
}
