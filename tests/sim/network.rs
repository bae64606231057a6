//! The network between nodes and stores: it delays, loses requests and replies, and is cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use mika::base::clock::TimeSource;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

/// Unix time at which every run begins.
pub const EPOCH: i64 = 1_800_000_000;

/// How long a caller waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(2);

/// What nodes talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A part of the cache: one of its masters, and the replica of it.
    Cache(usize),
    Storage,
}

/// One process, as the network and its clock see it.
#[derive(Debug)]
pub struct Host {
    pub id: u32,
    began: Instant,
    /// How much earlier its wall clock's seconds begin than those of others.
    ahead: Duration,
    /// Seconds by which its wall clock is wrong.
    skew: AtomicI64,
    is_paused: AtomicBool,
    /// Waiting calls continue in order.
    gate: Semaphore,
    /// It was killed: what it still had under way is lost.
    pub is_dead: AtomicBool,
}

/// An answer that did not come.
#[derive(Clone, Copy, Debug)]
pub struct Lost;

/// Which directions between a process and a place are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    pub requests: bool,
    pub replies: bool,
}

/// How a place answers.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub is_up: bool,
    /// Seconds by which its clock is wrong.
    skew: i64,
    /// Added to each way.
    slow: Duration,
    /// How often, of 1000 calls, a request or a reply is lost, or a request arrives after its caller
    /// gave up.
    lose_requests: u32,
    lose_replies: u32,
    delay_requests: u32,
}

pub struct Network {
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    weather: BTreeMap<Place, Weather>,
    cuts: BTreeMap<(u32, Place), Cut>,
}

/// What becomes of one call.
pub struct Trip {
    pub there: Duration,
    pub back: Duration,
    pub loses_request: bool,
    pub loses_reply: bool,
    pub is_late: bool,
}

// === impl Host ===

impl Host {
    /// A process whose clock is wrong by `skew` seconds; it is never freed.
    pub fn begin(id: u32, skew: i64) -> &'static Self {
        Box::leak(Box::new(Self {
            id,
            began: Instant::now(),
            ahead: Duration::from_millis(u64::from(id) * 377 % 1000),
            skew: AtomicI64::new(skew),
            is_paused: AtomicBool::new(false),
            gate: Semaphore::new(1),
            is_dead: AtomicBool::new(false),
        }))
    }

    pub fn pause(&self, is_paused: bool) {
        if self.is_paused.swap(is_paused, Ordering::Relaxed) == is_paused {
            return;
        }
        if is_paused {
            // The holder of the permit gives it back at once.
            self.gate.forget_permits(1);
        } else {
            self.gate.add_permits(1);
        }
    }

    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    pub fn set_skew(&self, skew: i64) {
        self.skew.store(skew, Ordering::Relaxed);
    }

    /// Waits until it is not paused.
    pub async fn turn(&self) {
        // Fails only if the semaphore is closed, which never happens.
        let _ = self.gate.acquire().await;
    }
}

impl TimeSource for Host {
    fn read(&self) -> (i64, i64) {
        let seconds = self.began.elapsed().as_secs().cast_signed();
        let unix = EPOCH + (elapsed() + self.ahead).as_secs().cast_signed();
        (seconds, unix + self.skew.load(Ordering::Relaxed))
    }
}

