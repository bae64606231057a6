//! Sending commands to the servers of a view, and reading their replies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Cmd, Pipeline, ServerError, Value, cmd};

use super::commands::{Commands, key_of, name_and_key};
use super::connection::{Connection, REPLY_TIMEOUT};
use super::fault::RedisFault;
use super::link::RedisLink;
use super::place::Address;
use super::side_by_side;
use super::slots::Redirect;
use super::view::View;
use crate::cache::{CacheError, Generation};

/// How often a blocking read follows redirects.
const BLOCKING_ROUNDS: u32 = 4;

/// Servers to send to. What is sent through one session goes to one run of each server.
pub(super) struct RedisSession<'a> {
    pub(super) link: &'a RedisLink,
    pub(super) view: Arc<View>,
    /// Whether a command could not be executed because its server, or its slot, is away.
    is_incomplete: AtomicBool,
}

// === impl RedisSession ===

impl<'a> RedisSession<'a> {
    pub(super) fn new(link: &'a RedisLink, view: Arc<View>) -> Self {
        Self {
            link,
            view,
            is_incomplete: AtomicBool::new(false),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.view.generation
    }

    /// Identifies the present runs of the servers.
    pub(super) fn run_id(&self) -> &str {
        &self.view.run
    }

    /// Whether a command of this session failed because its server, or its slot, is away.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_incomplete.load(Ordering::Relaxed)
    }

