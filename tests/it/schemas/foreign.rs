//! Table sets that the docs do not show, with files written by docs/schemas.md alone. Mika's account has no rights but
//! those that it is told to ask for.

use serde_json::json;

use super::{Server, Site, announce};
use crate::harness::mariadb::MariaDb;
use crate::harness::postgres::Postgres;
use crate::harness::{PROGRAM_DEADLINE, poll};

/// The account of the tracker.
const ACCOUNT: &str = "tracker";

impl Site<'_> {
    /// Lets Mika use an account of its own.
    fn use_account(&mut self) {
        let url = match self.server {
            Server::Mariadb(server) => {
                format!(
                    "mysql://{ACCOUNT}:secret@{}/{}",
                    server.address(),
                    self.name
                )
            }
            Server::Postgres(server) => {
                format!("postgres://{ACCOUNT}@{}/{}", server.address(), self.name)
            }
            Server::Sqlite => unreachable!("a file has no accounts"),
        };
        self.mika.reconfigure(&json!({ "storage": { "url": url } }));
    }

    /// Has `mika-manage schema test` name what is to be granted, and grants it, until it is content; returns the grants.
    fn grant_what_is_asked_for(&self) -> String {
        let mut granted = String::new();
        for _ in 0..3 {
            let (is_right, said) = self.says(&["schema", "test", "site.sql"]);
            if is_right {
                return granted;
            }
            let (_, rest) = said.split_once("as an administrator: ").expect(&said);
            let (grants, _) = rest.split_once(" (see Rights").unwrap();
            self.sql(grants);
            granted.push_str(grants);
        }
        panic!("not enough was granted: {granted}");
    }

    fn row_becomes(&self, select: &str, wanted: &str) {
        poll(PROGRAM_DEADLINE, &format!("{select}: {wanted}"), || {
            self.sql(select) == wanted
        });
    }

    fn is_accepted(&self, passkey: &str) -> bool {
        announce(&self.mika, passkey, "&uploaded=0&downloaded=0&left=9").contains("8:complete")
    }
}

#[test]
fn a_rails_site_on_postgresql_is_adapted() {
    let server = Server::Postgres(Postgres::start());
    let tables = include_str!("sites/rails/tables.sql");
    let mut site = server.site("rails", tables, include_str!("sites/rails/schema.sql"));
    site.sql(
        "INSERT INTO members (handle, email, announce_token, created_at, updated_at) VALUES
             ('alice', 'a', 'token-of-alice', now(), now()), ('bob', 'b', 'token-of-bob', now(), now());
         INSERT INTO member_stats (member_id, bytes_up, bytes_down, created_at, updated_at) VALUES (1, 5, 7, now(), now());
         INSERT INTO releases (title, info_hash, down_factor) VALUES ('one', decode(repeat('ab', 20), 'hex'), 0.5);
         INSERT INTO client_rules (peer_prefix) VALUES ('-MK');
         CREATE ROLE tracker LOGIN",
    );
    site.use_account();
    let granted = site.grant_what_is_asked_for();
    for grant in [
        "GRANT USAGE, CREATE ON SCHEMA public TO tracker",
        "GRANT INSERT, SELECT, UPDATE ON member_stats TO tracker",
        "GRANT SELECT, TRIGGER ON client_rules, members TO tracker",
        "GRANT SELECT, TRIGGER, UPDATE ON releases TO tracker",
        "GRANT USAGE ON SEQUENCE public.member_stats_id_seq TO tracker",
    ] {
        assert!(granted.contains(grant), "no {grant:?}: {granted}");
    }
    assert!(
        !granted.contains("ALL TABLES") && !granted.contains("DELETE"),
        "{granted}"
    );
    site.use_file();
    site.mika.managed(&["migrate"]);
    site.sql("REVOKE UPDATE ON releases FROM tracker");
    let (is_right, said) = site.says(&["check"]);
    let grant = "lacks the privilege UPDATE on releases → as an administrator: GRANT UPDATE ON releases TO tracker (see";
    assert!(!is_right && said.contains(grant), "{said}");
    site.sql("GRANT UPDATE ON releases TO tracker");
    let (is_right, said) = site.says(&["check"]);
    assert!(is_right, "{said}");
    site.mika.run();
    for passkey in ["token-of-alice", "token-of-bob"] {
        let id = passkey.len();
        let rest = |numbers: &str| format!("&key={id}&{numbers}");
        announce(
            &site.mika,
            passkey,
            &rest("uploaded=0&downloaded=0&left=9&event=started"),
        );
        announce(
            &site.mika,
            passkey,
            &rest("uploaded=1000&downloaded=100&left=0&event=completed"),
        );
    }
    // Half of what is downloaded counts. The second user had no row of totals.
    let totals = "SELECT member_id, bytes_up, bytes_down FROM member_stats ORDER BY member_id";
    site.row_becomes(totals, "1\t1005\t57\n2\t1000\t50");
    site.row_becomes("SELECT snatched_count FROM releases", "2");
    site.sql("UPDATE members SET status = 1 WHERE handle = 'bob'");
    poll(PROGRAM_DEADLINE, "a ban takes effect", || {
        !site.is_accepted("token-of-bob")
    });
    site.sql("UPDATE releases SET discarded_at = now()");
    poll(PROGRAM_DEADLINE, "a discarded release is refused", || {
        !site.is_accepted("token-of-alice")
    });
}

