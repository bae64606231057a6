//! Schemas in files: what is said of a wrong line, of tables that do not fit, and the examples of the docs. On each
//! database.

mod examples;
mod fits;
mod foreign;
mod hashes;
mod ids;
mod lines;
mod lost;

use std::fs;

use serde_json::{Value, json};

use crate::harness::Mika;
use crate::harness::mariadb::MariaDb;
use crate::harness::postgres::Postgres;

/// A server for the databases of a test.
enum Server {
    Mariadb(MariaDb),
    Postgres(Postgres),
    /// A file in the folder of each site.
    Sqlite,
}

/// A site with tables of its own, and a tracker that is configured for it.
struct Site<'s> {
    server: &'s Server,
    name: String,
    mika: Mika,
}

impl Server {
    /// A site whose database has these tables, and whose schema's file is `site.sql`.
    fn site(&self, name: &str, tables: &str, schema: &str) -> Site<'_> {
        let storage = match self {
            Self::Mariadb(server) => json!({ "driver": "mysql", "url": server.database(name) }),
            Self::Postgres(server) => json!({ "driver": "postgres", "url": server.database(name) }),
            Self::Sqlite => json!({}),
        };
        let mika = Mika::prepare(&json!({
            "mode": "private",
            "storage": storage,
            "tracker": { "whitelist": true },
            "journal": { "flush_interval": "200ms" },
        }));
        let site = Site {
            server: self,
            name: name.to_owned(),
            mika,
        };
        site.sql(tables);
        site.write(schema);
        site
    }
}

impl Site<'_> {
    /// Runs SQL as the site does; the rows, a line each, with tabs between the columns.
    fn sql(&self, sql: &str) -> String {
        match self.server {
            Server::Mariadb(server) => server.try_sql_in(&self.name, sql).unwrap(),
            Server::Postgres(server) => server.sql(&self.name, sql),
            Server::Sqlite => {
                let file = rusqlite::Connection::open(self.mika.path("mika.db")).unwrap();
                file.busy_timeout(crate::harness::PROGRAM_DEADLINE).unwrap();
                if !sql.starts_with("SELECT") {
                    file.execute_batch(sql).unwrap();
                    return String::new();
                }
                let mut select = file.prepare(sql).unwrap();
                let width = select.column_count();
                let mut rows = select.query([]).unwrap();
                let row = rows.next().unwrap().unwrap();
                let cell = |at| match row.get::<_, rusqlite::types::Value>(at).unwrap() {
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => format!("{other:?}"),
                };
                (0..width).map(cell).collect::<Vec<_>>().join("\t")
            }
        }
    }

    /// Replaces the schema's file.
    fn write(&self, schema: &str) {
        fs::write(self.mika.path("site.sql"), schema).unwrap();
    }

    /// Lets the config name the file.
    fn use_file(&mut self) {
        let config: Value = json!({ "storage": { "schema": "./site.sql" } });
        self.mika.reconfigure(&config);
    }

    /// Starts the tracker with the file, as docs/schemas.md says: `migrate`, a `check` that finds nothing.
    fn goes_live(&mut self) {
        self.use_file();
        self.mika.managed(&["migrate"]);
        let (is_right, said) = self.says(&["check"]);
        assert!(is_right, "{said}");
        self.mika.run();
    }

    /// What `mika-manage` says, and whether it succeeds.
    fn says(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.mika.manage(arguments);
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }
}

/// The info hash of the torrent of each site here.
const INFO_HASH: &str = "%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB%AB";

/// Announces that torrent; the reply.
fn announce(mika: &Mika, passkey: &str, rest: &str) -> String {
    let reply = mika.fetch(&format!(
        "/{passkey}/announce?info_hash={INFO_HASH}&peer_id=-MK0001-abcdefghijkl&port=6881{rest}"
    ));
    String::from_utf8_lossy(&reply).into_owned()
}

/// The blocks of SQL in a section of docs/schemas.md: the tables, and the schema's file.
fn example(section: &str) -> (String, String) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schemas.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!("\n## {section}")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sql\n").skip(1);
    let blocks: Vec<&str> = blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    let [tables, schema] = blocks[..] else {
        panic!("the section has {} blocks of SQL", blocks.len());
    };
    (tables.to_owned(), schema.to_owned())
}
