//! A node that is paused, like a migrating virtual machine, while a replacement of the same name
//! starts (C2): both journals count, and the paused one reports its leftovers.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::pair::{Client, knows_user};
use crate::harness::database::Database;
use crate::harness::http::Connection;
use crate::harness::load::passkey;
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{Mika, now, poll};

const MB: u64 = 1_000_000;

/// How long credit may take to storage, and what a dead node left.
const CREDITED: Duration = Duration::from_secs(40);

/// How long a node may take to notice that it was replaced, and to save its rest.
const ENDED: Duration = Duration::from_secs(20);

/// More than two seconds: the clocks of two nodes may differ by one, and within one the order is unknown.
const SECOND: Duration = Duration::from_millis(2200);

fn uploaded(site: &Site, user: usize) -> u64 {
    let passkey = passkey(user);
    let sql = format!("SELECT uploaded FROM users WHERE passkey = '{passkey}'");
    let [uploaded] = site.database.row(&sql);
    uploaded.cast_unsigned()
}

/// What happened to the clients of a node that was paused and replaced.
struct Replaced {
    site: Site,
    replacement: Mika,
    /// Stayed with the paused node, until that ended.
    stays: Client,
}

/// Pauses the node, starts another one of the same name, and resumes the first one; with
/// `is_away`, it finds the database gone. Returns what it said.
fn replace(database: Database, is_away: bool) -> (Replaced, String) {
    let mut site = Site::prepare_on(database, 3, &AOF, &json!({ "node": "a" }));
    let mut replacement = site.another(&json!({ "node": "a" }));
    site.mika.run();
    let node = site.mika.http();
    let mut moves = Client::new(0, 1);
    let mut stays = Client::new(1, 1);
    moves.accepted(node, "started");
    stays.accepted(node, "started");
    moves.uploaded = 300 * MB;
    moves.accepted(node, "");
    // Storage lacks the last second of it.
    site.mika.signal(Signal::STOP);
    replacement.run();
    assert!(knows_user(replacement.http(), &passkey(0)));
    moves.uploaded = 500 * MB;
    moves.accepted(replacement.http(), "");

    // It reaches the paused node, which may answer once it resumes.
    stays.uploaded = 200 * MB;
    let mut connection = Connection::open(node).expect("the system accepts");
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: tracker\r\n\r\n",
        stays.target("completed")
    );
    connection
        .send(request.as_bytes())
        .expect("the system takes it");
    if is_away {
        site.database.pause();
    }
    site.mika.signal(Signal::CONT);
    let is_answered = connection.receive().is_ok();
    eprintln!("the paused node answered: {is_answered}");
    let code = site.mika.wait(ENDED);
    if is_away {
        site.database.resume();
    }
    assert_eq!(
        code, 1,
        "a service manager sees that it did not end as asked"
    );
    let log = site.mika.log();
    assert!(
        log.contains("a later start has the name of this node"),
        "{log}"
    );
    let start = now();
    poll(CREDITED, "another second", || start.elapsed() > SECOND);
    if !is_answered {
        stays.accepted(replacement.http(), "completed");
    }
    let replaced = Replaced {
        site,
        replacement,
        stays,
    };
    (replaced, log)
}

impl Replaced {
    fn is_credited(&mut self) {
        let site = &self.site;
        poll(CREDITED, "what both acknowledged is credited", || {
            uploaded(site, 0) == 500 * MB && uploaded(site, 1) == 200 * MB
        });
        self.stays.uploaded = 210 * MB;
        self.stays.accepted(self.replacement.http(), "stopped");
        poll(CREDITED, "it goes on at the replacement", || {
            uploaded(site, 1) == 210 * MB
        });
        assert_eq!(self.replacement.stop(), 0);
        assert_eq!(uploaded(site, 0), 500 * MB);
    }
}

crate::on_each_database![
    what_a_paused_node_and_its_replacement_acknowledged_is_credited,
    a_replaced_node_without_its_database_reports_its_leftovers,
];

fn what_a_paused_node_and_its_replacement_acknowledged_is_credited(database: Database) {
    let (mut replaced, log) = replace(database, false);
    assert!(log.contains("stopped, storage has everything"), "{log}");
    replaced.is_credited();
}

fn a_replaced_node_without_its_database_reports_its_leftovers(database: Database) {
    let (mut replaced, log) = replace(database, true);
    assert!(!log.contains("storage has everything"), "{log}");
    assert!(log.contains("the rest is kept in the spill file"), "{log}");
    assert!(log.contains("mika.spill"), "{log}");
    replaced.is_credited();
}
