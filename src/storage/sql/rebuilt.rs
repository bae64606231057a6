//! Info hashes that a site does not store: they are rebuilt from its columns and kept in a table of Mika's.

use super::calls;
use super::cells::{Cell, SqlRow, SqlRows};
use super::database::SqlFault;
use super::decode;
use super::edit::{hash_cell, must_exist};
use super::hashes::of_hashes;
use super::job::Job;
use super::read;
use crate::base::ids::{InfoHash, TorrentId};
use crate::storage::info_dict::{InfoColumns, RebuiltHash};
use crate::storage::unusable::{first_of, plural};
use crate::storage::{BadRow, Finding, StorageError, StoredTorrent};

/// Rows that are read at once. Each has the hashes of all pieces, which may be many megabytes.
const AT_ONCE: u32 = 8;

/// The rows between two ids.
#[derive(Clone, Copy)]
pub(super) struct Ids {
    pub(super) after: i64,
    pub(super) last: i64,
}

// === impl Ids ===

impl Ids {
    pub(super) const ALL: Self = Self {
        after: i64::MIN,
        last: i64::MAX,
    };

    pub(super) fn only(id: u32) -> Self {
        let last = i64::from(id);
        Self {
            after: last - 1,
            last,
        }
    }
}

/// Rebuilds the hashes that these torrents lack; returns the rows from which that is not possible.
pub(super) async fn fill(job: &mut Job<'_>, mut ids: Ids) -> Result<Vec<BadRow>, SqlFault> {
    let mut bad = Vec::new();
    if !job.has(&calls::HASH_SOURCES) {
        return Ok(bad);
    }
    loop {
        // One transaction: the site changes no row between its reading and the storing of its hash.
        job.begin().await?;
        let rest = fill_some(job, ids, &mut bad).await?;
        job.commit().await?;
        match rest {
            Some(rest) => ids = rest,
            None => return Ok(bad),
        }
    }
}

/// Does the same for a few of them; returns the others.
async fn fill_some(
    job: &mut Job<'_>,
    ids: Ids,
    bad: &mut Vec<BadRow>,
) -> Result<Option<Ids>, SqlFault> {
    let (rows, rest) = sources(job, ids, false).await?;
    let mut built = SqlRows::new(3);
    for row in rows.iter() {
        match rebuild(&row) {
            Ok(RebuiltHash {
                info_hash,
                is_lossy,
            }) => built.push(&[row.cell(0), Cell::Bytes(&info_hash.0), is_lossy.into()]),
            Err(problem) => bad.push(decode::bad("torrents", &row, problem)),
        }
    }
    job.call_for(&calls::STORE_HASHES, &built).await?;
    Ok(rest)
}

/// The first rows of `hash_sources`, and the ids that remain.
async fn sources(
    job: &mut Job<'_>,
    ids: Ids,
    noted: bool,
) -> Result<(SqlRows, Option<Ids>), SqlFault> {
    let params = [
        ("after", ids.after.into()),
        ("last", ids.last.into()),
        ("noted", noted.into()),
        ("limit", AT_ONCE.into()),
    ];
    let rows = job.call(&calls::HASH_SOURCES, &params).await?;
    let is_full = rows.len() == AT_ONCE as usize;
    let end = rows.last().and_then(|row| row.key(0));
    let rest = end.filter(|end| is_full && *end > ids.after);
    let rest = rest.map(|after| Ids { after, ..ids });
    Ok((rows, rest))
}

fn rebuild(row: &SqlRow<'_>) -> Result<RebuiltHash, String> {
    let columns = InfoColumns {
        piece_length: row.integer(4).unwrap_or(0),
        pieces: row.text(5),
        is_private: row.flag(6),
        name: row.text(7),
        length: row.integer(8).unwrap_or(0),
        md5sum: row.text(9),
        files: row.text(10),
    };
    columns.rebuild()
}

/// Sets the info hashes of a torrent by hand, or, without any, has them rebuilt.
pub(super) async fn set(
    job: &mut Job<'_>,
    id: TorrentId,
    hashes: Option<(InfoHash, Option<InfoHash>)>,
) -> Result<StoredTorrent, SqlFault> {
    let absent = || format!("torrent {}", id.0);
    job.require(&calls::SET_HASH, "setting info hashes")?;
    job.begin().await?;
    job.lock_edits().await?;
    must_exist(job, &calls::TORRENTS_KNOWN, id.0, absent).await?;
    let (first, second) = (hashes.map(|(first, _)| first), hashes.and_then(|it| it.1));
    let wanted: Vec<InfoHash> = first.into_iter().chain(second).collect();
    let known = of_hashes(job, &wanted).await?;
    if let Some((other, ..)) = known.iter().find(|(other, ..)| *other != id) {
        let taken = format!("torrent {}, which has that info hash,", other.0);
        return Err(StorageError::Duplicate(taken).into());
    }
    let params = [
        ("id", id.0.into()),
        ("info_hash", hash_cell(first.as_ref(), &[])),
        ("info_hash_v2", hash_cell(second.as_ref(), &[])),
    ];
    job.call(&calls::SET_HASH, &params).await?;
    let mut bad = Vec::new();
    fill_some(job, Ids::only(id.0), &mut bad).await?;
    if let Some(row) = bad.pop() {
        let problem = format!(
            "the info hash of torrent {} can't be rebuilt: {}",
            id.0, row.problem
        );
        return Err(SqlFault::invalid(problem));
    }
    job.commit().await?;
    let stored = read::torrent_by_id(job, id).await?;
    stored.ok_or_else(|| StorageError::NotFound(absent()).into())
}

/// Notes on torrents of which some clients may have another hash than Mika.
pub(super) async fn notes(job: &mut Job<'_>) -> Result<Vec<Finding>, SqlFault> {
    let (mut by_hand, mut lossy) = (Vec::new(), Vec::new());
    let mut rest = job.has(&calls::HASH_SOURCES).then_some(Ids::ALL);
    while let Some(ids) = rest {
        let (rows, more) = sources(job, ids, true).await?;
        rest = more;
        for row in rows.iter() {
            let Ok(Some(hash)) = row.info_hash(1, "info_hash") else {
                continue;
            };
            match rebuild(&row) {
                Ok(built) if row.flag(2) && built.info_hash != hash => {
                    by_hand.push(format!("{} ({})", row.shown(0), built.info_hash));
                }
                Ok(built) if !row.flag(2) && built.is_lossy => lossy.push(row.shown(0)),
                _ => {}
            }
        }
    }
    Ok(findings(&by_hand, &lossy))
}

fn findings(by_hand: &[String], lossy: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let nouns = |ids: &[String]| plural(ids.len(), "torrent has", "torrents have");
    if !by_hand.is_empty() {
        findings.push(Finding::note(
            format!(
                "{} {} an info hash that was set by hand and differs from that of the site's own download, with \
                 which clients are refused: {}",
                by_hand.len(),
                nouns(by_hand),
                first_of(by_hand)
            ),
            "nothing to do if its users have the file that was uploaded; else: mika-manage torrents hash ID --reset",
        ));
    }
    if !lossy.is_empty() {
        findings.push(Finding::note(
            format!(
                "{} {} another info hash than the file that was uploaded, because the site's own download leaves out \
                 what is 0 or empty, such as the length of an empty file: {}",
                lossy.len(),
                nouns(lossy),
                first_of(lossy)
            ),
            "users need the site's own download; for those who have the uploaded file instead: \
             mika-manage torrents hash ID --file FILE.torrent",
        ));
    }
    findings
}
