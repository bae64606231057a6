//! Connections to the server, their timeouts, and reconnecting.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo as _, Pipeline, ProtocolVersion,
    ServerError, Value,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::commands::{Commands, name_and_key};
use super::fault::{Failed, RedisFault};
use super::reply;
use crate::base::backoff::Backoff;
use crate::base::secret::Secret;
use crate::cache::{CacheError, Generation};
use crate::registry::BadRow;

/// How long to wait for a new connection, its first reply included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for the replies to one part of commands.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Backoff between attempts to connect.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The most parts in flight.
const IN_FLIGHT_MAX: usize = 16;

/// Idle connections kept for blocking reads.
const IDLE_MAX: usize = 16;

/// The connection to the server, shared by all tasks.
pub(super) struct RedisLink {
    client: Client,
    /// The URL without secrets.
    server: String,
    in_flight: Semaphore,
    /// Held while connecting.
    connecting: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// A connection and the server at its other end.
struct Connection {
    wire: MultiplexedConnection,
    generation: Generation,
    run_id: Arc<str>,
    made: Instant,
}

/// A connection to send to. What is sent through one session goes to one run of one server.
#[derive(Clone)]
pub(super) struct RedisSession<'a> {
    link: &'a RedisLink,
    connection: Arc<Connection>,
}

/// A dedicated connection for blocking commands.
pub(super) struct BlockingConnection<'a> {
    link: &'a RedisLink,
    connection: Connection,
}

struct State {
    shared: Option<Arc<Connection>>,
    idle: Vec<Connection>,
    backoff: Backoff,
    /// No reconnect before then.
    closed_until: Option<Instant>,
    last_run_id: Option<Arc<str>>,
    /// The last epoch seen on the server: emptying the server removes it.
    epoch: Option<String>,
    generation: Generation,
    trouble: Option<Trouble>,
}

/// The problem that was logged last, so that each is logged once.
enum Trouble {
    Unreachable,
    /// The server refused this command.
    Refusing(String),
}

/// The moment that is `delay` away. Its `elapsed` stays 0 until it has passed.
fn moment(delay: Duration) -> Instant {
    tokio::time::sleep(delay).deadline()
}

// === impl RedisLink ===

