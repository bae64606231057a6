//! Which connection is evicted. Connections are tasks that never end by themselves.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::*;

/// A listener's connections, as its workers serve them.
struct Listener {
    workers: Vec<WorkerPermits>,
    evicted: Arc<Evictions>,
}

/// A connection that is served.
struct Served {
    permit: Arc<Permit>,
    task: JoinHandle<()>,
}

// === impl Listener ===

impl Listener {
    fn new(workers: usize, most: usize, shares: usize) -> Self {
        let evicted = Arc::<Evictions>::default();
        let permits = Permits::new(workers, most, shares, Arc::clone(&evicted));
        Self {
            workers: (0..workers)
                .map(|number| permits.of_worker(number))
                .collect(),
            evicted,
        }
    }

    fn try_open(&self, worker: usize, client: &str, phase: Phase) -> Option<Served> {
        let client: Option<IpAddr> = client.parse().ok();
        let worker = &self.workers[worker];
        let permit = Arc::new(worker.try_acquire(client)?);
        let held = Arc::clone(&permit);
        let task = tokio::spawn(async move {
            let _held = held;
            pending::<()>().await;
        });
        worker.served_by(permit.slot(), task.abort_handle(), phase);
        Some(Served { permit, task })
    }

    fn open(&self, worker: usize, client: &str, phase: Phase) -> Served {
        self.try_open(worker, client, phase).expect("a permit")
    }

    fn idle(&self, client: &str) -> Served {
        self.open(0, client, Phase::Idle)
    }

    fn taken(&self) -> usize {
        self.workers[0].permits().taken()
    }

    fn count(&self, reason: Eviction) -> u64 {
        self.evicted.of(reason).get()
    }
}

// === impl Served ===

impl Served {
    /// Whether it is still served, once its task has run.
    async fn lives(&self) -> bool {
        tokio::task::yield_now().await;
        !self.task.is_finished()
    }
}

async fn living(all: &[Served]) -> Vec<usize> {
    let mut living = Vec::new();
    for (number, served) in all.iter().enumerate() {
        if served.lives().await {
            living.push(number);
        }
    }
    living
}

#[tokio::test]
async fn the_connection_that_has_been_idle_longest_is_evicted() {
    let listener = Listener::new(1, 4, 4);
    let clients = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"];
    let all: Vec<Served> = clients.iter().map(|client| listener.idle(client)).collect();
    // The first one makes another request, and is the newest now.
    all[0].permit.begin(Phase::Waiting);
    all[0].permit.begin(Phase::Idle);
    let newcomer = listener.idle("192.0.3.1");
    assert_eq!(living(&all).await, [0, 2, 3]);
    assert!(newcomer.lives().await);
    assert_eq!((listener.taken(), listener.count(Eviction::Full)), (4, 1));
}

#[tokio::test]
async fn a_request_in_flight_stays_while_others_are_idle_or_slow() {
    let listener = Listener::new(1, 4, 4);
    let all = [
        listener.open(0, "192.0.2.1", Phase::Waiting),
        listener.open(0, "198.51.100.1", Phase::Request),
        listener.open(0, "203.0.113.1", Phase::Sending),
        listener.open(0, "2001:db8::1", Phase::Idle),
    ];
    let _first = listener.open(0, "192.0.3.1", Phase::Waiting);
    assert_eq!(living(&all).await, [0, 1, 2], "the idle one goes first");
    let _second = listener.open(0, "192.0.4.1", Phase::Waiting);
    assert_eq!(living(&all).await, [0, 2], "then the slowest head");
    let _third = listener.open(0, "192.0.5.1", Phase::Waiting);
    assert_eq!(living(&all).await, [0], "then the one that does not read");
    // All have requests in flight, and no network is above its share.
    assert!(listener.try_open(0, "192.0.6.1", Phase::Waiting).is_none());
    assert_eq!(listener.taken(), 4);
    all[0].permit.begin(Phase::Idle);
    assert!(listener.try_open(0, "192.0.6.1", Phase::Waiting).is_some());
}

#[tokio::test]
async fn a_network_above_its_share_loses_its_own_once_half_is_taken() {
    let listener = Listener::new(1, 16, 4);
    let others = [listener.idle("198.51.100.1"), listener.idle("2001:db8::1")];
    let crowd: Vec<Served> = (0..6).map(|_| listener.idle("192.0.2.1")).collect();
    assert_eq!(
        listener.taken(),
        8,
        "half of the permits are not limited by network"
    );
    let more: Vec<Served> = (0..4)
        .map(|last| listener.idle(&format!("192.0.2.{last}")))
        .collect();
    assert_eq!(living(&crowd).await, [4, 5]);
    assert_eq!(
        (living(&more).await.len(), living(&others).await.len()),
        (4, 2)
    );
    assert_eq!(
        (listener.taken(), listener.count(Eviction::NetworkShare)),
        (8, 4)
    );
}

#[tokio::test]
async fn when_all_permits_are_taken_the_largest_network_above_its_share_loses_one() {
    let listener = Listener::new(2, 16, 4);
    let crowd: Vec<Served> = (0..8)
        .map(|number| listener.open(number % 2, "192.0.2.1", Phase::Idle))
        .collect();
    let others: Vec<Served> = (0..8)
        .map(|last| listener.open(last % 2, &format!("198.51.{last}.1"), Phase::Idle))
        .collect();
    for served in &crowd {
        served.permit.begin(Phase::Idle);
    }
    assert_eq!(listener.taken(), 16);
    let newcomer = listener.open(1, "203.0.113.1", Phase::Request);
    assert_eq!(
        living(&others).await.len(),
        8,
        "idle longer, but not above their share"
    );
    assert_eq!(living(&crowd).await, (1..8).collect::<Vec<_>>());
    assert!(newcomer.lives().await);
}

