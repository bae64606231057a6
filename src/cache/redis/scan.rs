//! Enumerating keys, and the rows behind them.

use redis::{Cmd, Value, cmd};

use super::cluster;
use super::commands::Commands;
use super::keys::{self, KeyKind};
use super::link::RedisLink;
use super::reply;
use super::session::RedisSession;
use crate::cache::{CacheError, CacheKey, Scan};
use crate::registry::BadRow;

/// Keys that the server scans for one reply, which blocks it for less than a millisecond.
const LOOKED_AT: u32 = 2000;

/// Replies of `SCAN` in one call.
const ROUNDS: u32 = 16;

/// Bits of a cursor that are a server's own cursor, and that are the index of the server in its view. What remains is the
/// view's version.
const CURSOR_BITS: u32 = 48;
const SERVER_BITS: u32 = 10;

/// What a cursor stands for: one server is scanned after another.
struct Place {
    server: usize,
    /// In that server; 0 is its beginning.
    cursor: u64,
    version: u8,
}

/// How to find and read rows of one kind.
pub(super) struct RowScan<K, T> {
    pub(super) pattern: &'static str,
    /// The id in a key; none for a foreign key.
    pub(super) id: fn(&str) -> Option<K>,
    pub(super) read: fn(K) -> Cmd,
    /// The row in the reply to `read`; none if missing.
    pub(super) row: fn(K, Vec<Value>) -> Option<Result<T, BadRow>>,
}

/// The next keys of a pattern, and the next cursor. All keys of Mika are text.
pub(super) async fn scan_keys(
    link: &RedisLink,
    session: &RedisSession<'_>,
    pattern: &str,
    cursor: u64,
) -> Result<(Vec<String>, Option<u64>), CacheError> {
    let (keys, next) = scan_any_keys(link, session, pattern, cursor).await?;
    let keys = keys.into_iter();
    Ok((
        keys.filter_map(|key| String::from_utf8(key).ok()).collect(),
        next,
    ))
}

/// Like [`scan_keys`], including foreign keys that are not UTF-8.
pub(super) async fn scan_any_keys(
    link: &RedisLink,
    session: &RedisSession<'_>,
    pattern: &str,
    cursor: u64,
) -> Result<(Vec<Vec<u8>>, Option<u64>), CacheError> {
    let place = Place::of(cursor);
    let mut scan = cmd("SCAN");
    scan.arg(place.cursor)
        .arg("MATCH")
        .arg(pattern)
        .arg("COUNT")
        .arg(LOOKED_AT);
    let reply = session.one_at(place.server, scan).await?;
    let parts = reply::list(reply).and_then(|parts| {
        let mut parts = parts.into_iter();
        let next: u64 = reply::text(parts.next()?)?.parse().ok()?;
        let keys = reply::list(parts.next()?)?;
        Some((keys.into_iter().filter_map(reply::bytes).collect(), next))
    });
    let (keys, next) = parts.ok_or_else(|| link.unexpected("SCAN"))?;
    Ok((keys, place.next(next, session)))
}

/// The keys of users, torrents and passkeys, in one scan of all keys.
pub(super) async fn registry_keys(
    link: &RedisLink,
    cursor: u64,
) -> Result<Scan<CacheKey>, CacheError> {
    let session = link.session().await?;
    let (found, next) = scan_keys(link, &session, keys::ALL, cursor).await?;
    let known = |key: &String| match keys::kind_of(key.as_bytes()) {
        KeyKind::User(id) => Some(CacheKey::User(id)),
        KeyKind::Torrent(info_hash) => Some(CacheKey::Torrent(info_hash)),
        KeyKind::Passkey => Some(CacheKey::Passkey(
            keys::passkey_of(key)?.parse().ok()?,
            None,
        )),
        _ => None,
    };
    Ok(Scan {
        rows: found.iter().filter_map(known).collect(),
        bad: Vec::new(),
        next,
    })
}

