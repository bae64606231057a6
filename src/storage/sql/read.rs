//! Reads tables page by page. An unusable row is reported and skipped.

use std::collections::HashMap;
use std::hash::Hash;

use super::calls::{self, Call};
use super::cells::{Cell, SqlParams, SqlRow, SqlRows};
use super::database::{SqlFault, SqlResult};
use super::decode;
use super::hashes::of_hashes;
use super::job::Job;
use super::rebuilt;
use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::change::PeerKey;
use crate::registry::ClientPrefix;
use crate::storage::identity;
use crate::storage::rows::{self, Unusable};
use crate::storage::unusable::{self, UnusableRows};
use crate::storage::{
    BadRow, Finding, Page, StorageError, StoredHistory, StoredPeer, StoredTorrent, StoredUser,
};

/// All ids are above this one.
pub(super) const BEFORE_ALL: i64 = i64::MIN;

/// Rows read at once by a check.
const CHECKED_AT_ONCE: u32 = 5000;

type Decode<T> = fn(SqlRow<'_>) -> Result<T, Unusable>;

/// The identity; a random text made by a migration.
pub(super) async fn identity(job: &mut Job<'_>) -> SqlResult<String> {
    let rows = job.call(&calls::IDENTITY, &[]).await?;
    let found = rows.first().map(|row| row.text(0));
    Ok(identity::checked(found).map_err(StorageError::from)?)
}

/// The server's clock (Unix time); none if the database uses this host's.
pub(super) async fn time(job: &mut Job<'_>) -> SqlResult<Option<i64>> {
    number(job, &calls::TIME, &[]).await
}

pub(super) async fn newest_announce(job: &mut Job<'_>) -> SqlResult<Option<i64>> {
    number(job, &calls::NEWEST_ANNOUNCE, &[]).await
}

pub(super) async fn last_gone(job: &mut Job<'_>, before: i64) -> SqlResult<Option<i64>> {
    number(job, &calls::LAST_GONE, &[("before", before.into())]).await
}

/// The only number of a result.
async fn number(
    job: &mut Job<'_>,
    call: &'static Call,
    params: &SqlParams<'_>,
) -> SqlResult<Option<i64>> {
    let rows = job.call(call, params).await?;
    Ok(rows.first().and_then(|row| row.integer(0)))
}

pub(super) async fn users(
    job: &mut Job<'_>,
    after: Option<UserId>,
    limit: u32,
) -> SqlResult<Page<StoredUser>> {
    let after = after.map(|id| id.0);
    by_id(job, &calls::USERS, after, limit, decode::user).await
}

pub(super) async fn torrents(
    job: &mut Job<'_>,
    after: Option<TorrentId>,
    limit: u32,
) -> SqlResult<Page<StoredTorrent>> {
    // A load begins with those that have no hash yet.
    let bad = match after {
        None => rebuilt::fill_all(job).await?,
        Some(_) => Vec::new(),
    };
    let after = after.map(|id| id.0);
    let mut page = by_id(job, &calls::TORRENTS, after, limit, decode::torrent).await?;
    page.bad.extend(bad);
    Ok(page)
}

pub(super) async fn peers(
    job: &mut Job<'_>,
    since: i64,
    after: Option<PeerKey>,
    limit: u32,
) -> SqlResult<Page<StoredPeer>> {
    let (user, torrent, peer_id) = after.as_ref().map_or((-1, -1, &[][..]), |key| {
        (
            i64::from(key.user.0),
            i64::from(key.torrent.0),
            &key.peer_id.0[..],
        )
    });
    let begin = [
        ("user_id", user.into()),
        ("torrent_id", torrent.into()),
        ("peer_id", Cell::Bytes(peer_id)),
        ("since", since.into()),
    ];
    page_of_many(job, &calls::PEERS_PAGE, &begin, limit, decode::peer).await
}

pub(super) async fn histories(
    job: &mut Job<'_>,
    after: Option<(TorrentId, UserId)>,
    limit: u32,
) -> SqlResult<Page<StoredHistory>> {
    let (torrent, user) = after.map_or((-1, -1), |(torrent, user)| {
        (i64::from(torrent.0), i64::from(user.0))
    });
    let begin = [("torrent_id", torrent.into()), ("user_id", user.into())];
    page_of_many(job, &calls::HISTORIES_PAGE, &begin, limit, decode::history).await
}

pub(super) async fn records_of(
    job: &mut Job<'_>,
    torrent: TorrentId,
) -> SqlResult<(Vec<StoredHistory>, Vec<StoredPeer>)> {
    let params = [("torrent_id", torrent.0.into())];
    let histories = job.call(&calls::HISTORIES_OF, &params).await?;
    let peers = job.call(&calls::PEERS_OF, &params).await?;
    Ok((
        page(&histories, u32::MAX, decode::history).rows,
        page(&peers, u32::MAX, decode::peer).rows,
    ))
}

/// The torrents of these that have any record.
pub(super) async fn with_records(
    job: &mut Job<'_>,
    torrents: &[TorrentId],
) -> SqlResult<Vec<TorrentId>> {
    let wanted = SqlRows::of_ids(torrents.iter().map(|torrent| torrent.0));
    let rows = job.call_for(&calls::WITH_RECORDS, wanted).await?;
    let ids = rows.iter().filter_map(|row| row.id(0).ok());
    Ok(ids.map(TorrentId).collect())
}

pub(super) async fn whitelist(job: &mut Job<'_>) -> SqlResult<Vec<ClientPrefix>> {
    Ok(rows::distinct(clients(job).await?.rows))
}

pub(super) async fn bad_clients(job: &mut Job<'_>) -> SqlResult<Vec<BadRow>> {
    Ok(clients(job).await?.bad)
}

/// The clients with their prefixes verbatim, and the unusable rows.
pub(super) async fn clients(job: &mut Job<'_>) -> SqlResult<Page<(ClientPrefix, String)>> {
    let rows = job.call(&calls::WHITELIST, &[]).await?;
    Ok(page(&rows, u32::MAX, decode::client))
}

pub(super) async fn user_by_id(job: &mut Job<'_>, id: UserId) -> SqlResult<Option<StoredUser>> {
    one(job, &calls::USER, id.0, decode::user).await
}

pub(super) async fn is_unfinished(job: &mut Job<'_>, id: UserId) -> SqlResult<bool> {
    let rows = job.call(&calls::USER, &[("id", id.0.into())]).await?;
    let is_unfinished = |row| matches!(decode::user(row), Err(Unusable::Unfinished));
    Ok(rows.first().is_some_and(is_unfinished))
}

pub(super) async fn users_named(job: &mut Job<'_>, name: &str) -> SqlResult<Vec<StoredUser>> {
    let params = [("username", name.into())];
    let rows = job.call(&calls::USERS_NAMED, &params).await?;
    let read = |row: SqlRow<'_>| match decode::user(row) {
        Ok(stored) => Ok(stored),
        Err(Unusable::Bad(bad)) => Err(unusable(&bad)),
        Err(Unusable::Unfinished) => Err(rows::no_passkey(&row.shown(0)).into()),
    };
    rows.iter().map(read).collect()
}

