//! Which faults there are, how often each is drawn, and how it is done and undone.

use std::fmt::{self, Display, Formatter};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use super::hosts::{Cache, CacheKind, NODES, Part, Trial};
use crate::harness::sentinel::SERVICE;
use crate::harness::{disk, poll};

/// How often each kind is drawn. Kinds that a setup does not have are left out.
const WEIGHTS: [(Kind, u32); 16] = [
    (Kind::KillNode, 14),
    (Kind::KillCache, 8),
    (Kind::KillMaster, 6),
    (Kind::KillSentinel, 3),
    (Kind::KillDatabase, 8),
    (Kind::PauseNode, 10),
    (Kind::PauseCache, 8),
    (Kind::PauseSentinel, 2),
    (Kind::PauseDatabase, 6),
    (Kind::CutBothWays, 12),
    (Kind::CutOneWay, 12),
    (Kind::Isolate, 8),
    (Kind::FullDisk, 12),
    (Kind::Clock, 12),
    (Kind::FailOver, 8),
    (Kind::LongPause, 2),
];

/// Milliseconds that a fault lasts, and one that lets other servers take over or a node count as dead.
const TIME: std::ops::RangeInclusive<u64> = 200..=5000;
const LONG: std::ops::RangeInclusive<u64> = 6000..=9000;
const VERY_LONG: std::ops::RangeInclusive<u64> = 16_000..=19_000;

/// Seconds by which a clock jumps.
const JUMPS: [i64; 4] = [-3600, -10, 10, 3600];

/// How long it may take until a replica has taken over.
const TAKEN_OVER: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    KillNode,
    KillCache,
    /// And wait until its replica has taken over.
    KillMaster,
    KillSentinel,
    KillDatabase,
    PauseNode,
    PauseCache,
    PauseSentinel,
    PauseDatabase,
    /// A partition between two hosts, in both directions or in one.
    CutBothWays,
    CutOneWay,
    /// A partition between one host and all others.
    Isolate,
    FullDisk,
    Clock,
    FailOver,
    /// A node is paused until others take it for dead.
    LongPause,
}

/// One fault, as drawn.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    what: What,
    pub time: Duration,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Kill(Part),
    /// The master of this number among the masters at that moment.
    KillMaster(usize),
    Pause(Part),
    Cut {
        from: Part,
        to: Part,
        is_both: bool,
    },
    Isolate(Part),
    Fill(Part),
    Jump {
        node: usize,
        seconds: i64,
    },
    FailOver(usize),
}

/// What has to be undone.
pub enum Undo {
    Start(Part),
    Resume(Part),
    Mend,
    Clear(Part),
    SetClock(usize),
    Nothing,
}

// === impl Kind ===

impl Kind {
    fn exists(self, cache: CacheKind) -> bool {
        match self {
            Self::KillSentinel | Self::PauseSentinel => cache.sentinels() > 0,
            Self::KillMaster | Self::FailOver => cache.has_replicas(),
            _ => true,
        }
    }
}

// === impl Fault ===

impl Fault {
    /// By the seed alone: what the servers do has no part in it. It lasts `pace` hundredths of the usual time.
    pub fn draw(rng: &mut Rng, cache: CacheKind, pace: u64) -> Self {
        let kinds = WEIGHTS.iter().filter(|(kind, _)| kind.exists(cache));
        let sum: u32 = kinds.clone().map(|(_, weight)| weight).sum();
        let mut place = rng.u32(..sum);
        let chosen = kinds.clone().find(|(_, weight)| {
            let is_it = place < *weight;
            place = place.saturating_sub(*weight);
            is_it
        });
        let kind = chosen.expect("weights").0;
        let what = What::draw(kind, cache, rng);
        let time = match kind {
            Kind::LongPause => VERY_LONG,
            // Clocks are compared every five seconds.
            Kind::Clock => LONG,
            Kind::KillSentinel | Kind::PauseSentinel => TIME,
            _ if rng.u8(..5) == 0 => LONG,
            _ => TIME,
        };
        Self {
            kind,
            what,
            time: Duration::from_millis(rng.u64(time) * pace / 100),
        }
    }

