//! Applies batches of a journal: bases, credit and the last number in one transaction.
//!
//! Rows are written in the order of their keys, so that writers do not deadlock, and those of the site last,
//! so that they are locked for the shortest time.

mod held;
mod histories;
mod journals;
mod peers;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mysql_async::Value;

use self::held::held;
use self::histories::write_histories;
use self::journals::applied_for_update;
pub(super) use self::journals::{begin_at, forget, journals, last_applied};
use self::peers::write_peers;
use super::cells::MysqlCells;
use super::credit;
use super::fault::MysqlFault;
use super::hashes::Forms;
use super::link::MysqlSession;
use super::read;
use super::rows::{Cell, RowsSql};
use super::tables::{Own, begin};
use crate::base::ids::{InfoHash, TorrentId};
use crate::change::sums::Credited;
use crate::change::{Batch, PeerKey};
use crate::storage::schema::{self, Call};
use crate::storage::settle::{Settlement, TorrentSum, clamp};
use crate::storage::touched::{KnownIds, Named, Touched};
use crate::storage::values::log_refused;
use crate::storage::{CreditRules, batches};

/// Joins peers with a table of keys.
const IS_WANTED: &str = "peer.user_id = wanted.user_id AND peer.torrent_id = wanted.torrent_id \
    AND peer.peer_id = wanted.peer_id";

/// Applies `batches`, or changes nothing.
pub(super) async fn apply(
    session: &mut MysqlSession<'_>,
    own: &Own,
    batches: &[Arc<Batch>],
    rules: &CreditRules,
) -> Result<Credited, MysqlFault> {
    let Some(Batch {
        journal, number, ..
    }) = batches.last().map(Arc::as_ref)
    else {
        return Ok(Credited::default());
    };
    begin(session).await?;
    let new = batches::not_applied(batches, applied_for_update(session, journal).await?)?;
    let mut credited = Credited::default();
    if !new.is_empty() {
        let changes = || new.iter().flat_map(|batch| &batch.changes);
        let known = known(session, &Named::by(changes())).await?;
        let touched = Touched::by(changes(), &known);
        let held = held(session, own, &touched).await?;
        let settled = Settlement::of(touched, held, journal, rules);
        write_peers(session, own, &settled).await?;
        write_histories(session, own, &settled).await?;
        let params = vec![Value::from(clamp(*number)), journal.as_str().into()];
        let sql = "UPDATE mika_journal SET applied = ? WHERE node = ?";
        session.exec(sql, params).await?;
        write_torrents(session, &settled).await?;
        write_users(session, &settled).await?;
        write_snatches(session, &settled).await?;
        credited = settled.into_credited();
    }
    session.run("COMMIT").await?;
    log_refused(&std::mem::take(&mut session.notes));
    Ok(credited)
}

/// The users and torrents named by changes that exist.
async fn known(session: &mut MysqlSession<'_>, named: &Named) -> Result<KnownIds, MysqlFault> {
    let mut ids: Vec<u32> = named.torrents.iter().map(|(id, _)| *id).collect();
    ids.dedup();
    let mut known = KnownIds::default();
    let users = there(session, &schema::USERS_KNOWN, &named.users).await?;
    known.users.extend(users);
    let torrents = there(session, &schema::TORRENTS_KNOWN, &ids).await?;
    known.torrents.extend(torrents);
    let mut gone = named.torrents.clone();
    gone.retain(|(id, _)| !known.torrents.contains(id));
    if !gone.is_empty() {
        let found = read::ids_of_hashes(session, gone.iter().map(|(_, hash)| hash)).await?;
        let moved = found
            .iter()
            .filter_map(|(id, first, _)| Some(((*first)?, *id)));
        known.moved.extend(moved);
    }
    Ok(known)
}

async fn there(
    session: &mut MysqlSession<'_>,
    call: &'static Call,
    ids: &[u32],
) -> Result<Vec<u32>, MysqlFault> {
    let wanted = RowsSql::of(ids.iter().map(|id| [(*id).into()]));
    let rows = session.call_with(call, &wanted).await?;
    Ok(rows
        .iter()
        .filter_map(|row| MysqlCells(row).id(0).ok())
        .collect())
}