pub(super) async fn torrent_by_id(
    job: &mut Job<'_>,
    id: TorrentId,
) -> SqlResult<Option<StoredTorrent>> {
    one(job, &calls::TORRENT, id.0, decode::torrent).await
}

pub(super) async fn torrent_by_hash(
    job: &mut Job<'_>,
    info_hash: InfoHash,
) -> SqlResult<Option<StoredTorrent>> {
    match of_hashes(job, &[info_hash]).await?.first() {
        Some((id, ..)) => torrent_by_id(job, *id).await,
        None => Ok(None),
    }
}

/// Reads until there are `limit` good rows, so that a page of bad ones does not look like the end.
async fn by_id<T>(
    job: &mut Job<'_>,
    call: &'static Call,
    after: Option<u32>,
    limit: u32,
    decode: Decode<T>,
) -> SqlResult<Page<T>> {
    let limit = limit.max(1);
    let mut after = after.map_or(BEFORE_ALL, i64::from);
    let mut whole = Page::empty();
    whole.last = false;
    loop {
        let wanted = limit - u32::try_from(whole.rows.len()).unwrap_or(limit);
        let params = [("after", after.into()), ("limit", one_more(wanted))];
        let rows = job.call(call, &params).await?;
        // Pages of a statement that does not heed :after would never end.
        if rows
            .iter()
            .any(|row| row.key(0).is_some_and(|key| key <= after))
        {
            let problem = "it must give the ids above :after only";
            return Err(SqlFault::broken(job.place(call).of_config(problem)));
        }
        let part = page(&rows, wanted, decode);
        let is_full = part.rows.len() == wanted as usize;
        let is_end = rows.len() <= wanted as usize;
        whole.rows.extend(part.rows);
        whole.bad.extend(part.bad);
        whole.unfinished += part.unfinished;
        match rows.last().and_then(|row| row.key(0)) {
            _ if is_full && (!part.last || !is_end) => return Ok(whole),
            Some(key) if !is_end && key > after => after = key,
            _ => {
                whole.last = true;
                return Ok(whole);
            }
        }
    }
}

