//! The servers of the cache: one, or the masters of a cluster with a replica each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Arg, Cmd, Pipeline, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::commands::{Command, error, place_of, text, word};
use super::keyspace::{Keyspace, Stream};
use super::scripts::Scripts;
use super::slots::{Slots, slot_of};

/// Snapshots that are kept, and how far apart they are.
const SNAPSHOTS: usize = 40;
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(100);

/// Ports of the two servers of a part: `FIRST_PORT + PORTS_APART * part`, and the next one.
const FIRST_PORT: u16 = 7000;
const PORTS_APART: u16 = 100;

/// How a part comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgets {
    Nothing,
    /// What it was given within this time.
    Latest(Duration),
    Everything,
}

/// The cache.
pub struct Redis {
    /// Its servers write logs to their disks.
    pub is_persistent: bool,
    /// A part may come back with what it had a moment ago.
    goes_back: bool,
    is_cluster: bool,
    state: Mutex<State>,
    /// Of each part, wakes blocking reads that may have a reply now.
    news: Vec<watch::Sender<()>>,
}

struct State {
    parts: Vec<Part>,
    slots: Slots,
    /// Grows with each failover and each slot that has moved.
    epoch: u64,
    random: fastrand::Rng,
}

/// A master and its replica.
struct Part {
    keys: Keyspace,
    /// Which of the two servers is the master, and the process that each of them is in.
    master: u16,
    runs: [u64; 2],
    /// Begins anew with each failover.
    history: u64,
    scripts: Scripts,
    snapshots: VecDeque<(Instant, Keyspace)>,
}

/// A process of a server: a connection leads to one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub part: usize,
    /// Which server of the part.
    server: u16,
    run: u64,
}

/// The process is gone.
pub struct Gone;

/// The arguments of a command, its name among them.
pub fn args_of(command: &Cmd) -> Vec<&[u8]> {
    let bytes = |arg| match arg {
        Arg::Simple(bytes) => bytes,
        _ => &[][..],
    };
    command.args_iter().map(bytes).collect()
}

/// The key of a command, if it has one.
fn key_of<'a>(args: &[&'a [u8]]) -> Option<&'a str> {
    let at = match word(args, 0) {
        "PING" | "INFO" | "CLUSTER" | "SCRIPT" | "SCAN" | "CONFIG" => return None,
        "XINFO" => 2,
        "EVALSHA" => 3,
        "XREAD" => place_of(args, "STREAMS")? + 1,
        _ => 1,
    };
    (at < args.len()).then(|| word(args, at))
}

// === impl Redis ===

impl Redis {
    /// One server, or a cluster of several parts.
    pub fn new(is_persistent: bool, goes_back: bool, parts: usize, seed: u64) -> Self {
        let part = |_| Part {
            keys: Keyspace::default(),
            master: 0,
            runs: [1, 2],
            history: 1,
            scripts: Scripts::default(),
            snapshots: VecDeque::new(),
        };
        Self {
            is_persistent,
            goes_back,
            is_cluster: parts > 1,
            state: Mutex::new(State {
                parts: (0..parts).map(part).collect(),
                slots: Slots::new(parts),
                epoch: 1,
                random: fastrand::Rng::with_seed(seed),
            }),
            news: (0..parts).map(|_| watch::Sender::new(())).collect(),
        }
    }

    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    pub fn parts(&self) -> usize {
        self.state.lock().parts.len()
    }

    /// As in the config of a node: every server is named.
    pub fn url(&self) -> String {
        if !self.is_cluster {
            return format!("redis://cache:{FIRST_PORT}");
        }
        let parts = 0..self.parts() as u16;
        let hosts = parts.flat_map(|part| {
            let port = FIRST_PORT + PORTS_APART * part;
            [format!("cache:{port}"), format!("cache:{}", port + 1)]
        });
        format!("redis+cluster://{}", hosts.collect::<Vec<_>>().join(","))
    }

    /// The part of the server with that port.
    pub fn part_at(port: u16) -> usize {
        usize::from((port - FIRST_PORT) / PORTS_APART)
    }

    /// The process that listens there now.
    pub fn process_at(&self, port: u16) -> Process {
        let (part, server) = (Self::part_at(port), port % PORTS_APART);
        let run = self.state.lock().parts[part].runs[usize::from(server)];
        Process { part, server, run }
    }

    /// The streams of journals.
    pub fn journals(&self) -> BTreeMap<String, Stream> {
        let state = self.state.lock();
        let mut journals = BTreeMap::new();
        for part in &state.parts {
            let names = part.keys.names();
            for (key, name) in names.filter_map(|key| Some((key, key.strip_prefix("t:journal:")?)))
            {
                if let Ok(Some(stream)) = part.keys.get::<Stream>(key) {
                    journals.insert(name.to_owned(), stream.clone());
                }
            }
        }
        journals
    }

