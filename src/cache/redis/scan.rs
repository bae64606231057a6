//! Enumerating keys, and the work on many of them.

use redis::cmd;

use super::keys::{self, Kind};
use super::link::{Link, Session};
use super::reply;
use crate::cache::{CacheError, RegistryKey, Scan};

/// Keys that the server looks at for one reply. It does nothing else meanwhile: below a millisecond.
const LOOKED_AT: u32 = 2000;

/// The next keys of a pattern, and where to go on. All keys of Mika are text.
pub(super) async fn scan_keys(
    link: &Link,
    session: &Session<'_>,
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

/// The same, but keys of others too.
pub(super) async fn scan_any_keys(
    link: &Link,
    session: &Session<'_>,
    pattern: &str,
    cursor: u64,
) -> Result<(Vec<Vec<u8>>, Option<u64>), CacheError> {
    let mut scan = cmd("SCAN");
    scan.arg(cursor)
        .arg("MATCH")
        .arg(pattern)
        .arg("COUNT")
        .arg(LOOKED_AT);
    let reply = session.one(scan).await?;
    let parts = reply::list(reply).and_then(|parts| {
        let mut parts = parts.into_iter();
        let next: u64 = reply::text(parts.next()?)?.parse().ok()?;
        let keys = reply::list(parts.next()?)?;
        Some((keys.into_iter().filter_map(reply::bytes).collect(), next))
    });
    let (keys, next) = parts.ok_or_else(|| link.unexpected("SCAN"))?;
    Ok((keys, (next != 0).then_some(next)))
}

/// The names of users, torrents and passkeys: one look through all keys.
pub(super) async fn registry_keys(
    link: &Link,
    cursor: u64,
) -> Result<Scan<RegistryKey>, CacheError> {
    let session = link.session().await?;
    let (found, next) = scan_keys(link, &session, keys::ALL, cursor).await?;
    let known = |key: &String| match keys::kind_of(key.as_bytes()) {
        Kind::User(id) => Some(RegistryKey::User(id)),
        Kind::Torrent(info_hash) => Some(RegistryKey::Torrent(info_hash)),
        Kind::Passkey => keys::passkey_of(key)?
            .parse()
            .ok()
            .map(RegistryKey::Passkey),
        _ => None,
    };
    Ok(Scan {
        rows: found.iter().filter_map(known).collect(),
        bad: Vec::new(),
        next,
    })
}
