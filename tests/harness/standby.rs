//! A PostgreSQL server of a test's own with a standby, which takes its place.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::poll;
use super::postgres::Postgres;

/// How long a standby may take until it has what the primary has.
const LEVEL: Duration = Duration::from_secs(60);

/// Commits wait until the standby has them.
const SYNCHRONOUS: &str = "synchronous_standby_names=*";

/// A primary with its standby. It stands for the primary.
pub struct Pair {
    primary: Postgres,
    standby: Postgres,
}

impl Pair {
    pub fn start(is_synchronous: bool) -> Self {
        let synchronous = is_synchronous.then_some(SYNCHRONOUS);
        let primary = Postgres::start_with(synchronous.as_slice());
        let standby = primary.standby();
        let pair = Self { primary, standby };
        pair.is_level();
        pair
    }

    /// Waits until the standby has what the primary has now.
    pub fn is_level(&self) {
        let end = self.primary.sql("postgres", "SELECT pg_current_wal_lsn()");
        let sql = format!("SELECT COUNT(*) FROM pg_stat_replication WHERE replay_lsn >= '{end}'");
        poll(LEVEL, "the standby is level", || {
            self.primary.sql("postgres", &sql) == "1"
        });
    }

    /// The addresses of both.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        let mut addresses = [self.primary.address(), self.standby.address()];
        // Who is named first must not matter.
        addresses.sort_unstable();
        addresses
    }

    /// The URL of a database, whichever of both is the primary.
    pub fn url_of_both(&self, database: &str) -> String {
        let address = self.primary.address().to_string();
        let both = self.addresses().map(|it| it.to_string()).join(",");
        self.primary.url(database).replace(&address, &both)
    }

    /// Stops the standby, so that it lacks what is committed from now on.
    pub fn stop_standby(&mut self) {
        self.standby.stop();
    }

    pub fn start_standby(&mut self) {
        self.standby.restart();
    }

    /// Ends the primary as a crash would.
    pub fn kill_primary(&mut self) {
        self.primary.kill9();
    }

    /// Lets the standby take the place of the primary, which was killed, and that one follow it.
    pub fn promote(&mut self) {
        self.standby.promote();
        std::mem::swap(&mut self.primary, &mut self.standby);
        self.standby.follow(&self.primary);
        self.is_level();
    }
}

impl Deref for Pair {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        &self.primary
    }
}

impl DerefMut for Pair {
    fn deref_mut(&mut self) -> &mut Postgres {
        &mut self.primary
    }
}