thread_local! {
    static BEGIN: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

/// The run of this thread begins now.
pub fn begin() {
    BEGIN.set(Some(Instant::now()));
}

/// Seconds since the begin, to the millisecond.
pub fn elapsed() -> Duration {
    BEGIN.get().map_or(Duration::ZERO, |begin| begin.elapsed())
}

/// True Unix time, in seconds.
pub fn now() -> i64 {
    EPOCH + elapsed().as_secs().cast_signed()
}

// === impl Network ===

impl Network {
    /// With so many parts of the cache.
    pub fn new(seed: u64, parts: usize) -> Self {
        let fine = Weather {
            is_up: true,
            skew: 0,
            slow: Duration::ZERO,
            lose_requests: 0,
            lose_replies: 0,
            delay_requests: 0,
        };
        let places = (0..parts).map(Place::Cache).chain([Place::Storage]);
        Self {
            state: Mutex::new(State {
                random: fastrand::Rng::with_seed(seed),
                weather: places.map(|place| (place, fine)).collect(),
                cuts: BTreeMap::new(),
            }),
        }
    }

    pub fn set_up(&self, places: &[Place], is_up: bool) {
        self.change(places, |weather| weather.is_up = is_up);
    }

    pub fn is_up(&self, place: Place) -> bool {
        self.state.lock().weather[&place].is_up
    }

    pub fn set_skew(&self, place: Place, skew: i64) {
        self.change(&[place], |weather| weather.skew = skew);
    }

    /// The clock of a place (Unix time).
    pub fn time(&self, place: Place) -> i64 {
        now() + self.state.lock().weather[&place].skew
    }

    pub fn set_slow(&self, places: &[Place], slow: Duration) {
        self.change(places, |weather| weather.slow = slow);
    }

    /// Calls of 1000 that lose their request, their reply, or arrive late.
    pub fn set_losses(&self, places: &[Place], requests: u32, replies: u32, late: u32) {
        self.change(places, |weather| {
            weather.lose_requests = requests;
            weather.lose_replies = replies;
            weather.delay_requests = late;
        });
    }

    fn change(&self, places: &[Place], change: impl Fn(&mut Weather)) {
        let mut state = self.state.lock();
        for place in places {
            if let Some(weather) = state.weather.get_mut(place) {
                change(weather);
            }
        }
    }

    pub fn cut(&self, host: u32, place: Place, cut: Cut) {
        self.state.lock().cuts.insert((host, place), cut);
    }

    /// Everything is well from now on.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.cuts.clear();
        for weather in state.weather.values_mut() {
            weather.is_up = true;
            weather.skew = 0;
            weather.slow = Duration::ZERO;
            weather.lose_requests = 0;
            weather.lose_replies = 0;
            weather.delay_requests = 0;
        }
    }

    pub fn is_cut(&self, host: u32) -> bool {
        let state = self.state.lock();
        let mut cuts = state.cuts.iter();
        cuts.any(|((cut_off, _), cut)| *cut_off == host && (cut.requests || cut.replies))
    }

    /// Does `effect` at the place, and returns its result, as the network allows.
    ///
    /// # Errors
    /// No answer came. Whether the effect was, is, or will be done, the caller does not know.
    pub async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        host: &'static Host,
        place: Place,
        effect: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        host.turn().await;
        let trip = self.draw(place);
        sleep(trip.there).await;
        let (weather, cut) = self.look(host, place);
        if !weather.is_up {
            host.turn().await;
            return Err(Lost);
        }
        if cut.requests || trip.loses_request {
            return Err(Self::in_vain(host).await);
        }
        if trip.is_late {
            self.later(place, effect);
            return Err(Self::in_vain(host).await);
        }
        let result = effect();
        sleep(trip.back).await;
        let (weather, cut) = self.look(host, place);
        if cut.replies || trip.loses_reply || !weather.is_up {
            return Err(Self::in_vain(host).await);
        }
        host.turn().await;
        Ok(result)
    }

    /// Does `effect` at the place after its caller gave up, if the place is up then.
    pub fn later<T>(self: &Arc<Self>, place: Place, effect: impl FnOnce() -> T + Send + 'static) {
        let network = Arc::clone(self);
        tokio::spawn(async move {
            sleep(PATIENCE * 2).await;
            if network.is_up(place) {
                effect();
            }
        });
    }

    async fn in_vain(host: &Host) -> Lost {
        sleep(PATIENCE).await;
        host.turn().await;
        Lost
    }

    /// The present state of a place, and of the way there.
    pub fn look(&self, host: &Host, place: Place) -> (Weather, Cut) {
        let state = self.state.lock();
        let cut = state.cuts.get(&(host.id, place));
        (state.weather[&place], cut.copied().unwrap_or_default())
    }

    /// What becomes of the next call.
    pub fn draw(&self, place: Place) -> Trip {
        let mut state = self.state.lock();
        let weather = state.weather[&place];
        let random = &mut state.random;
        let mut way = || {
            let longest = if random.u32(..50) == 0 { 60_000 } else { 1_500 };
            weather.slow + Duration::from_micros(random.u64(50..longest))
        };
        let (there, back) = (way(), way());
        let fate = random.u32(..1000);
        let late = weather.lose_requests + weather.lose_replies;
        Trip {
            there,
            back,
            loses_request: fate < weather.lose_requests,
            loses_reply: (weather.lose_requests..late).contains(&fate),
            is_late: (late..late + weather.delay_requests).contains(&fate),
        }
    }
}