fn key_cells(key: &PeerKey) -> [Cell<'_>; 3] {
    [
        Cell::Number(key.user.0.into()),
        Cell::Number(key.torrent.0.into()),
        Cell::Bytes(&key.peer_id.0),
    ]
}

/// Statements that insert new rows.
fn inserts(table: &str, key: &[&str], columns: &[&str], rows: &RowsSql) -> Vec<String> {
    let columns = [key, columns].concat().join(", ");
    let insert = |values| format!("INSERT INTO {table} ({columns}) VALUES {values}");
    rows.values().map(insert).collect()
}

/// Statements that update existing, locked rows: an upsert, which takes many of them as a plain list.
fn updates(table: &str, key: &[&str], columns: &[&str], rows: &RowsSql) -> Vec<String> {
    let is_value = |column: &&str| format!("{column} = VALUES({column})");
    let sets: Vec<String> = columns.iter().map(is_value).collect();
    let sets = format!(" ON DUPLICATE KEY UPDATE {}", sets.join(", "));
    let inserts = inserts(table, key, columns, rows);
    inserts.into_iter().map(|insert| insert + &sets).collect()
}

async fn write_users(
    session: &mut MysqlSession<'_>,
    settled: &Settlement<'_>,
) -> Result<(), MysqlFault> {
    let rows = RowsSql::of(settled.users.iter().map(|(user, sum)| {
        [
            user.0.into(),
            clamp(sum.up),
            clamp(sum.down),
            clamp(sum.snatches),
            clamp(sum.announces),
            clamp(sum.seed_time),
        ]
    }));
    credit::write(session, &schema::CREDIT_USERS, &rows).await
}

async fn write_torrents(
    session: &mut MysqlSession<'_>,
    settled: &Settlement<'_>,
) -> Result<(), MysqlFault> {
    let rows = RowsSql::of(settled.torrents.iter().map(|(torrent, row)| {
        let TorrentSum { sum, counts, .. } = row;
        [
            torrent.0.into(),
            clamp(sum.raw_up),
            clamp(sum.raw_down),
            clamp(sum.snatches),
            clamp(sum.announces),
            counts.seeders.into(),
            counts.leechers.into(),
        ]
    }));
    credit::write(session, &schema::CREDIT_TORRENTS, &rows).await
}

/// A public tracker learns of a torrent by its first snatch.
async fn write_snatches(
    session: &mut MysqlSession<'_>,
    settled: &Settlement<'_>,
) -> Result<(), MysqlFault> {
    if settled.snatches.is_empty() {
        return Ok(());
    }
    let mut ids: HashMap<InfoHash, TorrentId> = HashMap::new();
    let known = read::ids_of_hashes(session, settled.snatches.keys()).await?;
    for (id, first, second) in known {
        ids.extend([first, second].into_iter().flatten().map(|hash| (hash, id)));
    }
    let mut counted: BTreeMap<TorrentId, u64> = BTreeMap::new();
    let forms = Forms::of(session).await?;
    let mut fresh = RowsSql::default();
    for (info_hash, count) in &settled.snatches {
        if let Some(id) = ids.get(info_hash) {
            *counted.entry(*id).or_default() += count;
            continue;
        }
        let text = forms.first.texts(info_hash).into_iter().next();
        let bytes = Cell::Bytes(&info_hash.0);
        let cell = text.as_deref().map_or(bytes, Cell::Sql);
        fresh.push(&[cell, Cell::Number(clamp(*count))]);
    }
    let counted = RowsSql::of(
        counted
            .iter()
            .map(|(id, count)| [id.0.into(), clamp(*count)]),
    );
    credit::write(session, &schema::CREDIT_SNATCHES, &counted).await?;
    credit::write(session, &schema::ADD_SNATCHED, &fresh).await
}
