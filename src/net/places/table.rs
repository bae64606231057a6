//! The connections of one worker, in order of how long each has been doing what it does.
//!
//! Every connection is in two doubly linked lists: that of its phase, and that of its phase within
//! its network. Both are ordered by when the phase began, so that the one that has been idle
//! longest, of all or of one network, is found and moved in constant time.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use tokio::task::AbortHandle;

use super::Phase;

/// Where a list or a chain ends.
const END: u32 = u32::MAX;

/// All connections that one worker serves.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    lists: Lists,
    /// The lists of each network that has a connection here, by its key.
    networks: HashMap<u32, Network, RandomState>,
    /// Seconds that have passed, as the worker counts them.
    seconds: u32,
}

#[derive(Default)]
struct Network {
    connections: u32,
    lists: Lists,
}

/// A list for each phase.
type Lists = [List; Phase::ALL.len()];

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
    /// The second in which the phase began.
    second: u32,
    /// When the phase began, in nanoseconds: the order of the lists.
    since: u64,
    /// None for a connection that counts for no network.
    network: Option<u32>,
    links: [Links; 2],
}

enum State {
    Free,
    /// Its task is not known yet, so it is in no list.
    Entered,
    Served(AbortHandle),
    /// Its task is being ended; what it held belongs to somebody else already.
    Evicted,
}

/// Which connections may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    Network(u32),
}

/// A connection that was taken out to be ended.
pub(super) struct Evicted {
    pub task: AbortHandle,
    pub network: Option<u32>,
}

/// A connection that ended by itself.
pub(super) struct Left {
    pub network: Option<u32>,
}

/// Which of a slot's two chains: that of all connections, or that of its network.
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

// === impl Table ===

impl Table {
    /// A slot for a new connection.
    pub fn enter(&mut self, network: Option<u32>) -> u32 {
        let end = Links {
            before: END,
            after: END,
        };
        let slot = Slot {
            state: State::Entered,
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

    /// From now on the connection can be ended through its task.
    pub fn serve(&mut self, at: u32, task: AbortHandle, phase: Phase, now: u64) {
        // A task that has ended already has given its slot back.
        if task.is_finished() {
            return;
        }
        let slot = &mut self.slots[at as usize];
        if matches!(slot.state, State::Entered) {
            slot.state = State::Served(task);
            slot.phase = phase;
            self.push(at, now);
        }
    }

    /// The connection goes over to that phase, which begins now.
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

    /// Gives a slot back; none if the connection was evicted before, and counts no more.
    pub fn leave(&mut self, at: u32) -> Option<Left> {
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
        Some(Left { network })
    }

    /// Since when the oldest connection has been in one of the phases.
    pub fn oldest(&self, scope: Scope, phases: &[Phase]) -> Option<u64> {
        self.first(scope, phases).map(|(_, since)| since)
    }

    /// Takes out the connection that has been in one of the phases longest.
    pub fn evict(&mut self, scope: Scope, phases: &[Phase]) -> Option<Evicted> {
        let (at, _) = self.first(scope, phases)?;
        self.take_out(at)
    }

    /// Lets a second pass, and takes out the connections that have been in their phase for longer
    /// than `limit` says, in seconds; also tells how long each was.
    pub fn tick(&mut self, limit: impl Fn(Phase) -> u32) -> Vec<(Evicted, Phase, u32)> {
        self.seconds += 1;
        let mut overdue = Vec::new();
        for phase in Phase::ALL {
            while let Some(at) = self.lists[phase as usize].first() {
                let age = self.seconds - self.slots[at as usize].second;
                // One more, because the first second may have begun just before the next tick.
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

    /// Whether every slot was given back.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    fn first(&self, scope: Scope, phases: &[Phase]) -> Option<(u32, u64)> {
        let lists = match scope {
            Scope::All => &self.lists,
            Scope::Network(network) => &self.networks.get(&network)?.lists,
        };
        let firsts = phases
            .iter()
            .filter_map(|&phase| lists[phase as usize].first());
        let firsts = firsts.map(|at| (at, self.slots[at as usize].since));
        firsts.min_by_key(|&(_, since)| since)
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
        if let Some(lists) = network.and_then(|it| self.networks.get_mut(&it)) {
            lists.lists[phase as usize].push(&mut self.slots, at, Chain::Network);
        }
    }

    fn unlink(&mut self, at: u32) {
        let Slot { phase, network, .. } = self.slots[at as usize];
        self.lists[phase as usize].remove(&mut self.slots, at, Chain::All);
        if let Some(lists) = network.and_then(|it| self.networks.get_mut(&it)) {
            lists.lists[phase as usize].remove(&mut self.slots, at, Chain::Network);
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