    /// The master of a part is restarted.
    pub fn restart(&self, part: usize, forgets: Forgets) {
        let mut state = self.state.lock();
        state.forget(part, forgets);
        let run = state.random.u64(..);
        let part = &mut state.parts[part];
        part.runs[usize::from(part.master)] = run;
        part.scripts = Scripts::default();
        drop(state);
        self.wake();
    }

    /// The replica of a part takes over. The former master was killed, or goes on as a replica.
    pub fn fail_over(&self, part: usize, forgets: Forgets) {
        let mut state = self.state.lock();
        state.forget(part, forgets);
        state.epoch += 1;
        let (run, is_killed) = (state.random.u64(..), state.random.bool());
        let part = &mut state.parts[part];
        if is_killed {
            part.runs[usize::from(part.master)] = run;
        }
        part.master = 1 - part.master;
        part.history += 1;
        part.scripts = Scripts::default();
        drop(state);
        self.wake();
    }

    /// All keys of a part are deleted, while it runs.
    pub fn flush(&self, part: usize) {
        self.state.lock().parts[part].keys.retain(|_| false);
        self.wake();
    }

    /// The names of all keys.
    pub fn keys(&self) -> Vec<Arc<str>> {
        let state = self.state.lock();
        let names = state.parts.iter().flat_map(|part| part.keys.names());
        names.cloned().collect()
    }

    /// A slot begins to move to a part; false if it is there, or if another one moves.
    pub fn begin_move(&self, slot: u16, to: usize) -> bool {
        self.state.lock().slots.begin_move(slot, to)
    }

    /// Moves the next key of the slot that moves; false if there is none left.
    pub fn move_next(&self) -> bool {
        let mut state = self.state.lock();
        let State { parts, slots, .. } = &mut *state;
        let Some(moving) = slots.moving() else {
            return false;
        };
        let mut names = parts[moving.from].keys.names();
        let key = names.find(|key| slot_of(key) == moving.slot).cloned();
        drop(names);
        let Some(key) = key else { return false };
        let mut from = std::mem::take(&mut parts[moving.from].keys);
        parts[moving.to].keys.take_from(&mut from, &key);
        parts[moving.from].keys = from;
        true
    }

    /// The slot that moves has arrived, with all that is left of it.
    pub fn end_move(&self) {
        while self.move_next() {}
        let mut state = self.state.lock();
        state.epoch += u64::from(state.slots.end_move());
        drop(state);
        self.wake();
    }

    /// Wakes all blocking reads.
    fn wake(&self) {
        for news in &self.news {
            news.send_replace(());
        }
    }

    /// What wakes the blocking reads at a part.
    pub fn news_of(&self, part: usize) -> watch::Receiver<()> {
        self.news[part].subscribe()
    }

    /// Executes a pipeline at a process, whose clock shows `unix_millis`; returns a reply for each command.
    pub fn execute(
        &self,
        process: Process,
        pipeline: &Pipeline,
        unix_millis: u64,
    ) -> Result<Vec<Value>, Gone> {
        let mut state = self.state.lock();
        let part = &state.parts[process.part];
        if part.runs[usize::from(process.server)] != process.run {
            return Err(Gone);
        }
        if self.goes_back {
            state.snapshot(process.part);
        }
        state.parts[process.part].keys.purge(Instant::now());
        let mut replies = Vec::with_capacity(pipeline.len());
        let (mut is_asking, mut is_news) = (false, false);
        for command in pipeline.cmd_iter() {
            let args = args_of(command);
            let name = word(&args, 0);
            if name == "ASKING" {
                is_asking = true;
                replies.push(Value::Okay);
                continue;
            }
            is_news |= name == "XADD";
            let is_asking = std::mem::take(&mut is_asking);
            let reply = match self.redirect(&state, process, &args, is_asking) {
                Some(redirect) => redirect,
                None => self.answer(&mut state, process, &args, unix_millis),
            };
            replies.push(reply);
        }
        drop(state);
        if is_news {
            self.news[process.part].send_replace(());
        }
        Ok(replies)
    }

    /// What the process replies in place of executing a command that belongs elsewhere.
    fn redirect(
        &self,
        state: &State,
        process: Process,
        args: &[&[u8]],
        is_asking: bool,
    ) -> Option<Value> {
        let key = key_of(args)?;
        let is_master = state.parts[process.part].master == process.server;
        if !self.is_cluster {
            return (!is_master)
                .then(|| error("READONLY You can't write against a read only replica."));
        }
        let slot = slot_of(key);
        let owner = state.slots.owner_of(slot);
        let moving = state.slots.moving_of(slot);
        let is_imported = moving.is_some_and(|it| it.to == process.part);
        if !is_master || (owner != process.part && !(is_imported && is_asking)) {
            let port = state.port_of(owner);
            return Some(error(&format!("MOVED {slot} cache:{port}")));
        }
        let gone_to = moving.filter(|it| it.from == process.part && owner == process.part);
        let gone_to = gone_to.filter(|_| !state.parts[process.part].keys.has(key))?;
        let port = state.port_of(gone_to.to);
        Some(error(&format!("ASK {slot} cache:{port}")))
    }

