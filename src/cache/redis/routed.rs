//! Commands to the masters of a cluster: to each master its own, to all at once, and again to another one where a slot
//! has moved meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, ServerError, Value, cmd};

use super::commands::{Commands, PartSize, Script, key_of};
use super::connection::Connection;
use super::fault::RedisFault;
use super::place::Address;
use super::session::RedisSession;
use super::slots::Redirect;
use super::view::View;
use crate::cache::CacheError;

/// How often commands are sent again because their slots have moved.
const ROUNDS: u32 = 10;

/// The pause before such a round, apart from the first.
const PAUSE: Duration = Duration::from_millis(20);

/// A command of a stage.
struct Item {
    /// Its place in the stage.
    index: usize,
    command: Cmd,
    /// The master that has the key already, of a slot on its way there.
    asked: Option<Address>,
}

/// Which master gets a share of the commands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Server(usize),
    Asked(Address),
    /// No master serves the slot.
    Nobody,
}

/// What came of a round.
#[derive(Default)]
struct Outcome {
    replies: Vec<(usize, Value)>,
    /// To be sent again.
    redirected: Vec<(Item, Redirect)>,
    fault: Option<RedisFault>,
}

/// Commands that are sent at once, and their places.
#[derive(Default)]
struct Part {
    pipeline: Pipeline,
    /// The items, and where their replies are.
    items: Vec<(usize, usize)>,
}