#[tokio::test]
async fn a_network_above_its_share_may_lose_a_request_in_flight_to_others_only() {
    let listener = Listener::new(1, 4, 4);
    let crowd: Vec<Served> = (0..2)
        .map(|_| listener.open(0, "192.0.2.1", Phase::Waiting))
        .collect();
    let others = [
        listener.open(0, "198.51.100.1", Phase::Waiting),
        listener.idle("203.0.113.1"),
    ];
    let newcomer = listener.open(0, "192.0.2.7", Phase::Waiting);
    assert_eq!(living(&crowd).await, [0, 1], "one is idle");
    assert_eq!(living(&others).await, [0]);
    let other = listener.open(0, "2001:db8::1", Phase::Waiting);
    assert_eq!(living(&crowd).await, [1]);
    assert!(newcomer.lives().await && other.lives().await);
}

#[tokio::test]
async fn a_full_worker_evicts_an_idle_connection_of_another() {
    let listener = Listener::new(2, 2, 1);
    let busy = listener.open(0, "192.0.2.1", Phase::Waiting);
    let idle = listener.open(1, "198.51.100.1", Phase::Idle);
    let newcomer = listener.open(0, "203.0.113.1", Phase::Request);
    assert!(busy.lives().await && newcomer.lives().await && !idle.lives().await);
}

#[tokio::test]
async fn proxies_have_no_share_but_are_evicted() {
    let listener = Listener::new(1, 4, 4);
    let proxy: Vec<Served> = (0..4).map(|_| listener.idle("none")).collect();
    assert_eq!(listener.taken(), 4);
    let _newcomer = listener.idle("192.0.2.1");
    assert_eq!(living(&proxy).await, [1, 2, 3]);
    assert_eq!(listener.count(Eviction::NetworkShare), 0);
}

#[tokio::test]
async fn the_idle_timeout_falls_with_the_number_of_free_permits() {
    let listener = Listener::new(1, 16, 1);
    let permits = listener.workers[0].permits();
    let mut all: Vec<Served> = (0..8).map(|_| listener.idle("192.0.2.1")).collect();
    assert_eq!(permits.idle_seconds(), IDLE_SECONDS);
    let mut before = IDLE_SECONDS;
    for _ in 0..8 {
        all.push(listener.idle("192.0.2.1"));
        assert!(permits.idle_seconds() < before);
        before = permits.idle_seconds();
    }
    assert_eq!(before, IDLE_SECONDS_MIN);
    for _ in 0..=IDLE_SECONDS_MIN {
        assert_eq!(living(&all).await.len(), 16);
        listener.workers[0].tick();
    }
    assert_eq!(living(&all).await.len(), 0);
    assert_eq!(
        (listener.taken(), listener.count(Eviction::ShortIdle)),
        (0, 16)
    );
}

#[tokio::test]
async fn each_phase_has_its_timeout() {
    let listener = Listener::new(1, 100, 1);
    let phases = [
        (Phase::Idle, IDLE_SECONDS),
        (Phase::Request, REQUEST_SECONDS),
        (Phase::Sending, SEND_SECONDS),
        (Phase::Leaving, LEAVE_SECONDS),
        (Phase::Waiting, WAIT_SECONDS),
    ];
    for (phase, seconds) in phases {
        let served = listener.open(0, "192.0.2.1", phase);
        for _ in 0..seconds {
            listener.workers[0].tick();
            served.permit.ensure(phase);
        }
        assert!(served.lives().await, "{phase:?}");
        listener.workers[0].tick();
        assert!(!served.lives().await, "{phase:?}");
    }
    assert_eq!(
        listener.count(Eviction::ShortIdle),
        0,
        "that is the usual timeout"
    );
}

#[tokio::test]
async fn a_lowered_limit_is_reached_step_by_step_without_waiting() {
    let listener = Listener::new(1, 8, 1);
    let _all: Vec<Served> = (0..8).map(|_| listener.idle("192.0.2.1")).collect();
    listener.workers[0].permits().resize(5);
    let mut newcomers = Vec::new();
    for taken in [7, 6, 5, 5] {
        newcomers.push(listener.idle("198.51.100.1"));
        assert_eq!(listener.taken(), taken);
    }
}

#[tokio::test]
async fn every_permit_is_released() {
    let listener = Listener::new(1, 4, 2);
    for round in 0..1000_u32 {
        let client = format!("192.0.{}.1", round % 5);
        let phase = Phase::VARIANTS[fastrand::usize(..4)];
        let served = listener.open(0, &client, phase);
        if round % 3 == 0 {
            served.task.abort();
        }
        if round % 7 == 0 {
            listener.workers[0].evict_for_file();
        }
        tokio::task::yield_now().await;
    }
    listener.workers[0].close_idle();
    for _ in 0..=WAIT_SECONDS {
        listener.workers[0].tick();
    }
    tokio::task::yield_now().await;
    assert_eq!(listener.taken(), 0);
    assert!(listener.workers[0].is_empty());
    assert!(listener.workers[0].permits().networks.above(0).is_empty());
}
