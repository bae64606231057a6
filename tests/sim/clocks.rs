//! Clocks that are set wrong: one at a time, because most have to be right.

use std::sync::Arc;

use super::faults::{Fault, Kind};
use super::network::Place;
use super::process::Site;

/// Seconds by which a clock is wrong, or the same backwards.
const SKEWS: [i64; 7] = [2, 5, 60, 240, 3600, 80_000, 200_000];

// === impl Fault ===

impl Fault {
    /// Sets a clock, and sets it right again some time later.
    pub async fn set_a_clock(&mut self) {
        let clocks = Arc::clone(&self.clocks);
        let Ok(_turn) = clocks.try_lock() else { return };
        let skew = SKEWS[self.random.usize(..SKEWS.len())];
        let skew = if self.random.bool() { skew } else { -skew };
        let place = match self.random.u32(..6) {
            0 => Place::Cache(self.random.usize(..self.world.plan.parts)),
            1 => Place::Storage,
            _ => return self.set_clock_of_a_node(skew).await,
        };
        let network = Arc::clone(&self.world.network);
        self.record(format!("the clock of {place:?} is set by {skew} s"));
        network.set_skew(place, skew);
        self.wait(5, 90).await;
        if self.random.u32(..3) == 0 {
            self.start_again(None).await;
            self.wait(5, 60).await;
        }
        network.set_skew(place, 0);
        self.record(format!("the clock of {place:?} is right again"));
    }

    async fn set_clock_of_a_node(&mut self, skew: i64) {
        let at = self.random.usize(..self.world.sites.len());
        let site = Arc::clone(&self.world.sites[at]);
        if self.random.bool() {
            self.record(format!("the clock of {} is set by {skew} s", site.name()));
            site.set_skew(skew);
        } else {
            self.start_again(Some((&site, skew))).await;
            site.set_skew(skew);
        }
        self.wait(5, 90).await;
        if self.random.u32(..3) == 0 {
            self.start_again(Some((&site, 0))).await;
        }
        site.set_skew(0);
        self.record(format!("the clock of {} is right again", site.name()));
    }

    /// Starts a node again, whose clock is set meanwhile if it is named.
    async fn start_again(&mut self, set: Option<(&Arc<Site>, i64)>) {
        let sites = &self.world.sites;
        let site = match set {
            Some((site, _)) => Arc::clone(site),
            None => Arc::clone(&sites[self.random.usize(..sites.len())]),
        };
        // It was stopped already; or only this process has what storage lost.
        let plan = &self.world.plan;
        let may_go_back = !plan.has_cache && plan.faults.contains(&Kind::StorageBack);
        if may_go_back || !site.is_on() {
            return;
        }
        if self.random.bool() {
            site.stop().await;
        } else {
            self.record(format!("{} is killed", site.name()));
            site.kill();
        }
        self.wait(1, 40).await;
        if let Some((site, skew)) = set {
            self.record(format!("the clock of {} is set by {skew} s", site.name()));
            site.set_skew(skew);
        }
        site.start(&self.world);
        self.serves(&site).await;
    }
}