    fn answer(
        &self,
        state: &mut State,
        process: Process,
        args: &[&[u8]],
        unix_millis: u64,
    ) -> Value {
        match word(args, 0) {
            "PING" => Value::SimpleString("PONG".into()),
            "INFO" => text(self.info(state, process, unix_millis)),
            "CLUSTER" if word(args, 1) == "INFO" => text(format!(
                "cluster_state:ok\r\ncluster_current_epoch:{}\r\n",
                state.epoch
            )),
            "CLUSTER" if word(args, 1) == "SLOTS" => state.ranges(),
            "CLUSTER" => text(state.open_slots(process.part)),
            "CONFIG" => Value::Array(Vec::new()),
            "SCRIPT" => state.parts[process.part].scripts.load(args[2]),
            name => {
                let part = &mut state.parts[process.part];
                if name == "EVALSHA" {
                    return part.scripts.call(&mut part.keys, word(args, 3), args);
                }
                let command = Command {
                    keys: &mut part.keys,
                    args,
                    unix_millis,
                };
                command.execute()
            }
        }
    }

    /// All sections of `INFO` at once.
    fn info(&self, state: &State, process: Process, unix_millis: u64) -> String {
        let part = &state.parts[process.part];
        let is_master = part.master == process.server;
        format!(
            "redis_version:7.4.0\r\n\
             redis_mode:{}\r\n\
             run_id:{}-{}-{:x}\r\n\
             server_time_usec:{unix_millis}000\r\n\
             role:{}\r\n\
             master_replid:history-{}\r\n\
             connected_slaves:1\r\n\
             aof_enabled:{}\r\n\
             maxmemory_policy:noeviction\r\n\
             evicted_keys:0\r\n",
            if self.is_cluster {
                "cluster"
            } else {
                "standalone"
            },
            process.part,
            process.server,
            process.run,
            if is_master { "master" } else { "slave" },
            part.history,
            u8::from(self.is_persistent),
        )
    }
}

// === impl State ===

impl State {
    fn port_of(&self, part: usize) -> u16 {
        FIRST_PORT + PORTS_APART * part as u16 + self.parts[part].master
    }

    /// Keeps what a part has now, unless that is known.
    fn snapshot(&mut self, part: usize) {
        let now = Instant::now();
        let part = &mut self.parts[part];
        let latest = part.snapshots.back();
        let is_due = latest.is_none_or(|(at, keys)| {
            now - *at >= SNAPSHOT_PERIOD && keys.version != part.keys.version
        });
        if is_due {
            part.snapshots.push_back((now, part.keys.clone()));
            if part.snapshots.len() > SNAPSHOTS {
                part.snapshots.pop_front();
            }
        }
    }

    fn forget(&mut self, at: usize, forgets: Forgets) {
        let Self { parts, slots, .. } = self;
        let part = &mut parts[at];
        match forgets {
            Forgets::Nothing => {}
            Forgets::Latest(time) => {
                let since = Instant::now().checked_sub(time);
                let is_old = |(at, _): &&(Instant, Keyspace)| since.is_some_and(|it| *at <= it);
                let found = part.snapshots.iter().rev().find(is_old).cloned();
                part.keys = found.map(|(_, keys)| keys).unwrap_or_default();
                // What has moved away meanwhile is not served here any more.
                part.keys.retain(|key| slots.is_at(slot_of(key), at));
            }
            Forgets::Everything => part.keys = Keyspace::default(),
        }
        part.snapshots.clear();
    }

    /// The reply to `CLUSTER SLOTS`.
    fn ranges(&self) -> Value {
        let ranges = self.slots.ranges().iter().map(|&(first, last, part)| {
            let server = vec![
                text("cache"),
                Value::Int(self.port_of(part).into()),
                text(format!("id-{part}")),
            ];
            Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                Value::Array(server),
            ])
        });
        Value::Array(ranges.collect())
    }

    /// The reply to `CLUSTER NODES`, with as much as the driver reads.
    fn open_slots(&self, part: usize) -> String {
        let open = self.slots.moving().map_or(String::new(), |it| match part {
            part if part == it.from => format!(" [{}->-id-{}]", it.slot, it.to),
            part if part == it.to => format!(" [{}-<-id-{}]", it.slot, it.from),
            _ => String::new(),
        });
        format!("id-{part} cache:1@1 myself,master - 0 0 1 connected 0-1{open}\n")
    }
}