impl RedisLink {
    /// Parses the URL; does not connect yet.
    pub(super) fn new(url: &Secret) -> Result<Self, CacheError> {
        let wrong = |text: String| CacheError::Broken(format!("cache.url {url}: {text}"));
        // Errors must not quote the URL.
        let info = url
            .expose()
            .into_connection_info()
            .map_err(|error| wrong(format!("{error}; {FORMS}")))?;
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        let info = info
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            client,
            server: format!("Redis at {url}"),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            connecting: tokio::sync::Mutex::new(()),
            state: Mutex::new(State {
                shared: None,
                idle: Vec::new(),
                backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
                closed_until: None,
                last_run_id: None,
                epoch: None,
                generation: Generation(0),
                trouble: None,
            }),
        })
    }

    /// The shared connection; reconnects if necessary and the backoff allows it.
    pub(super) async fn session(&self) -> Result<RedisSession<'_>, CacheError> {
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let _turn = self.connecting.lock().await;
        // Another task may have connected meanwhile.
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let mut connection = self.connect().await?;
        let mut state = self.state.lock();
        if state.last_run_id.as_ref() != Some(&connection.run_id) {
            state.generation.0 += 1;
            state.last_run_id = Some(connection.run_id.clone());
            state.epoch = None;
        }
        connection.generation = state.generation;
        let connection = Arc::new(connection);
        state.shared = Some(connection.clone());
        Ok(RedisSession {
            link: self,
            connection,
        })
    }

    /// Compares the server's epoch with the last one. If it differs or is missing, the server was emptied,
    /// and a new generation begins.
    pub(super) fn saw_epoch(&self, session: &RedisSession<'_>, seen: Option<String>) -> Generation {
        let mut state = self.state.lock();
        if session.generation() != state.generation {
            return state.generation;
        }
        let was_emptied = state.epoch.is_some() && state.epoch != seen;
        state.epoch = seen;
        if was_emptied {
            state.begin_generation(&session.connection);
        }
        state.generation
    }

    /// The data behind a session is lost: begins a new generation, unless one has begun since.
    pub(super) fn was_emptied(&self, session: &RedisSession<'_>) -> Generation {
        let mut state = self.state.lock();
        if session.generation() == state.generation {
            state.begin_generation(&session.connection);
        }
        state.generation
    }

    /// A connection for one blocking read.
    pub(super) async fn blocking_connection(&self) -> Result<BlockingConnection<'_>, CacheError> {
        let idle = self.state.lock().idle.pop();
        let connection = if let Some(connection) = idle {
            connection
        } else {
            let _turn = self.connecting.lock().await;
            self.connect().await?
        };
        Ok(BlockingConnection {
            link: self,
            connection,
        })
    }

    fn current(&self) -> Option<RedisSession<'_>> {
        let connection = self.state.lock().shared.clone()?;
        Some(RedisSession {
            link: self,
            connection,
        })
    }

    async fn connect(&self) -> Result<Connection, CacheError> {
        let closed_until = self.state.lock().closed_until;
        if closed_until.is_some_and(|until| until.elapsed().is_zero()) {
            return Err(CacheError::Away(format!(
                "{}: no connection; the next attempt follows soon",
                self.server
            )));
        }
        let made = match timeout(CONNECT_TIMEOUT, self.establish()).await {
            Ok(made) => made,
            Err(_) => Err(RedisFault::lost(&self.server, "it does not answer")),
        };
        match made {
            Ok(connection) => {
                self.reached();
                Ok(connection)
            }
            Err(fault) => {
                self.state.lock().close();
                self.log_trouble(&fault.error, Trouble::Unreachable);
                Err(fault.error)
            }
        }
    }

    async fn establish(&self) -> Result<Connection, RedisFault> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let of_link = |error| RedisFault::of_link(&self.server, &error);
        let mut wire = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(of_link)?;
        let mut info = redis::cmd("INFO");
        info.arg("server");
        let answer = wire.send_packed_command(&info).await.map_err(of_link)?;
        if let Value::ServerError(error) = &answer {
            let failed = Failed {
                command: "INFO",
                key: None,
            };
            return Err(RedisFault::of_reply(&self.server, error, &failed));
        }
        let text = reply::text(answer).unwrap_or_default();
        let run_id = text.lines().find_map(|line| line.strip_prefix("run_id:"));
        let Some(run_id) = run_id else {
            let problem = "INFO has no run_id: is a proxy between Mika and Redis?";
            return Err(RedisFault::broken(&self.server, problem));
        };
        Ok(Connection {
            wire,
            generation: Generation(0),
            run_id: run_id.trim().into(),
            made: moment(Duration::ZERO),
        })
    }

    /// Drops the shared connection, unless another task has replaced it already.
    fn drop_shared(&self, connection: &Arc<Connection>) {
        let mut state = self.state.lock();
        if state
            .shared
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, connection))
        {
            state.shared = None;
            state.idle.clear();
            // Only a connection that lasted resets the backoff.
            if connection.made.elapsed() > BACKOFF_MAX {
                state.backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
            }
            state.close();
        }
    }

    fn log_trouble(&self, error: &CacheError, trouble: Trouble) {
        let mut state = self.state.lock();
        if state.trouble.is_none() {
            state.trouble = Some(trouble);
            drop(state);
            tracing::warn!("the cache is away: {error}");
        }
    }

    fn reached(&self) {
        let mut state = self.state.lock();
        if matches!(state.trouble, Some(Trouble::Unreachable)) {
            state.trouble = None;
            drop(state);
            tracing::info!("the cache is back: {}", self.server);
        }
    }

    /// These commands succeeded: ends the problem if the refused command is among them.
    fn served(&self, part: &Pipeline) {
        let mut state = self.state.lock();
        let Some(Trouble::Refusing(command)) = &state.trouble else {
            return;
        };
        if part.cmd_iter().any(|sent| name_and_key(sent).0 == *command) {
            state.trouble = None;
            drop(state);
            tracing::info!("the cache is back: {}", self.server);
        }
    }

    /// The fault of the first reply that is an error and not `tolerated`.
    fn check(
        &self,
        part: &Pipeline,
        replies: &[Value],
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<(), RedisFault> {
        if replies.len() != part.len() {
            return Err(RedisFault::lost(
                &self.server,
                "it left commands unanswered",
            ));
        }
        for (command, reply) in part.cmd_iter().zip(replies) {
            let Value::ServerError(error) = reply else {
                continue;
            };
            if tolerated(error) {
                continue;
            }
            let (name, key) = name_and_key(command);
            let failed = Failed {
                command: &name,
                key: key.as_deref(),
            };
            let fault = RedisFault::of_reply(&self.server, error, &failed);
            if matches!(fault.error, CacheError::Away(_)) {
                self.log_trouble(&fault.error, Trouble::Refusing(name));
            }
            return Err(fault);
        }
        self.served(part);
        Ok(())
    }

    async fn send(
        &self,
        wire: &MultiplexedConnection,
        part: &Pipeline,
        time_limit: Duration,
    ) -> Result<Vec<Value>, RedisFault> {
        // A clone is a handle to the same connection.
        let mut wire = wire.clone();
        match timeout(time_limit, wire.send_packed_commands(part, 0, part.len())).await {
            Ok(Ok(replies)) => Ok(replies),
            Ok(Err(error)) => Err(RedisFault::of_link(&self.server, &error)),
            Err(_) => Err(RedisFault::lost(&self.server, "it does not answer")),
        }
    }

    /// The error for a reply that only another program or a proxy could cause.
    pub(super) fn unexpected(&self, command: &str) -> CacheError {
        CacheError::Broken(format!(
            "{}: an unexpected reply to {command}: is it Redis?",
            self.server
        ))
    }

    /// The error for a single row that can't be used.
    pub(super) fn unusable(&self, bad: &BadRow) -> CacheError {
        self.broken(&format!("{}:{}: {}", bad.table, bad.id, bad.problem))
    }

    pub(super) fn broken(&self, text: &str) -> CacheError {
        CacheError::Broken(format!("{}: {text}", self.server))
    }
}

