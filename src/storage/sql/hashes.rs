//! Torrents by their info hashes, which a site's columns may hold as bytes or as text.

use super::calls;
use super::cells::{Cell, SqlRows};
use super::database::SqlResult;
use super::job::Job;
use crate::base::ids::{InfoHash, TorrentId};

/// A torrent's id, and its two info hashes as far as they can be read.
pub(super) type TorrentHashes = (TorrentId, Option<InfoHash>, Option<InfoHash>);

/// The torrents that have one of these info hashes as their first or second, each once and by id.
pub(super) async fn of_hashes(
    job: &mut Job<'_>,
    hashes: &[InfoHash],
) -> SqlResult<Vec<TorrentHashes>> {
    let [form, _] = job.hash_forms().await?;
    let (mut bytes, mut texts) = (SqlRows::new(1), SqlRows::new(1));
    for hash in hashes {
        bytes.push(&[Cell::Bytes(&hash.0)]);
        for text in form.expressions(hash) {
            texts.push(&[Cell::Expression(&text)]);
        }
    }
    let mut known = Vec::new();
    for wanted in [texts, bytes] {
        let rows = job.call_for(&calls::TORRENTS_OF_HASHES, wanted).await?;
        known.extend(rows.iter().filter_map(|row| {
            let hash = |column| row.info_hash(column, "").ok().flatten();
            Some((TorrentId(row.id(0).ok()?), hash(1), hash(2)))
        }));
    }
    // A collation may treat other bytes as equal.
    known.retain(|(_, first, second)| {
        let both = [first, second].into_iter().flatten();
        both.into_iter().any(|hash| hashes.contains(hash))
    });
    known.sort_unstable();
    known.dedup();
    Ok(known)
}