    /// Does it; returns what ends it.
    pub fn begin(&self, trial: &mut Trial) -> Undo {
        match self.what {
            What::Kill(part) => {
                kill(trial, part);
                Undo::Start(part)
            }
            What::KillMaster(number) => {
                let masters = trial.cache.masters();
                let master = masters[number % masters.len()];
                trial.cache.server(master).kill9();
                poll(TAKEN_OVER, "a replica has taken over", || {
                    trial.cache.masters().len() == masters.len()
                });
                Undo::Start(Part::Cache(master))
            }
            What::Pause(part) => {
                pause(trial, part, true);
                Undo::Resume(part)
            }
            What::Cut { from, to, is_both } => {
                cut(trial, from, to, is_both, true);
                Undo::Mend
            }
            What::Isolate(part) => {
                isolate(trial, part, true);
                Undo::Mend
            }
            What::Fill(part) => {
                let path = trial.host(part).disk.as_ref().expect("it has a disk");
                disk::fill(path);
                Undo::Clear(part)
            }
            What::Jump { node, seconds } => {
                trial.nodes[node].shift_clock(seconds);
                Undo::SetClock(node)
            }
            What::FailOver(number) => {
                fail_over(&mut trial.cache, number);
                Undo::Nothing
            }
        }
    }

    pub fn end(&self, trial: &mut Trial, undo: &Undo) {
        match undo {
            Undo::Start(part) => start(trial, *part),
            Undo::Resume(part) => pause(trial, *part, false),
            Undo::Mend => match self.what {
                What::Cut { from, to, is_both } => cut(trial, from, to, is_both, false),
                What::Isolate(part) => isolate(trial, part, false),
                _ => unreachable!("a partition"),
            },
            Undo::Clear(part) => {
                let path = trial.host(*part).disk.as_ref().expect("it has a disk");
                disk::clear(path);
                trial.revive();
                if let Part::Cache(number) = *part {
                    trial.cache.server(number).rewrite_log();
                }
            }
            Undo::SetClock(node) => trial.nodes[*node].shift_clock(0),
            Undo::Nothing => {}
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        match self.what {
            What::Kill(part) => write!(f, "kill {}, away for {seconds:.1} s", part.name()),
            What::KillMaster(number) => write!(
                f,
                "kill master {}, away until another has taken over and {seconds:.1} s more",
                number + 1
            ),
            What::Pause(part) => write!(f, "pause {} for {seconds:.1} s", part.name()),
            What::Cut { from, to, is_both } => {
                let arrow = if is_both { "<->" } else { "->" };
                let (from, to) = (from.name(), to.name());
                write!(f, "partition {from} {arrow} {to} for {seconds:.1} s")
            }
            What::Isolate(part) => {
                write!(f, "partition {} <-> all for {seconds:.1} s", part.name())
            }
            What::Fill(part) => write!(f, "disk of {} full for {seconds:.1} s", part.name()),
            What::Jump { node, seconds: by } => {
                let name = Part::Node(node).name();
                write!(f, "clock of {name} {by:+} s for {seconds:.1} s")
            }
            What::FailOver(number) => {
                write!(f, "failover of master {}, then {seconds:.1} s", number + 1)
            }
        }
    }
}

// === impl What ===

impl What {
    fn draw(kind: Kind, cache: CacheKind, rng: &mut Rng) -> Self {
        let node = |rng: &mut Rng| Part::Node(rng.usize(..NODES));
        let server = |rng: &mut Rng| Part::Cache(rng.usize(..cache.servers()));
        let sentinel = |rng: &mut Rng| Part::Sentinel(rng.usize(..cache.sentinels()));
        match kind {
            Kind::KillNode => Self::Kill(node(rng)),
            Kind::KillCache => Self::Kill(server(rng)),
            Kind::KillMaster => Self::KillMaster(rng.usize(..cache.servers() / 2)),
            Kind::KillSentinel => Self::Kill(sentinel(rng)),
            Kind::KillDatabase => Self::Kill(Part::Database),
            Kind::PauseNode | Kind::LongPause => Self::Pause(node(rng)),
            Kind::PauseCache => Self::Pause(server(rng)),
            Kind::PauseSentinel => Self::Pause(sentinel(rng)),
            Kind::PauseDatabase => Self::Pause(Part::Database),
            Kind::CutBothWays | Kind::CutOneWay => {
                let is_both = kind == Kind::CutBothWays;
                let (from, to) = *rng.choice(&links(cache)).expect("parts that talk");
                let (from, to) = if rng.bool() { (from, to) } else { (to, from) };
                Self::Cut { from, to, is_both }
            }
            Kind::Isolate => match rng.u8(..5) {
                0 | 1 => Self::Isolate(node(rng)),
                2 | 3 => Self::Isolate(server(rng)),
                _ => Self::Isolate(Part::Database),
            },
            Kind::FullDisk => match rng.u8(..3) {
                0 => Self::Fill(node(rng)),
                1 => Self::Fill(server(rng)),
                _ => Self::Fill(Part::Database),
            },
            Kind::Clock => Self::Jump {
                node: rng.usize(..NODES),
                seconds: *rng.choice(&JUMPS).expect("a jump"),
            },
            Kind::FailOver => Self::FailOver(rng.usize(..cache.servers() / 2)),
        }
    }
}

/// Parts that send each other anything.
fn links(cache: CacheKind) -> Vec<(Part, Part)> {
    let parts = cache.parts();
    let pairs = parts.iter().enumerate().flat_map(|(place, from)| {
        let rest = parts[place + 1..].iter();
        rest.map(move |to| (*from, *to))
    });
    let talk = |pair: &(Part, Part)| {
        use Part::{Cache, Clients, Database, Node, Sentinel};
        matches!(
            pair,
            (Node(_), Cache(_) | Sentinel(_) | Database | Clients)
                | (Cache(_), Cache(_) | Sentinel(_))
                | (Sentinel(_), Sentinel(_))
        )
    };
    pairs.filter(talk).collect()
}

fn kill(trial: &mut Trial, part: Part) {
    match part {
        Part::Node(number) => trial.nodes[number].kill9(),
        Part::Cache(number) => trial.cache.server(number).kill9(),
        Part::Database => trial.database.kill9(),
        Part::Sentinel(number) => trial.cache.sentinel(number).kill9(),
        Part::Clients => unreachable!("clients are not killed"),
    }
}

fn start(trial: &mut Trial, part: Part) {
    match part {
        Part::Node(number) => trial.nodes[number].launch(),
        Part::Cache(number) => trial.cache.server(number).restart(),
        Part::Database => trial.database.restart(),
        Part::Sentinel(number) => trial.cache.sentinel(number).restart(),
        Part::Clients => unreachable!("clients are not killed"),
    }
}

fn pause(trial: &mut Trial, part: Part, is_on: bool) {
    macro_rules! set {
        ($program:expr) => {
            if is_on {
                $program.pause()
            } else {
                $program.resume()
            }
        };
    }
    match part {
        Part::Node(number) => set!(trial.nodes[number]),
        Part::Cache(number) => set!(trial.cache.server(number)),
        Part::Database => set!(trial.database),
        Part::Sentinel(number) => set!(trial.cache.sentinel(number)),
        Part::Clients => unreachable!("clients are not paused"),
    }
}

fn cut(trial: &Trial, from: Part, to: Part, is_both: bool, is_on: bool) {
    let (from, to) = (trial.host(from), trial.host(to));
    from.lose(to, is_on);
    if is_both {
        to.lose(from, is_on);
    }
}

fn isolate(trial: &Trial, part: Part, is_on: bool) {
    let alone = trial.host(part);
    for other in trial.others(part) {
        alone.lose(other, is_on);
        other.lose(alone, is_on);
    }
}

/// Has a replica take over from a master that works.
fn fail_over(cache: &mut Cache, number: usize) {
    match cache {
        Cache::One(_) => unreachable!("no replica"),
        Cache::Sentinel(watched) => {
            let sentinel = &watched.sentinels[number % watched.sentinels.len()];
            let mut said = String::new();
            poll(TAKEN_OVER, "a sentinel begins a failover", || {
                said = sentinel.cli(&["SENTINEL", "FAILOVER", SERVICE]);
                thread::sleep(Duration::from_millis(100));
                said == "OK" || said.starts_with("INPROG") || said.starts_with("NOGOODSLAVE")
            });
        }
        Cache::Cluster(cluster) => {
            let replicas = cluster
                .servers
                .iter()
                .filter(|it| it.runs() && !it.is_master());
            let replicas: Vec<_> = replicas.collect();
            let replica = replicas[number % replicas.len()];
            assert_eq!(replica.cli(&["CLUSTER", "FAILOVER"]), "OK");
        }
    }
}
