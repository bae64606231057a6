//! Looking for what is wrong with the tables: those of the site, and Mika's own.

use std::collections::HashMap;
use std::hash::Hash;

use mysql_async::Error;

use super::cells::Cells;
use super::fault::{self, Fault};
use super::link::{Session, filled};
use super::read;
use super::tables;
use crate::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::storage::schema::{CALLS, Call, FEED, Piece, Schema, Statements};
use crate::storage::{BadRow, Finding};

/// Bad rows that a finding names; the others are counted.
const NAMED_MAX: usize = 5;
/// Rows read at once.
const PAGE: u32 = 5000;
/// The oldest servers that Mika is made for: `NOWAIT` is what it needs of them.
const MYSQL_OLDEST: (u16, u16, u16) = (8, 0, 1);
const MARIADB_OLDEST: (u16, u16, u16) = (10, 5, 2);

/// Mika's own tables and what it uses of them; {} stands for what their names begin with.
const OWN_COLUMNS: &[(&str, &str)] = &[
    (
        "{}peers",
        "user_id torrent_id peer_id base_up base_down base_at dip_up dip_down uploaded downloaded \
         left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces first_announce \
         last_announce active paused completed_at hnr inactive_since",
    ),
    (
        "{}history",
        "torrent_id user_id uploaded downloaded seed_time announces completed_at hnr \
         first_announce last_announce",
    ),
    ("mika_journal", "node applied"),
    ("mika_feed", "seq kind key noted_at"),
];

pub(super) async fn check(
    session: &mut Session<'_>,
    schema: &Schema,
    statements: &Statements,
) -> Result<Vec<Finding>, Fault> {
    let mut findings = Vec::new();
    server(session, &mut findings).await?;
    for status in tables::migrations(session, schema).await? {
        if !status.applied {
            findings.push(Finding {
                problem: format!("the migration {} is not applied", status.name),
                hint: "run mika-manage migrate".into(),
            });
        }
    }
    if !findings.is_empty() {
        return Ok(findings);
    }
    own_columns(session, schema, &mut findings).await?;
    triggers(session, schema, &mut findings).await?;
    for call in CALLS {
        statement(session, statements, call, &mut findings).await?;
    }
    if findings.is_empty() {
        rows(session, &mut findings).await?;
    }
    Ok(findings)
}

async fn server(session: &mut Session<'_>, findings: &mut Vec<Finding>) -> Result<(), Fault> {
    let rows = session.query("SELECT VERSION()").await?;
    let version = rows.first().map(|row| Cells(row).text(0));
    let version = version.unwrap_or_default();
    let oldest = if version.contains("MariaDB") {
        MARIADB_OLDEST
    } else {
        MYSQL_OLDEST
    };
    if session.server_version() < oldest {
        let (major, minor, patch) = oldest;
        findings.push(Finding {
            problem: format!("the server is too old: {version}"),
            hint: format!("update it to {major}.{minor}.{patch} or later"),
        });
    }
    Ok(())
}

async fn own_columns(
    session: &mut Session<'_>,
    schema: &Schema,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let sql = "SELECT column_name FROM information_schema.columns \
        WHERE table_schema = DATABASE() AND table_name = ?";
    for (table, columns) in OWN_COLUMNS {
        let table = table.replace("{}", schema.prefix);
        let rows = session.exec(sql, vec![table.as_str().into()]).await?;
        let there: Vec<String> = rows.iter().map(|row| Cells(row).text(0)).collect();
        if there.is_empty() {
            findings.push(Finding {
                problem: format!("the table {table} is missing"),
                hint: "restore it from a backup; docs/sql.md shows what belongs in it".into(),
            });
            continue;
        }
        let lacks = |name: &&str| !there.iter().any(|it| it == name);
        for column in columns.split(' ').filter(lacks) {
            findings.push(Finding {
                problem: format!("the table {table} has no column {column}"),
                hint: format!("add it with ALTER TABLE {table} ADD COLUMN (see docs/sql.md)"),
            });
        }
    }
    Ok(())
}

