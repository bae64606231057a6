//! Info hashes that a site does not store: they are rebuilt from its columns and kept in a table of Mika's.

use super::calls;
use super::cells::{Cell, SqlRow, SqlRows};
use super::database::{SqlFault, SqlResult};
use super::decode;
use super::edit::{hash_cell, must_exist};
use super::hashes::of_hashes;
use super::job::Job;
use super::read;
use crate::base::ids::{InfoHash, TorrentId};
use crate::storage::info_dict::{InfoColumns, RebuiltHash};
use crate::storage::unusable::{first_of, plural};
use crate::storage::{BadRow, Finding, StorageError, StoredTorrent};

/// Ids that are looked for at once.
const IDS_AT_ONCE: u32 = 2000;

/// Rows that are read at once. Each has the hashes of all pieces, which may be many megabytes.
const ROWS_AT_ONCE: usize = 100;
const BYTES_AT_ONCE: u64 = 16 << 20;

/// Rebuilds all hashes that are lacking; returns the rows from which that is not possible.
pub(super) async fn fill_all(job: &mut Job<'_>) -> SqlResult<Vec<BadRow>> {
    let mut bad = Vec::new();
    let mut rest = first(job);
    while let Some(after) = rest {
        let (groups, more) = wanted(job, after, false).await?;
        rest = more;
        for group in groups {
            fill(job, group, &mut bad).await?;
        }
    }
    Ok(bad)
}

/// Rebuilds the hash of that torrent if it lacks one.
pub(super) async fn fill_one(job: &mut Job<'_>, id: u32) -> SqlResult<Vec<BadRow>> {
    let mut bad = Vec::new();
    if job.has(&calls::HASH_SOURCES) {
        fill(job, SqlRows::of_ids([id].into_iter()), &mut bad).await?;
    }
    Ok(bad)
}

/// One transaction: the site changes no row between its reading and the storing of its hash.
async fn fill(job: &mut Job<'_>, ids: SqlRows, bad: &mut Vec<BadRow>) -> SqlResult<()> {
    job.begin().await?;
    store(job, ids, bad).await?;
    job.commit().await
}

/// Stores what can be rebuilt of these torrents.
async fn store(job: &mut Job<'_>, ids: SqlRows, bad: &mut Vec<BadRow>) -> SqlResult<()> {
    let rows = job.call_for(&calls::HASH_SOURCES, ids).await?;
    let mut built = SqlRows::new(3);
    for row in rows.iter().filter(|row| row.is_null(1)) {
        match rebuild(&row) {
            Ok(RebuiltHash {
                info_hash,
                is_lossy,
            }) => built.push(&[row.cell(0), Cell::Bytes(&info_hash.0), is_lossy.into()]),
            Err(problem) => bad.push(decode::bad("torrents", &row, problem)),
        }
    }
    job.call_for(&calls::STORE_HASHES, built).await?;
    Ok(())
}

/// Where to begin; nowhere if the site stores the hashes.
fn first(job: &Job<'_>) -> Option<i64> {
    let has = job.has(&calls::HASHES_WANTED) && job.has(&calls::HASH_SOURCES);
    has.then_some(i64::MIN)
}

/// The ids of the next torrents after that one, in groups of rows to read at once; and after which there are more.
async fn wanted(
    job: &mut Job<'_>,
    after: i64,
    noted: bool,
) -> SqlResult<(Vec<SqlRows>, Option<i64>)> {
    let params = [
        ("after", after.into()),
        ("limit", IDS_AT_ONCE.into()),
        ("noted", noted.into()),
    ];
    let rows = job.call(&calls::HASHES_WANTED, &params).await?;
    let mut groups: Vec<SqlRows> = Vec::new();
    let mut bytes = 0;
    for row in rows.iter() {
        bytes += row.total(1);
        match groups.last_mut() {
            Some(group) if group.len() < ROWS_AT_ONCE && bytes <= BYTES_AT_ONCE => {
                group.push(&[row.cell(0)]);
            }
            _ => {
                bytes = row.total(1);
                groups.push(SqlRows::of(row.key(0).into_iter().map(|id| [id])));
            }
        }
    }
    let is_full = rows.len() == IDS_AT_ONCE as usize;
    let end = rows.last().and_then(|row| row.key(0));
    Ok((groups, end.filter(|end| is_full && *end > after)))
}

pub(super) fn rebuild(row: &SqlRow<'_>) -> Result<RebuiltHash, String> {
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
) -> SqlResult<StoredTorrent> {
    job.require(&calls::SET_HASH, "setting info hashes")?;
    job.begin().await?;
    job.lock_edits().await?;
    must_exist(job, &calls::TORRENTS_KNOWN, "torrent", id.0).await?;
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
    store(job, SqlRows::of_ids([id.0].into_iter()), &mut bad).await?;
    if let Some(row) = bad.pop() {
        let problem = format!(
            "the info hash of torrent {} can't be rebuilt: {}",
            id.0, row.problem
        );
        return Err(SqlFault::invalid(problem));
    }
    job.commit().await?;
    let stored = read::torrent_by_id(job, id).await?;
    stored.ok_or_else(|| StorageError::NotFound(format!("torrent {}", id.0)).into())
}

/// Notes on torrents of which some clients may have another hash than Mika.
pub(super) async fn notes(job: &mut Job<'_>) -> SqlResult<Vec<Finding>> {
    let (mut by_hand, mut lossy) = (Vec::new(), Vec::new());
    let mut rest = first(job);
    while let Some(after) = rest {
        let (groups, more) = wanted(job, after, true).await?;
        rest = more;
        for group in groups {
            let rows = job.call_for(&calls::HASH_SOURCES, group).await?;
            for row in rows.iter() {
                note(&row, &mut by_hand, &mut lossy);
            }
        }
    }
    Ok(findings(&by_hand, &lossy))
}

/// Adds the id of a torrent whose hash differs from another that clients may have.
fn note(row: &SqlRow<'_>, by_hand: &mut Vec<String>, lossy: &mut Vec<String>) {
    let (Ok(Some(hash)), Ok(built)) = (row.info_hash(1, ""), rebuild(row)) else {
        return;
    };
    if row.flag(2) {
        let differs = built.info_hash != hash;
        by_hand.extend(differs.then(|| format!("{} ({})", row.shown(0), built.info_hash)));
    } else if built.is_lossy {
        lossy.push(row.shown(0));
    }
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