const FORMS: &str = "its forms are redis://user:password@host:port/database, rediss:// for TLS, \
     and unix:///path/to/socket?db=0; in a password write %2F for '/', %23 for '#', %3F for '?', %40 \
     for '@' and %3A for ':'";

// === impl State ===

impl State {
    /// Keeps the connection, for the next generation.
    fn begin_generation(&mut self, connection: &Connection) {
        self.generation.0 += 1;
        if self.shared.is_some() {
            self.shared = Some(Arc::new(Connection {
                wire: connection.wire.clone(),
                generation: self.generation,
                run_id: Arc::clone(&connection.run_id),
                made: connection.made,
            }));
        }
    }

    fn close(&mut self) {
        let delay = self.backoff.next().unwrap_or(BACKOFF_MAX);
        self.closed_until = Some(moment(delay));
    }
}

// === impl RedisSession ===

impl RedisSession<'_> {
    pub(super) fn generation(&self) -> Generation {
        self.connection.generation
    }

    /// Identifies this run of the server.
    pub(super) fn run_id(&self) -> &str {
        &self.connection.run_id
    }

    /// Sends commands in order; returns their replies, or the first error.
    pub(super) async fn run(
        &self,
        commands: impl Into<Commands>,
    ) -> Result<Vec<Value>, CacheError> {
        self.run_tolerant(commands, |_| false).await
    }

    /// Like [`Self::run`], but `tolerated` errors are returned as replies.
    pub(super) async fn run_tolerant(
        &self,
        commands: impl Into<Commands>,
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<Vec<Value>, CacheError> {
        let mut all = Vec::new();
        for part in commands.into().parts() {
            let replies = self.part(&part, tolerated).await?;
            if all.is_empty() {
                all = replies;
            } else {
                all.extend(replies);
            }
        }
        Ok(all)
    }

    /// One command.
    pub(super) async fn one(&self, command: Cmd) -> Result<Value, CacheError> {
        let name = name_and_key(&command).0;
        let replies = self.run(command).await?;
        replies
            .into_iter()
            .next()
            .ok_or_else(|| self.link.unexpected(&name))
    }

    /// Sends one part of commands, and ignores the replies.
    pub(super) async fn run_part(
        &self,
        part: Pipeline,
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<(), CacheError> {
        self.part(&part, tolerated).await.map(drop)
    }

    async fn part(
        &self,
        part: &Pipeline,
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<Vec<Value>, CacheError> {
        let link = self.link;
        let Ok(Ok(_permit)) = timeout(REPLY_TIMEOUT, link.in_flight.acquire()).await else {
            return Err(CacheError::Away(format!(
                "{}: it can't keep up with the commands it was sent",
                link.server
            )));
        };
        let sent = link.send(&self.connection.wire, part, REPLY_TIMEOUT).await;
        let was_sent = sent.is_ok();
        let checked = sent.and_then(|replies| {
            link.check(part, &replies, tolerated)?;
            Ok(replies)
        });
        checked.map_err(|fault| {
            if fault.is_lost {
                link.drop_shared(&self.connection);
            }
            if !was_sent {
                link.log_trouble(&fault.error, Trouble::Unreachable);
            }
            fault.error
        })
    }
}

// === impl BlockingConnection ===

impl BlockingConnection<'_> {
    /// Identifies the run of the server at the other end.
    pub(super) fn run_id(&self) -> &str {
        &self.connection.run_id
    }

    /// Sends one command that the server may block for up to `wait`.
    pub(super) async fn one(self, command: Cmd, wait: Duration) -> Result<Value, CacheError> {
        let link = self.link;
        let mut part = Pipeline::new();
        part.add_command(command);
        let time_limit = wait.saturating_add(REPLY_TIMEOUT);
        let sent = link.send(&self.connection.wire, &part, time_limit).await;
        let checked = sent.and_then(|mut replies| {
            link.check(&part, &replies, |_| false)?;
            Ok(replies.pop().unwrap_or(Value::Nil))
        });
        // After an error the connection is not reused.
        let value = checked.map_err(|fault| fault.error)?;
        let mut state = link.state.lock();
        if state.idle.len() < IDLE_MAX {
            state.idle.push(self.connection);
        }
        Ok(value)
    }
}
