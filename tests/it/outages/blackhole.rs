//! Servers that a network loses: requests to them get no answer.

use serde_json::json;

use super::trial::{REST, THREADS, Trial};
use crate::harness::database::Database;
use crate::harness::load::USERS_PER_THREAD;
use crate::harness::net::{Family, Network};
use crate::harness::site::Site;

crate::on_each_database![a_route_may_be_dropped];

fn a_route_may_be_dropped(database: Database) {
    let mut network = Network::new();
    let (ours, theirs) = (network.host(), network.host());
    let users = THREADS * USERS_PER_THREAD;
    let site = Site::prepare_apart(database, users, &ours, &theirs, &json!({}));
    let (our_address, their_address) = (ours.address(Family::V4), theirs.address(Family::V4));
    Trial::run_on(site, REST, |trial| {
        trial.outage(
            "no way to the servers",
            |_| ours.blackhole(their_address, true),
            |_| ours.blackhole(their_address, false),
        );
        trial.outage(
            "no way back",
            |_| theirs.blackhole(our_address, true),
            |_| theirs.blackhole(our_address, false),
        );
    });
}