    /// Sends commands; returns their replies, or an error if one failed.
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
        let commands = commands.into();
        if self.view.slots.is_some() {
            return Box::pin(self.run_routed(commands, tolerated)).await;
        }
        let has_script = commands.script().is_some();
        let mut all = Vec::new();
        for part in commands.parts() {
            let replies = self.part(&part, tolerated).await?;
            if all.is_empty() {
                all = replies;
            } else {
                all.extend(replies);
            }
        }
        if has_script && !all.is_empty() {
            all.remove(0);
        }
        Ok(all)
    }

    /// Sends commands of which none needs another one, and ignores their replies.
    pub(super) async fn run_unordered(
        &self,
        commands: Commands,
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<(), CacheError> {
        if self.view.slots.is_some() {
            return Box::pin(self.run_routed(commands, tolerated))
                .await
                .map(drop);
        }
        side_by_side(commands.parts().into_iter(), |part| async move {
            self.part(&part, tolerated).await.map(drop)
        })
        .await
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

    /// One command to a server of the view, whatever keys it is about.
    pub(super) async fn one_at(&self, index: usize, command: Cmd) -> Result<Value, CacheError> {
        let replies = self
            .run_at(index, Commands::from(command), |_| false)
            .await?;
        Ok(replies.into_iter().next().unwrap_or(Value::Nil))
    }

    /// Commands to a server of the view, whatever keys they are about.
    pub(super) async fn run_at(
        &self,
        index: usize,
        commands: Commands,
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<Vec<Value>, CacheError> {
        let mut all = Vec::new();
        for part in commands.parts() {
            all.extend(self.part_at(index, &part, tolerated).await?);
        }
        Ok(all)
    }

    /// A part of commands to the one server.
    async fn part(
        &self,
        part: &Pipeline,
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<Vec<Value>, CacheError> {
        self.part_at(0, part, tolerated).await
    }

    async fn part_at(
        &self,
        index: usize,
        part: &Pipeline,
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<Vec<Value>, CacheError> {
        let connection = self.connection(index).map_err(|fault| fault.error)?;
        let replies = self.send(connection, part).await;
        let checked = replies.and_then(|replies| {
            self.check(connection, part, &replies, tolerated)?;
            Ok(replies)
        });
        checked.map_err(|fault| fault.error)
    }

    /// The connection to a server of the view.
    pub(super) fn connection(&self, index: usize) -> Result<&Arc<Connection>, RedisFault> {
        let Some(server) = self.view.servers.get(index) else {
            return Err(self.note(RedisFault::absent(
                &self.link.server,
                "the server is unknown",
            )));
        };
        server.connection.as_ref().ok_or_else(|| {
            let problem = server.problem.clone().unwrap_or_default();
            self.note(RedisFault {
                error: CacheError::Away(problem),
                ..RedisFault::absent(&server.name, "")
            })
        })
    }

    /// Remembers that a server or slot is away.
    pub(super) fn note(&self, fault: RedisFault) -> RedisFault {
        if fault.is_absent {
            self.is_incomplete.store(true, Ordering::Relaxed);
        }
        fault
    }

    /// Checks that a server takes commands and is in the same run as before.
    pub(super) async fn ping(&self, connection: &Arc<Connection>) -> Result<(), RedisFault> {
        let part = connection.ping();
        let replies = self.send(connection, &part).await?;
        self.check(connection, &part, &replies, |_| false)?;
        connection.check_run(replies).map_err(|fault| {
            self.link
                .troubles
                .unreachable(&connection.server, &fault.error);
            self.give_up(connection, fault)
        })
    }

    /// Sends a part to one server; gives the connection up if it is lost.
    pub(super) async fn send(
        &self,
        connection: &Arc<Connection>,
        part: &Pipeline,
    ) -> Result<Vec<Value>, RedisFault> {
        connection.send(part, REPLY_TIMEOUT).await.map_err(|fault| {
            self.link
                .troubles
                .unreachable(&connection.server, &fault.error);
            self.give_up(connection, fault)
        })
    }

    /// Gives the connection up if the fault says so.
    pub(super) fn give_up(&self, connection: &Arc<Connection>, fault: RedisFault) -> RedisFault {
        if fault.is_lost {
            self.link.drop_connection(connection, &fault);
        }
        self.note(fault)
    }

    /// The fault of the first reply that is an error and not `tolerated`.
    pub(super) fn check(
        &self,
        connection: &Arc<Connection>,
        part: &Pipeline,
        replies: &[Value],
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<(), RedisFault> {
        for (command, reply) in part.cmd_iter().zip(replies) {
            match reply {
                Value::ServerError(error) if !tolerated(error) => {
                    return Err(self.refused(connection, command, error));
                }
                _ => {}
            }
        }
        self.served(connection, part);
        Ok(())
    }

    /// The fault of an error reply, which is logged if a retry may help.
    pub(super) fn refused(
        &self,
        connection: &Arc<Connection>,
        command: &Cmd,
        error: &ServerError,
    ) -> RedisFault {
        let fault = connection.fault_of(command, error);
        if matches!(fault.error, CacheError::Away(_)) {
            let name = name_and_key(command).0;
            self.link
                .troubles
                .refused(&connection.server, &fault.error, name);
        }
        self.give_up(connection, fault)
    }

    /// These commands succeeded: ends the problem if the refused command is among them.
    pub(super) fn served(&self, connection: &Connection, part: &Pipeline) {
        let Some(refused) = self.link.troubles.refused_command(&connection.server) else {
            return;
        };
        if part.cmd_iter().any(|sent| name_and_key(sent).0 == refused) {
            self.link.troubles.served(&connection.server);
        }
    }

    /// Sends one command that the server may block for up to `wait`; none if the server is of another run than that of this
    /// session.
    pub(super) async fn blocking(
        &self,
        command: Cmd,
        wait: Duration,
    ) -> Result<Option<Value>, CacheError> {
        let mut view = Arc::clone(&self.view);
        let mut asked: Option<Address> = None;
        for _ in 0..BLOCKING_ROUNDS {
            let answer = match &asked {
                Some(address) => self.block_at(address, &command, wait).await,
                None => match self.block_in(&view, &command, wait).await {
                    Ok(None) => return Ok(None),
                    Ok(Some(answer)) => Ok(answer),
                    Err(fault) => Err(fault),
                },
            };
            match answer.map_err(|fault| fault.error)? {
                Answer::Reply(value) => return Ok(Some(value)),
                Answer::Redirect(Redirect::Ask(address)) => asked = Some(address),
                Answer::Redirect(Redirect::Moved(slot, address)) => {
                    asked = None;
                    view = self.moved(&view, slot, &address).await?;
                }
                Answer::Redirect(Redirect::TryAgain) => break,
            }
        }
        Err(CacheError::Away(format!(
            "{}: the cluster is moving the slot",
            self.link.server
        )))
    }

    /// A blocking read from the server that has the key.
    async fn block_in(
        &self,
        view: &View,
        command: &Cmd,
        wait: Duration,
    ) -> Result<Option<Answer>, RedisFault> {
        let index = view.server_of(key_of(command).unwrap_or_default());
        let server = index.and_then(|index| view.servers.get(index));
        let Some(shared) = server.and_then(|server| server.connection.as_ref()) else {
            let problem = view.problem().unwrap_or_default();
            return Err(RedisFault {
                error: CacheError::Away(problem),
                ..RedisFault::absent(&self.link.server, "")
            });
        };
        let connection = self.link.idle_connection(shared.address.as_ref()).await?;
        if connection.run != shared.run {
            return Ok(None);
        }
        self.block_on(connection, command, wait, false)
            .await
            .map(Some)
    }

    /// A blocking read from the server to which the key is moving.
    async fn block_at(
        &self,
        address: &Address,
        command: &Cmd,
        wait: Duration,
    ) -> Result<Answer, RedisFault> {
        let connection = self.link.idle_connection(Some(address)).await?;
        self.block_on(connection, command, wait, true).await
    }

    async fn block_on(
        &self,
        connection: Connection,
        command: &Cmd,
        wait: Duration,
        is_asking: bool,
    ) -> Result<Answer, RedisFault> {
        let mut part = Pipeline::new();
        if is_asking {
            part.add_command(cmd("ASKING"));
        }
        part.add_command(command.clone());
        let limit = wait.saturating_add(REPLY_TIMEOUT);
        // After an error the connection is not reused.
        let mut replies = connection.send(&part, limit).await?;
        if let Some(Value::ServerError(error)) = replies.last()
            && self.link.is_cluster()
        {
            let host = connection
                .address
                .as_ref()
                .map_or("", |it| it.host.as_str());
            if let Some(redirect) = Redirect::of(error, host) {
                return Ok(Answer::Redirect(redirect));
            }
        }
        connection.check(&part, &replies, |_| false)?;
        self.link.keep_idle(connection);
        Ok(Answer::Reply(replies.pop().unwrap_or(Value::Nil)))
    }

    /// The view after a slot has moved. Fails if the servers are of another generation now.
    pub(super) async fn moved(
        &self,
        view: &Arc<View>,
        slot: u16,
        master: &Address,
    ) -> Result<Arc<View>, CacheError> {
        let view = match self.link.move_slot(view, slot, master) {
            Some(view) => view,
            None => self.link.refresh(view).await?,
        };
        if view.generation == self.generation() {
            return Ok(view);
        }
        Err(CacheError::Away(format!(
            "{}: other masters have taken over",
            self.link.server
        )))
    }
}

/// What a server answered to a blocking read.
enum Answer {
    Reply(Value),
    Redirect(Redirect),
}
