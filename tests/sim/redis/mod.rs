//! The cache that nodes share: Redis servers in memory, which execute the commands of the real driver. They may be
//! away, forget, fail over to a replica, and move slots.

mod commands;
mod keyspace;
mod scripts;
mod servers;
mod slots;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mika::base::secret::Secret;
use mika::cache::{Cache, RedisDial, RedisWire, open_redis_over};
use redis::{ConnectionAddr, ConnectionInfo, Pipeline, RedisError, Value};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::network::{Host, Network, Place, elapsed};
use super::story::Story;

use commands::{number, place_of};
pub use keyspace::{EntryId, Stream};
pub use servers::{Forgets, Redis};
use servers::{Process, args_of};
pub use slots::slot_of;

/// The network of one process, on the way to the cache.
#[derive(Clone)]
pub struct Dialer {
    pub redis: Arc<Redis>,
    pub network: Arc<Network>,
    pub host: &'static Host,
    pub story: Story,
}

/// A connection to a server.
struct SimulatedWire {
    dialer: Dialer,
    process: Process,
    /// What is sent arrives in that order. Held until it is executed.
    order: tokio::sync::Mutex<()>,
    /// Something was lost on the way: nothing arrives any more.
    is_stuck: AtomicBool,
}

fn broken(problem: &str) -> RedisError {
    io::Error::other(problem.to_owned()).into()
}

/// How long a pipeline may block.
fn block_of(pipeline: &Pipeline) -> Option<Duration> {
    let args = args_of(pipeline.cmd_iter().last()?);
    let at = place_of(&args, "BLOCK")?;
    number(args.get(at + 1)?).map(Duration::from_millis)
}

// === impl Dialer ===

impl Dialer {
    /// The driver in one process.
    pub fn open(self) -> Arc<dyn Cache> {
        let url = Secret::new(self.redis.url());
        let opened = open_redis_over(&url, Arc::new(self));
        opened.unwrap_or_else(|error| panic!("the URL is right: {error}"))
    }

    /// The clock of a server.
    fn unix_millis(&self, part: usize) -> u64 {
        let seconds = self.network.time(Place::Cache(part)).max(0).cast_unsigned();
        seconds * 1000 + u64::from(elapsed().subsec_millis())
    }

    /// Executes a pipeline at a process.
    fn execute(&self, process: Process, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut commands = pipeline.cmd_iter().map(args_of);
        let first = commands.find(|args| args[0] != b"SCRIPT");
        let words = first.iter().flatten().take(4).copied();
        self.story.record_traffic(self.host.id, process.part, words);
        self.redis
            .execute(process, pipeline, self.unix_millis(process.part))
            .map_err(|_| broken("the connection was reset"))
    }
}

#[async_trait]
impl RedisDial for Dialer {
    async fn dial(&self, server: ConnectionInfo) -> Result<Box<dyn RedisWire>, RedisError> {
        let ConnectionAddr::Tcp(_, port) = server.addr() else {
            return Err(broken("not a host and a port"));
        };
        let (redis, port) = (Arc::clone(&self.redis), *port);
        let place = Place::Cache(Redis::part_at(port));
        let dialed = self
            .network
            .call(self.host, place, move || redis.process_at(port));
        let process = dialed.await.map_err(|_| broken("it does not answer"))?;
        Ok(Box::new(SimulatedWire {
            dialer: self.clone(),
            process,
            order: tokio::sync::Mutex::new(()),
            is_stuck: AtomicBool::new(false),
        }))
    }
}

// === impl SimulatedWire ===

impl SimulatedWire {
    /// The replies as the network allows; waits for ever for what gets lost.
    async fn exchange(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let Dialer { network, host, .. } = &self.dialer;
        let place = Place::Cache(self.process.part);
        let trip = network.draw(place);
        let arrival = Instant::now() + trip.there;
        let order = self.order.lock().await;
        sleep_until(arrival).await;
        let (weather, cut) = network.look(host, place);
        if !weather.is_up {
            return Err(broken("the connection was reset"));
        }
        if cut.requests || trip.loses_request || self.is_stuck.load(Ordering::Relaxed) {
            return self.get_stuck().await;
        }
        if trip.is_late {
            network.later(place, {
                let (dialer, process) = (self.dialer.clone(), self.process);
                let pipeline = pipeline.clone();
                move || drop(dialer.execute(process, &pipeline))
            });
            return self.get_stuck().await;
        }
        let replies = self.answered(pipeline).await?;
        drop(order);
        tokio::time::sleep(trip.back).await;
        let (weather, cut) = network.look(host, place);
        if !weather.is_up {
            return Err(broken("the connection was reset"));
        }
        if cut.replies || trip.loses_reply {
            return self.get_stuck().await;
        }
        Ok(replies)
    }

    async fn get_stuck(&self) -> Result<Vec<Value>, RedisError> {
        self.is_stuck.store(true, Ordering::Relaxed);
        std::future::pending().await
    }

    /// The replies, once a blocking read has something or its time is over.
    async fn answered(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let until = block_of(pipeline).map(|wait| Instant::now() + wait);
        let mut news = self.dialer.redis.news_of(self.process.part);
        loop {
            news.mark_unchanged();
            let replies = self.dialer.execute(self.process, pipeline)?;
            let wait = until.filter(|until| *until > Instant::now());
            match wait {
                Some(until) if replies.last() == Some(&Value::Nil) => {
                    let _ = timeout_at(until, news.changed()).await;
                }
                _ => return Ok(replies),
            }
        }
    }
}

#[async_trait]
impl RedisWire for SimulatedWire {
    async fn send(
        &self,
        commands: &Pipeline,
        limit: Duration,
    ) -> Result<Option<Vec<Value>>, RedisError> {
        let host = self.dialer.host;
        // A process that is paused sends nothing, and notices nothing.
        host.turn().await;
        let answered = timeout(limit, self.exchange(commands)).await;
        host.turn().await;
        answered.ok().transpose()
    }
}

#[cfg(test)]
mod tests;