#[test]
fn an_old_php_site_on_mariadb_is_adapted() {
    let server = Server::Mariadb(MariaDb::start());
    let tables = include_str!("sites/php/tables.sql");
    let mut site = server.site("php", tables, include_str!("sites/php/schema.sql"));
    site.sql(
        "INSERT INTO class (name, can_download, banned) VALUES ('User', 'yes', 'no'), ('Leech', 'no', 'no');
         INSERT INTO users (username, passhash, passkey, status, class, uploaded, downloaded) VALUES
             ('alice', '', 'key-of-alice', 'confirmed', 1, 5, 7), ('bob', '', 'key-of-bob', 'confirmed', 2, 0, 0),
             ('carol', '', '', 'pending', 1, 0, 0);
         INSERT INTO torrents (info_hash, filename) VALUES (REPEAT('AB', 20), 'one');
         INSERT INTO agents VALUES ('-MK', 'Mika');
         CREATE USER tracker IDENTIFIED BY 'secret'; GRANT SELECT ON php.class TO tracker",
    );
    site.use_account();
    let granted = site.grant_what_is_asked_for();
    let account = "TO 'tracker'@'%'";
    for grant in [
        format!("GRANT SELECT, TRIGGER, UPDATE ON `php`.`torrents` {account}"),
        format!("GRANT SELECT, TRIGGER ON `php`.`agents` {account}"),
        format!("GRANT SELECT ON `php`.`user_permissions` {account}"),
        format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP ON `php`.`mika_peers` {account}"
        ),
    ] {
        assert!(granted.contains(&grant), "no {grant:?}: {granted}");
    }
    assert!(!granted.contains("`php`.*"), "{granted}");
    let (_, said) = site.says(&["schema", "test", "site.sql"]);
    assert!(
        said.contains(
            "user_permissions, which the statement users (./site.sql:6) reads, are not followed"
        ) && said.contains("a view can't be followed: follow the tables behind it"),
        "{said}"
    );
    site.goes_live();
    let mika = &site.mika;
    announce(
        mika,
        "key-of-alice",
        "&uploaded=0&downloaded=0&left=9&event=started",
    );
    announce(
        mika,
        "key-of-alice",
        "&uploaded=1000&downloaded=9&left=0&event=completed",
    );
    site.row_becomes(
        "SELECT uploaded, downloaded FROM users WHERE uid = 1",
        "1005\t16",
    );
    site.row_becomes("SELECT seeders, times_completed FROM torrents", "1\t1");
    assert!(
        !site.is_accepted("key-of-bob"),
        "their class may not download"
    );
    site.sql("UPDATE users SET class = 1 WHERE username = 'bob'");
    poll(PROGRAM_DEADLINE, "a class of another kind", || {
        site.is_accepted("key-of-bob")
    });
    site.sql(
        "UPDATE users SET passkey = 'key-of-carol', status = 'confirmed' WHERE username = 'carol'",
    );
    poll(PROGRAM_DEADLINE, "a new key works", || {
        site.is_accepted("key-of-carol")
    });
}