/// Without its triggers, changes would be followed after a restart only.
async fn triggers(
    session: &mut Session<'_>,
    schema: &Schema,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    if !session.has(&FEED) {
        return Ok(());
    }
    let rows = session
        .query(
            "SELECT trigger_name FROM information_schema.triggers \
             WHERE trigger_schema = DATABASE()",
        )
        .await?;
    let there: Vec<String> = rows.iter().map(|row| Cells(row).text(0)).collect();
    for name in tables::triggers(schema) {
        if !there.contains(&name) {
            findings.push(Finding {
                problem: format!("the trigger {name} is missing, or Mika's user may not see it"),
                hint: "grant TRIGGER, or create it again (see migrations/mysql); an empty \
                       storage.statements.feed does without"
                    .into(),
            });
        }
    }
    Ok(())
}

/// Lets the server say what a named statement lacks; it does not run.
async fn statement(
    session: &mut Session<'_>,
    statements: &Statements,
    call: &'static Call,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    for pieces in statements.of(call) {
        let problem = match session.prepare(&example(call, pieces)).await {
            Ok(width) if width < call.width() => format!(
                "it gives {width} columns and not {}: {}",
                call.width(),
                call.columns.replace(' ', ", ")
            ),
            Ok(_) => continue,
            Err(Fault::Sql(Error::Server(error), _)) => fault::lack(&error),
            Err(other) => return Err(other),
        };
        findings.push(Finding {
            problem: format!("the statement {} does not work: {problem}", call.name),
            hint: format!(
                "mend the table, or put what fits it into storage.statements.{}",
                call.name
            ),
        });
    }
    Ok(())
}

fn example(call: &Call, pieces: &[Piece]) -> String {
    let columns: Vec<String> = call
        .rows
        .split_whitespace()
        .map(|column| format!("0 AS {column}"))
        .collect();
    filled(pieces, &format!("(SELECT {})", columns.join(", ")))
}

async fn rows(session: &mut Session<'_>, findings: &mut Vec<Finding>) -> Result<(), Fault> {
    let mut bad = Vec::new();
    users(session, &mut bad).await?;
    torrents(session, &mut bad).await?;
    bad.extend(read::clients(session).await?.1);
    for table in ["users", "torrents", "whitelist"] {
        let bad: Vec<&BadRow> = bad.iter().filter(|row| row.table == table).collect();
        if bad.is_empty() {
            continue;
        }
        let named: Vec<String> = bad
            .iter()
            .take(NAMED_MAX)
            .map(|row| format!("{} ({})", row.id, row.problem))
            .collect();
        let more = if bad.len() > NAMED_MAX { ", …" } else { "" };
        findings.push(Finding {
            problem: format!(
                "{table}: {} rows can't be used: {}{more}",
                bad.len(),
                named.join(", ")
            ),
            hint: "correct or delete these rows; until then they are passed over".into(),
        });
    }
    Ok(())
}

async fn users(session: &mut Session<'_>, bad: &mut Vec<BadRow>) -> Result<(), Fault> {
    let mut holders: HashMap<Passkey, u32> = HashMap::new();
    let mut after: Option<UserId> = None;
    loop {
        let page = read::users(session, after, PAGE).await?;
        bad.extend(page.bad);
        for stored in page.rows {
            let (id, passkey) = (stored.user.id, stored.user.passkey);
            after = Some(id);
            held(&mut holders, passkey, id.0, "users", "passkey", bad);
        }
        if page.last {
            return Ok(());
        }
    }
}

async fn torrents(session: &mut Session<'_>, bad: &mut Vec<BadRow>) -> Result<(), Fault> {
    let mut holders: HashMap<InfoHash, u32> = HashMap::new();
    let mut after: Option<TorrentId> = None;
    loop {
        let page = read::torrents(session, after, PAGE).await?;
        bad.extend(page.bad);
        for stored in page.rows {
            let torrent = stored.torrent;
            after = Some(torrent.id);
            let hashes = [Some(torrent.info_hash), torrent.info_hash_v2];
            for hash in hashes.into_iter().flatten() {
                held(
                    &mut holders,
                    hash,
                    torrent.id.0,
                    "torrents",
                    "info hash",
                    bad,
                );
            }
        }
        if page.last {
            return Ok(());
        }
    }
}

/// A key that two rows have: nobody knows which of them is meant.
fn held<K: Eq + Hash>(
    holders: &mut HashMap<K, u32>,
    key: K,
    id: u32,
    table: &'static str,
    what: &str,
    bad: &mut Vec<BadRow>,
) {
    match holders.insert(key, id) {
        Some(other) if other != id => bad.push(BadRow {
            table,
            id: id.to_string(),
            problem: format!("its {what} is also that of {other}"),
        }),
        _ => {}
    }
}
