//! Replies that are held back until what they acknowledge is durable. Their worker does not wait.

use std::net::UdpSocket;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::UdpSettings;
use super::batch::{Outgoing, Route};
use crate::telemetry::metrics::Metrics;
use crate::tracker::{Ticket, Tracker};

/// The most replies held at once. One more is dropped: its client retries, as if the network had lost it.
const HELD_MAX: usize = 16_384;

/// The held replies of all UDP workers.
#[derive(Clone)]
pub struct HeldReplies {
    tracker: Arc<Tracker>,
    metrics: Arc<Metrics>,
    settings: Arc<ArcSwap<UdpSettings>>,
    permits: Arc<Semaphore>,
    /// Runs the tasks that wait.
    runtime: Handle,
}

impl HeldReplies {
    /// Each reply waits in a task on `runtime`.
    pub fn new(
        tracker: Arc<Tracker>,
        metrics: Arc<Metrics>,
        settings: Arc<ArcSwap<UdpSettings>>,
        runtime: Handle,
    ) -> Self {
        Self {
            tracker,
            metrics,
            settings,
            permits: Arc::new(Semaphore::new(HELD_MAX)),
            runtime,
        }
    }

    /// Sends the reply that `write` appends once what the ticket stands for is durable, or after `ack_timeout`.
    pub fn hold(
        &self,
        socket: &Arc<UdpSocket>,
        route: &Route,
        ticket: Ticket,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.udp_unsent.increment();
            return;
        };
        let mut reply = Outgoing::one(route, write);
        let (held, socket) = (self.clone(), Arc::clone(socket));
        self.runtime.spawn(async move {
            let limit = held.settings.load().ack_timeout;
            let settled = held.tracker.outbox().durable(ticket);
            if tokio::time::timeout(limit, settled).await.is_err() {
                held.metrics.ack_timeouts.increment();
            }
            let lost = reply.send(&socket);
            held.metrics.udp_unsent.add(lost as u64);
            drop(permit);
        });
    }

    /// Resolves when no reply is held: within `ack_timeout`, unless a worker adds another.
    pub async fn emptied(&self) {
        let all = u32::try_from(HELD_MAX).unwrap_or(u32::MAX);
        // Fails only if the semaphore is closed, which it never is.
        let _ = self.permits.acquire_many(all).await;
    }
}
