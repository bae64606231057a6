//! Clients: they announce by interval to a node of their choice, repeat what got no answer, move, stop,
//! crash and come back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mika::base::ids::PeerId;
use mika::wire::{Announce, Event};
use tokio::time::{sleep, timeout};

use super::model::{Birth, LifeId, Model};
use super::network::elapsed;
use super::process::{Answered, Ask};
use super::storage::info_hash;
use super::story::About;
use super::world::World;

/// How long a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often `stopped` and ordinary updates are sent before the client gives up.
const TRIES: u32 = 3;

/// One client program.
pub struct Client {
    pub id: u32,
    user: u32,
    torrent: u32,
    peer_id: PeerId,
    v4: Ipv4Addr,
    v6: Option<Ipv6Addr>,
    port: u16,
    /// The nodes it announces to, of each family.
    sites: [usize; 2],
    up: u64,
    down: u64,
    left: u64,
    /// Bytes a second.
    rates: (u64, u64),
    /// When the totals were last brought up to date.
    moved_at: Duration,
    completed: bool,
    life: LifeId,
    random: fastrand::Rng,
}

/// How a client begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// With totals of 0.
    Restarted,
    /// With a new peer id, too.
    Renamed,
    /// Where it was.
    Resumed,
    /// With totals that it had some time ago.
    Shrunken,
    /// The same, and without `started`.
    Silent,
}

// === impl Client ===

impl Client {
    pub fn new(id: u32, world: &World, mut random: fastrand::Rng) -> Self {
        let user = random.u32(1..=world.plan.users);
        let torrent = random.u32(1..=world.plan.torrents);
        let size = random.u64(10..400) << 20;
        let left = if random.u32(..3) == 0 { 0 } else { size };
        let both = random.u32(..4) == 0;
        let mut it = Self {
            id,
            user,
            torrent,
            peer_id: peer_id(id, 0),
            v4: Ipv4Addr::new(9, 9, 1, id as u8),
            v6: both.then(|| Ipv6Addr::new(0x2a00, 9, 0, 0, 0, 0, 0, id as u16)),
            port: 6881,
            sites: [0; 2].map(|_| world.choose_site(&mut random)),
            up: 0,
            down: 0,
            left,
            rates: (0, 0),
            moved_at: elapsed(),
            completed: left == 0,
            life: Model::NONE,
            random,
        };
        it.draw_rates();
        it
    }

    fn draw_rates(&mut self) {
        let rate = |random: &mut fastrand::Rng| match random.u32(..4) {
            0 => 0,
            1 => random.u64(..20 << 20),
            _ => random.u64(..2 << 20),
        };
        self.rates = (rate(&mut self.random), rate(&mut self.random));
    }

    /// A client that was copied from `other`, with its state, to another machine.
    fn copy(&mut self, id: u32) -> Self {
        let mut copy = Self {
            id,
            v4: Ipv4Addr::new(9, 9, 2, id as u8),
            v6: None,
            life: Model::NONE,
            random: self.random.fork(),
            ..*self
        };
        copy.draw_rates();
        copy
    }

    /// Lives until the run is over.
    async fn run(mut self, world: Arc<World>, mut how: Return) {
        if how == Return::Restarted {
            let wait = self.random.u64(..60_000);
            world.unless_over(Duration::from_millis(wait)).await;
            self.begin(&world, how);
        }
        loop {
            let event = if how == Return::Silent {
                Event::None
            } else {
                Event::Started
            };
            self.report(&world, event, u32::MAX).await;
            let until = elapsed() + Duration::from_secs(self.random.u64(20..300));
            while (elapsed() < until || world.is_copied(self.peer_id)) && !world.is_over() {
                let wait = self.random.u64(12_000..25_000);
                world.unless_over(Duration::from_millis(wait)).await;
                self.update(&world).await;
                if world.plan.copies && self.random.u32(..20) == 0 {
                    self.spread(&world);
                }
            }
            if world.is_over() {
                return self.finish(&world).await;
            }
            let crashes = self.random.u32(..3) == 0;
            if crashes {
                self.say(&world, "crashes");
            } else {
                self.report(&world, Event::Stopped, TRIES).await;
            }
            let wait = self.random.u64(6_000..60_000);
            world.unless_over(Duration::from_millis(wait)).await;
            if world.is_over() {
                return;
            }
            how = [
                Return::Restarted,
                Return::Renamed,
                Return::Resumed,
                Return::Shrunken,
                Return::Silent,
            ][self.random.usize(..5)];
            self.begin(&world, how);
        }
    }

