//! One connection to one server.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ConnectionInfo, Pipeline, ServerError, Value};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::commands::name_and_key;
use super::fault::{Failed, RedisFault};
use super::place::Address;
use super::reply;
use super::wire::{RedisDial, RedisWire};

/// How long to wait for the replies to one part of commands.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// The most parts in flight on one connection.
const IN_FLIGHT_MAX: usize = 16;

/// What tells one run of a server from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunKind {
    /// The process, which a restart ends.
    Process,
    /// The process while it was a master without a break: with replicas, a server may become a replica and a master
    /// again, and lose what it had.
    Mastership,
}

/// A connection, and the server at its other end.
pub(super) struct Connection {
    wire: Box<dyn RedisWire>,
    /// The server without secrets, for messages.
    pub(super) server: Arc<str>,
    /// None for the one server that the URL names.
    pub(super) address: Option<Address>,
    /// Identifies the run of the server.
    pub(super) run: Arc<str>,
    kind: RunKind,
    pub(super) made: Instant,
    in_flight: Semaphore,
}

/// The fields of `INFO`.
pub(super) struct Info(String);

/// The moment that is `delay` away. Its `elapsed` stays 0 until it has passed.
pub(super) fn moment(delay: Duration) -> Instant {
    tokio::time::sleep(delay).deadline()
}

// === impl Connection ===

impl Connection {
    /// Connects and logs in; the caller limits the time. With [`RunKind::Mastership`], the server has to be a master.
    pub(super) async fn open(
        dial: &dyn RedisDial,
        info: ConnectionInfo,
        server: Arc<str>,
        address: Option<Address>,
        kind: RunKind,
    ) -> Result<Self, RedisFault> {
        let mut connection = Self::open_any(dial, info, server).await?;
        (connection.address, connection.kind) = (address, kind);
        connection.run = connection.read_run().await?;
        Ok(connection)
    }

    /// Connects to a server whose run does not matter.
    pub(super) async fn open_any(
        dial: &dyn RedisDial,
        info: ConnectionInfo,
        server: Arc<str>,
    ) -> Result<Self, RedisFault> {
        let dialed = dial.dial(info).await;
        let wire = dialed.map_err(|error| RedisFault::of_link(&server, &error))?;
        Ok(Self {
            wire,
            server,
            address: None,
            run: "".into(),
            kind: RunKind::Process,
            made: moment(Duration::ZERO),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        })
    }

    /// The run of the server as it is now.
    ///
    /// # Errors
    /// The connection is lost, or (with [`RunKind::Mastership`]) the server is not a master.
    async fn read_run(&self) -> Result<Arc<str>, RedisFault> {
        let mut part = Pipeline::new();
        self.ask_run(&mut part);
        let replies = self.send(&part, REPLY_TIMEOUT).await?;
        self.check(&part, &replies, |_| false)?;
        self.run_of(replies)
    }

    /// Adds the commands whose replies say which run the server is in.
    fn ask_run(&self, part: &mut Pipeline) {
        let sections: &[&str] = match self.kind {
            RunKind::Process => &["server"],
            RunKind::Mastership => &["server", "replication"],
        };
        for section in sections {
            part.add_command(redis::cmd("INFO").arg(section).take());
        }
    }

    /// The run in the replies to [`Self::ask_run`].
    fn run_of(&self, replies: impl IntoIterator<Item = Value>) -> Result<Arc<str>, RedisFault> {
        let texts = replies.into_iter().filter_map(reply::text);
        let info = Info::of(texts.collect::<Vec<_>>().join("\n"));
        let Some(run_id) = info.text("run_id") else {
            let problem = "INFO has no run_id: is a proxy between Mika and Redis?";
            return Err(RedisFault::broken(&self.server, problem));
        };
        if self.kind == RunKind::Process {
            return Ok(run_id.into());
        }
        if info.text("role") != Some("master") {
            return Err(RedisFault::lost(&self.server, "it is a replica now"));
        }
        let history = info.text("master_replid").unwrap_or_default();
        Ok(format!("{run_id}/{history}").into())
    }

    /// The commands of a ping. Of servers with replicas, it also asks which run they are in.
    pub(super) fn ping(&self) -> Pipeline {
        let mut part = Pipeline::new();
        part.add_command(redis::cmd("PING"));
        if self.kind == RunKind::Mastership {
            self.ask_run(&mut part);
        }
        part
    }

    /// Checks by the replies to a ping that the server is still in the run that it was in.
    pub(super) fn check_run(&self, replies: Vec<Value>) -> Result<(), RedisFault> {
        if self.kind == RunKind::Mastership && self.run_of(replies.into_iter().skip(1))? != self.run
        {
            return Err(RedisFault::lost(
                &self.server,
                "it was a replica, or has begun another history",
            ));
        }
        Ok(())
    }

    /// Sends one command; an error reply is a fault.
    pub(super) async fn one(&self, command: Cmd, limit: Duration) -> Result<Value, RedisFault> {
        let mut part = Pipeline::new();
        part.add_command(command);
        let mut replies = self.send(&part, limit).await?;
        self.check(&part, &replies, |_| false)?;
        Ok(replies.pop().unwrap_or(Value::Nil))
    }

    /// Sends a part of commands once there is room; returns a reply for each.
    pub(super) async fn send(
        &self,
        part: &Pipeline,
        limit: Duration,
    ) -> Result<Vec<Value>, RedisFault> {
        let Ok(Ok(_permit)) = timeout(REPLY_TIMEOUT, self.in_flight.acquire()).await else {
            return Err(RedisFault::away(
                &self.server,
                "it can't keep up with the commands it was sent",
            ));
        };
        match self.wire.send(part, limit).await {
            Ok(Some(replies)) if replies.len() == part.len() => Ok(replies),
            Ok(Some(_)) => Err(RedisFault::lost(
                &self.server,
                "it left commands unanswered",
            )),
            Ok(None) => Err(RedisFault::lost(&self.server, "it does not answer")),
            Err(error) => Err(RedisFault::of_link(&self.server, &error)),
        }
    }

    /// The fault of the first reply that is an error and not `tolerated`.
    pub(super) fn check(
        &self,
        part: &Pipeline,
        replies: &[Value],
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<(), RedisFault> {
        let faults = part.cmd_iter().zip(replies).filter_map(|(command, reply)| {
            let Value::ServerError(error) = reply else {
                return None;
            };
            (!tolerated(error)).then(|| self.fault_of(command, error))
        });
        faults.take(1).try_for_each(Err)
    }

    /// The fault of an error reply.
    pub(super) fn fault_of(&self, command: &Cmd, error: &ServerError) -> RedisFault {
        let (name, key) = name_and_key(command);
        let failed = Failed {
            command: &name,
            key: key.as_deref(),
        };
        RedisFault::of_reply(&self.server, error, &failed)
    }
}

// === impl Info ===

impl Info {
    pub(super) fn of(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        let mut fields = self.0.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(name, _)| *name == field)?;
        Some(value.trim())
    }

    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.text(field)?.parse().ok()
    }
}