/// Reads one row beyond the page to know whether there are more.
fn one_more(limit: u32) -> Cell<'static> {
    Cell::Int(i64::from(limit.max(1)) + 1)
}

/// At most `limit` good rows.
pub(super) fn page<T>(rows: &SqlRows, limit: u32, decode: Decode<T>) -> Page<T> {
    let limit = usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
    let mut page = Page::empty();
    for row in rows.iter() {
        if page.rows.len() == limit {
            page.last = false;
            break;
        }
        page.push(decode(row));
    }
    page
}

/// A page of a large table behind the key in `begin`. Behind unusable rows there may be more; a page of which all are
/// unusable shows no key to go on from, so a larger one is read then.
async fn page_of_many<T>(
    job: &mut Job<'_>,
    call: &'static Call,
    begin: &[(&'static str, Cell<'_>)],
    mut limit: u32,
    decode: Decode<T>,
) -> SqlResult<Page<T>> {
    loop {
        let mut params = begin.to_vec();
        params.push(("limit", one_more(limit)));
        let rows = job.call(call, &params).await?;
        let mut page = page(&rows, limit, decode);
        page.last = rows.len() <= limit.max(1) as usize;
        if page.last || !page.rows.is_empty() {
            return Ok(page);
        }
        limit = limit.saturating_mul(2);
    }
}

/// A single row: an error if it is unusable, none if the site has not finished it.
async fn one<T>(
    job: &mut Job<'_>,
    call: &'static Call,
    id: u32,
    decode: Decode<T>,
) -> SqlResult<Option<T>> {
    let rows = job.call(call, &[("id", id.into())]).await?;
    match rows.first().map(decode) {
        None | Some(Err(Unusable::Unfinished)) => Ok(None),
        Some(Ok(row)) => Ok(Some(row)),
        Some(Err(Unusable::Bad(bad))) => Err(unusable(&bad)),
    }
}

fn unusable(bad: &BadRow) -> SqlFault {
    SqlFault::broken(format!(
        "the row {} of {} can't be used: {}",
        bad.id, bad.table, bad.problem
    ))
}

/// The rows of the site that can't be used, as findings.
pub(super) async fn unusable_rows(job: &mut Job<'_>) -> SqlResult<Vec<Finding>> {
    let mut found = UnusableRows::default();
    let mut passkeys: HashMap<Passkey, u32> = HashMap::new();
    let mut after = None;
    loop {
        let page = users(job, after, CHECKED_AT_ONCE).await?;
        found.bad.extend(page.bad);
        found.users_unfinished += page.unfinished;
        for stored in page.rows {
            let id = stored.user.id;
            after = Some(id);
            let passkey = stored.user.passkey;
            found
                .bad
                .extend(taken("users", id.0, "passkey", passkey, &mut passkeys));
        }
        if page.last {
            break;
        }
    }
    let mut hashes: HashMap<InfoHash, u32> = HashMap::new();
    let mut after = None;
    loop {
        let page = torrents(job, after, CHECKED_AT_ONCE).await?;
        found.bad.extend(page.bad);
        found.torrents_unfinished += page.unfinished;
        for stored in page.rows {
            let torrent = stored.torrent;
            let id = torrent.id.0;
            after = Some(torrent.id);
            let both = [Some(torrent.info_hash), torrent.info_hash_v2];
            for hash in both.into_iter().flatten() {
                found
                    .bad
                    .extend(taken("torrents", id, "info hash", hash, &mut hashes));
            }
        }
        if page.last {
            break;
        }
    }
    let clients = clients(job).await?;
    found.bad.extend(clients.bad);
    found.unmatched_prefixes = unusable::unmatched(&clients.rows);
    let untidy = clients
        .rows
        .into_iter()
        .filter(|(client, written)| client.prefix != *written);
    found.untidy_prefixes = untidy.map(|(_, written)| written).collect();
    let mut findings = found.findings();
    findings.extend(rebuilt::notes(job).await?);
    Ok(findings)
}

/// What is wrong if another row has the same key: lookups are ambiguous.
fn taken<K: Eq + Hash>(
    table: &'static str,
    id: u32,
    what: &str,
    key: K,
    holders: &mut HashMap<K, u32>,
) -> Option<BadRow> {
    let twin = holders.insert(key, id).filter(|other| *other != id)?;
    Some(BadRow {
        table,
        id: id.to_string(),
        problem: format!("its {what} is also that of {twin}"),
    })
}