    /// Is copied to another machine while it runs. Neither of them stops from then on: of those that come and go,
    /// machines can't be distinguished from one client.
    fn spread(&mut self, world: &Arc<World>) {
        if world.is_copied(self.peer_id) {
            return;
        }
        let id = world.new_client();
        let mut copy = self.copy(id);
        world.set_copied(self.peer_id);
        copy.begin(world, Return::Resumed);
        self.say(world, &format!("is copied to client {id}"));
        copy.spawn(world, Return::Resumed);
    }

    /// Has it live, in a task of its own.
    pub fn spawn(self, world: &Arc<World>, how: Return) {
        let world = Arc::clone(world);
        let life: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            world.client_lives(1);
            self.run(Arc::clone(&world), how).await;
            world.client_lives(-1);
        });
        tokio::spawn(life);
    }

    /// The last announces, which have to be answered.
    async fn finish(&mut self, world: &Arc<World>) {
        world.healed().await;
        let wait = self.random.u64(..2_000);
        sleep(Duration::from_millis(wait)).await;
        if self.random.u32(..2) == 0 {
            self.report(world, Event::Stopped, 30).await;
            world.set_end(self.key(), false);
        } else {
            self.rates = (0, 0);
            self.report(world, Event::None, 30).await;
            world.set_end(self.key(), true);
        }
    }

    pub fn key(&self) -> (u32, u32, PeerId) {
        (self.user, self.torrent, self.peer_id)
    }

    /// Begins a life.
    fn begin(&mut self, world: &World, how: Return) {
        let before = (self.up, self.down);
        match how {
            Return::Resumed => {}
            Return::Restarted => (self.up, self.down) = (0, 0),
            Return::Renamed => {
                self.peer_id = peer_id(self.id, self.random.u32(1..u32::MAX));
                if self.random.bool() {
                    (self.up, self.down) = (0, 0);
                }
            }
            Return::Shrunken | Return::Silent => {
                self.up = self.up / 10 * self.random.u64(2..10);
                self.down = self.down / 10 * self.random.u64(2..10);
            }
        }
        self.moved_at = elapsed();
        self.draw_rates();
        if self.random.u32(..4) == 0 {
            self.move_on(world);
        }
        let is_new = how != Return::Resumed || self.life == Model::NONE;
        if is_new {
            let is_silent = how == Return::Silent && before != (self.up, self.down);
            self.life = world.begin_life(Birth {
                client: self.id,
                user: self.user,
                torrent: self.torrent,
                peer_id: self.peer_id,
                up: self.up,
                down: self.down,
                is_silent,
                is_dual: self.v6.is_some(),
                is_copied: world.is_copied(self.peer_id),
            });
        }
        self.say(
            world,
            &format!("begins: {how:?}, {} up, {} down", self.up, self.down),
        );
    }

    /// Moves what it did since the last time. Only an update may find that it has all.
    fn proceed(&mut self, may_complete: bool) {
        let now = elapsed();
        let millis = now.saturating_sub(self.moved_at).as_millis() as u64;
        self.moved_at = now;
        self.up += self.rates.0 * millis / 1000;
        let most = if may_complete {
            self.left
        } else {
            self.left.saturating_sub(1)
        };
        let down = (self.rates.1 * millis / 1000).min(most);
        self.down += down;
        self.left -= down;
    }

    async fn update(&mut self, world: &Arc<World>) {
        self.proceed(true);
        if self.left == 0 && !self.completed {
            self.completed = true;
            self.report(world, Event::Completed, u32::MAX).await;
            return;
        }
        if self.random.u32(..8) == 0 {
            self.draw_rates();
        }
        if self.random.u32(..10) == 0 {
            self.move_on(world);
        }
        self.report(world, Event::None, TRIES).await;
    }

    /// Announces until there is an answer, to each family.
    async fn report(&mut self, world: &Arc<World>, event: Event, tries: u32) {
        let mut tried = 0;
        let mut pause = 2_000;
        loop {
            self.proceed(false);
            let is_final = world.is_healed();
            let mut is_answered = self.announce(world, event, 0).await;
            if self.v6.is_some() {
                let gap = if self.random.bool() {
                    0
                } else {
                    self.random.u64(..2_000)
                };
                sleep(Duration::from_millis(gap)).await;
                is_answered |= self.announce(world, event, 1).await;
            }
            tried += 1;
            let gives_up = tried >= tries || (world.is_over() && !is_final && !world.is_healed());
            if is_answered || gives_up {
                return;
            }
            let wait = self.random.u64(pause / 2..pause);
            pause = (pause * 2).min(30_000);
            sleep(Duration::from_millis(wait)).await;
            // It takes the other node if one does not answer.
            if self.random.bool() {
                self.move_on(world);
            }
        }
    }

    /// Takes other nodes, or the same ones by chance.
    fn move_on(&mut self, world: &World) {
        self.sites = [0; 2].map(|_| world.choose_site(&mut self.random));
    }

    /// One announce to the node of a family; whether it was answered.
    async fn announce(&mut self, world: &Arc<World>, event: Event, family: usize) -> bool {
        let source: IpAddr = match (family, self.v6) {
            (1, Some(v6)) => v6.into(),
            _ => self.v4.into(),
        };
        if world.sites[self.sites[family]].is_out_of_service() {
            self.sites[family] = world.choose_site(&mut self.random);
        }
        let site = Arc::clone(&world.sites[self.sites[family]]);
        let (there, back) = (self.random.u64(1..40), self.random.u64(1..40));
        sleep(Duration::from_millis(there)).await;
        let is_lost = self.random.u32(..1000) < world.client_losses();
        let what = format!(
            "client {} → {}: {event:?} up {} down {} left {} (user {} torrent {} {source})",
            self.id,
            site.name(),
            self.up,
            self.down,
            self.left,
            self.user,
            self.torrent,
        );
        let Some(running) = site.running() else {
            self.record_story(world, &format!("{what}: no node there"));
            sleep(Duration::from_millis(back)).await;
            return false;
        };
        let ask = self.ask(world, event, source);
        let answer = timeout(PATIENCE, Arc::clone(&running).announce(ask)).await;
        let Some(answer) = answer.ok().flatten() else {
            self.record_story(world, &format!("{what}: no answer"));
            return false;
        };
        sleep(Duration::from_millis(back)).await;
        self.record_story(world, &format!("{what}: {}", outcome(&answer, is_lost)));
        let Some(report) = answer.report else {
            return false;
        };
        if !is_lost {
            world.model.lock().set_answered(report);
        }
        world.check_peers(&running, self.user, self.torrent, family, &answer.peers);
        !is_lost
    }

    /// Its current announce.
    fn ask(&self, world: &Arc<World>, event: Event, source: IpAddr) -> Ask {
        let params = Announce {
            info_hash: info_hash(self.torrent),
            info_hash_as_form: None,
            peer_id: self.peer_id,
            port: self.port,
            uploaded: Some(self.up),
            downloaded: Some(self.down),
            left: Some(self.left),
            event,
            numwant: None,
            key: None,
            claimed_v4: None,
            claimed_v6: None,
            list_form: false,
            no_peer_id: false,
        };
        Ask {
            world: Arc::clone(world),
            user: self.user,
            torrent: self.torrent,
            params,
            source,
            other: self.other(source),
            life: self.life,
        }
    }

    /// The address that is not this one.
    fn other(&self, source: IpAddr) -> Option<IpAddr> {
        let v6 = self.v6?;
        Some(match source {
            IpAddr::V4(_) => v6.into(),
            IpAddr::V6(_) => self.v4.into(),
        })
    }

    fn say(&self, world: &World, what: &str) {
        let (id, torrent) = (self.id, self.torrent);
        self.record_story(
            world,
            &format!("client {id} (user {} torrent {torrent}) {what}", self.user),
        );
    }

    fn record_story(&self, world: &World, what: &str) {
        world.story.record(About::User(self.user), what);
    }
}

fn outcome(answer: &Answered, is_lost: bool) -> String {
    match (&answer.refusal, is_lost, answer.is_durable) {
        (Some(refusal), ..) => format!("refused, {refusal}"),
        (_, true, _) => "the reply is lost".to_owned(),
        (_, _, Some(true)) => "acknowledged, durable".to_owned(),
        (_, _, Some(false)) => "answered late, not durable".to_owned(),
        (_, _, None) => "answered".to_owned(),
    }
}

fn peer_id(client: u32, number: u32) -> PeerId {
    let text = format!("-SI0001-{client:04}{number:08x}");
    PeerId::from_slice(text.as_bytes()).unwrap()
}