// === impl Place ===

impl Place {
    fn of(cursor: u64) -> Self {
        let server = (cursor >> CURSOR_BITS) & ((1 << SERVER_BITS) - 1);
        Self {
            server: server as usize,
            cursor: cursor & ((1 << CURSOR_BITS) - 1),
            version: (cursor >> (CURSOR_BITS + SERVER_BITS)) as u8,
        }
    }

    /// The cursor after this one, if its server returned `cursor`; none at the end.
    fn next(&self, cursor: u64, session: &RedisSession<'_>) -> Option<u64> {
        if session.view.slots.is_none() {
            return (cursor != 0).then_some(cursor);
        }
        let server = self.server + usize::from(cursor == 0);
        let version = u64::from(short(session.view.version));
        (server < session.view.servers.len()).then_some(
            (version << (CURSOR_BITS + SERVER_BITS)) | ((server as u64) << CURSOR_BITS) | cursor,
        )
    }
}

/// As much of a version as a cursor has room for.
fn short(version: u8) -> u8 {
    version & ((1 << (u64::BITS - CURSOR_BITS - SERVER_BITS)) - 1)
}

impl<K: Copy, T> RowScan<K, T> {
    /// One page of rows. While the server works on a reply, the previous one is parsed.
    ///
    /// # Errors
    /// [`CacheError::Moving`] if slots of a cluster have moved since the scan began: rows may be missing.
    pub(super) async fn scan(&self, link: &RedisLink, cursor: u64) -> Result<Scan<T>, CacheError> {
        let session = link.session().await?;
        if cursor != 0
            && session.view.slots.is_some()
            && Place::of(cursor).version != short(session.view.version)
        {
            return Err(CacheError::Moving);
        }
        let mut scan = Scan {
            rows: Vec::new(),
            bad: Vec::new(),
            next: Some(cursor),
        };
        let (mut ids, mut fetched) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let Some(cursor) = scan.next else {
                break;
            };
            let asked = std::mem::take(&mut ids);
            let commands: Commands = asked.iter().copied().map(self.read).collect();
            let before = std::mem::take(&mut fetched);
            let (replies, (keys, next), ()) = tokio::try_join!(
                session.run(commands),
                scan_keys(link, &session, self.pattern, cursor),
                async {
                    // Lets the commands be sent first.
                    tokio::task::yield_now().await;
                    self.take(link, &mut scan, before)
                }
            )?;
            fetched = asked.into_iter().zip(replies).collect();
            ids = keys.iter().filter_map(|key| (self.id)(key)).collect();
            scan.next = next;
        }
        self.take(link, &mut scan, fetched)?;
        let commands: Commands = ids.iter().copied().map(self.read).collect();
        let replies = session.run(commands).await?;
        self.take(link, &mut scan, ids.into_iter().zip(replies).collect())?;
        if scan.next.is_none() {
            cluster::check_scan(link, &session).await?;
        }
        Ok(scan)
    }

    /// The one row of that id.
    pub(super) async fn get(&self, link: &RedisLink, id: K) -> Result<Option<T>, CacheError> {
        let reply = link.session().await?.one((self.read)(id)).await?;
        let values = reply::list(reply).ok_or_else(|| link.unexpected("HMGET"))?;
        let row = (self.row)(id, values).transpose();
        row.map_err(|bad| link.unusable(&bad))
    }

    fn take(
        &self,
        link: &RedisLink,
        scan: &mut Scan<T>,
        fetched: Vec<(K, Value)>,
    ) -> Result<(), CacheError> {
        for (id, reply) in fetched {
            let values = reply::list(reply).ok_or_else(|| link.unexpected("HMGET"))?;
            match (self.row)(id, values) {
                Some(Ok(row)) => scan.rows.push(row),
                Some(Err(bad)) => scan.bad.push(bad),
                None => {}
            }
        }
        Ok(())
    }
}