impl RedisSession<'_> {
    /// Sends commands to the masters that have their keys. Every command is sent, even if another one fails.
    pub(super) async fn run_routed(
        &self,
        commands: Commands,
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<Vec<Value>, CacheError> {
        let script = commands.script();
        let mut all = Vec::new();
        for stage in commands.stages() {
            all.extend(self.stage(stage, script, tolerated).await?);
        }
        Ok(all)
    }

    async fn stage(
        &self,
        commands: Vec<Cmd>,
        script: Option<&'static Script>,
        tolerated: fn(&ServerError) -> bool,
    ) -> Result<Vec<Value>, CacheError> {
        let mut replies = vec![Value::Nil; commands.len()];
        let mut rest: Vec<Item> = commands.into_iter().enumerate().map(Item::new).collect();
        let mut fault = None;
        // Slots may have moved since the session began.
        let now = self.link.view();
        let now = now.filter(|view| view.generation == self.generation());
        let mut view = now.unwrap_or_else(|| Arc::clone(&self.view));
        for round in 0..ROUNDS {
            if round > 1 {
                tokio::time::sleep(PAUSE).await;
            }
            let outcome = self.round(&view, rest, script, tolerated).await;
            for (index, reply) in outcome.replies {
                if let Some(place) = replies.get_mut(index) {
                    *place = reply;
                }
            }
            fault = fault.or(outcome.fault);
            if outcome.redirected.is_empty() {
                return fault.map_or(Ok(replies), |fault: RedisFault| Err(fault.error));
            }
            (rest, view) = self.follow(outcome.redirected, view).await?;
        }
        Err(CacheError::Away(format!(
            "{}: its slots move faster than they can be found",
            self.link.server
        )))
    }

    /// Sends each item once.
    async fn round(
        &self,
        view: &View,
        items: Vec<Item>,
        script: Option<&'static Script>,
        tolerated: fn(&ServerError) -> bool,
    ) -> Outcome {
        let mut shares: BTreeMap<Target, Vec<Item>> = BTreeMap::new();
        for item in items {
            shares.entry(item.target(view)).or_default().push(item);
        }
        let sent = shares
            .into_iter()
            .map(|(target, items)| self.share(view, target, items, script, tolerated));
        let mut all = Outcome::default();
        for outcome in join_all(sent).await {
            all.replies.extend(outcome.replies);
            all.redirected.extend(outcome.redirected);
            all.fault = all.fault.or(outcome.fault);
        }
        // Those of one key stay in order.
        all.redirected.sort_by_key(|(item, _)| item.index);
        all
    }

    /// Sends one master its share.
    async fn share(
        &self,
        view: &View,
        target: Target,
        items: Vec<Item>,
        script: Option<&'static Script>,
        tolerated: fn(&ServerError) -> bool,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let is_asking = matches!(target, Target::Asked(_));
        let connection = match self.connection_of(view, &target).await {
            Ok(connection) => connection,
            Err(fault) => {
                outcome.fault = Some(fault);
                return outcome;
            }
        };
        for part in parts(items, script, is_asking) {
            let replies = match self.send(&connection, &part.pipeline).await {
                Ok(replies) => replies,
                Err(fault) => {
                    outcome.fault = outcome.fault.or(Some(fault));
                    return outcome;
                }
            };
            self.sort_replies(&connection, &part, replies, tolerated, &mut outcome);
        }
        if is_asking && let Some(connection) = Arc::into_inner(connection) {
            self.link.keep_idle(connection);
        }
        outcome
    }

    async fn connection_of(
        &self,
        view: &View,
        target: &Target,
    ) -> Result<Arc<Connection>, RedisFault> {
        let away = |problem: &str| {
            self.link.restore();
            self.note(RedisFault::absent(&self.link.server, problem))
        };
        match target {
            Target::Nobody => Err(away("no master of the cluster serves the slot")),
            Target::Server(index) => {
                let server = view.servers.get(*index);
                let connection = server.and_then(|server| server.connection.clone());
                connection.ok_or_else(|| {
                    let problem = server.and_then(|server| server.problem.clone());
                    let fault = away("a master of the cluster is away");
                    match problem {
                        Some(problem) => RedisFault {
                            error: CacheError::Away(problem),
                            ..fault
                        },
                        None => fault,
                    }
                })
            }
            // It may not have any slots yet, and so not be part of the view.
            Target::Asked(address) => {
                let connection = self.link.idle_connection(Some(address)).await;
                connection.map(Arc::new).map_err(|fault| self.note(fault))
            }
        }
    }

    /// Sorts the replies of a part into the outcome.
    fn sort_replies(
        &self,
        connection: &Arc<Connection>,
        part: &Part,
        replies: Vec<Value>,
        tolerated: fn(&ServerError) -> bool,
        outcome: &mut Outcome,
    ) {
        let host = connection
            .address
            .as_ref()
            .map_or("", |it| it.host.as_str());
        let mut places = part.items.iter().peekable();
        let mut has_failed = false;
        for (place, (command, reply)) in part.pipeline.cmd_iter().zip(replies).enumerate() {
            let item = places.next_if(|(_, at)| *at == place);
            let Value::ServerError(error) = &reply else {
                outcome
                    .replies
                    .extend(item.map(|(index, _)| (*index, reply)));
                continue;
            };
            match (item, Redirect::of(error, host)) {
                (Some((index, _)), Some(redirect)) => {
                    let again = Item::new((*index, command.clone()));
                    outcome.redirected.push((again, redirect));
                }
                (Some((index, _)), None) if tolerated(error) => {
                    outcome.replies.push((*index, reply));
                }
                _ if has_failed => {}
                _ => {
                    has_failed = true;
                    let fault = self.refused(connection, command, error);
                    if fault.is_absent {
                        self.link.restore();
                    }
                    outcome.fault = outcome.fault.take().or(Some(fault));
                }
            }
        }
        if !has_failed {
            self.served(connection, &part.pipeline);
        }
    }

    /// The view in which redirected commands find their master.
    async fn follow(
        &self,
        redirected: Vec<(Item, Redirect)>,
        mut view: Arc<View>,
    ) -> Result<(Vec<Item>, Arc<View>), CacheError> {
        let mut rest = Vec::with_capacity(redirected.len());
        for (mut item, redirect) in redirected {
            match redirect {
                Redirect::Moved(slot, master) => {
                    let known = view.server_of(key_of(&item.command).unwrap_or_default());
                    if known.is_none() || known != view.index_of(&master) {
                        view = self.moved(&view, slot, &master).await?;
                    }
                }
                Redirect::Ask(address) => item.asked = Some(address),
                Redirect::TryAgain => {}
            }
            rest.push(item);
        }
        Ok((rest, view))
    }
}

/// Items in parts of bounded size, with what has to precede them.
fn parts(items: Vec<Item>, script: Option<&'static Script>, is_asking: bool) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut size = PartSize::default();
    for item in items {
        let has_room = size.fits(&item.command);
        if parts.is_empty() || !has_room {
            let mut part = Part::default();
            // Once for the connection.
            if let Some(script) = script.filter(|_| parts.is_empty()) {
                part.pipeline.add_command(script.load());
            }
            parts.push(part);
        }
        let Some(part) = parts.last_mut() else {
            continue;
        };
        if is_asking {
            part.pipeline.add_command(cmd("ASKING"));
        }
        part.items.push((item.index, part.pipeline.len()));
        part.pipeline.add_command(item.command);
    }
    parts
}

// === impl Item ===

impl Item {
    fn new((index, command): (usize, Cmd)) -> Self {
        Self {
            index,
            command,
            asked: None,
        }
    }

    fn target(&self, view: &View) -> Target {
        if let Some(address) = &self.asked {
            return Target::Asked(address.clone());
        }
        let server = match key_of(&self.command) {
            Some(key) => view.server_of(key),
            None => view.servers.iter().position(|it| it.connection.is_some()),
        };
        server.map_or(Target::Nobody, Target::Server)
    }
}
