//! The statements of a site that stores no info hashes: which torrents lack one, from what it is rebuilt, and where it
//! goes.

use super::super::edit::hash_cell;
use super::super::rebuilt::rebuild;
use super::writes::NEW_HASH;
use super::{Call, Cell, SqlResult, SqlRows, StatementTrial, calls};

/// Rows that are read.
const SAMPLE: i64 = 5;

impl StatementTrial<'_, '_> {
    /// Tries them with a few torrents, of which those with a hash that is in doubt may be some.
    pub(super) async fn hashes(&mut self) -> SqlResult<()> {
        let params = [
            ("after", Cell::Int(i64::MIN)),
            ("limit", Cell::Int(SAMPLE)),
            ("noted", Cell::Int(1)),
        ];
        let call = &calls::HASHES_WANTED;
        let Some(wanted) = self.part(call, &params).await? else {
            return Ok(());
        };
        if wanted.len() > SAMPLE as usize {
            self.problem(call, "must give at most :limit rows");
        }
        // Without a torrent, the others are run for one that is not there.
        let ids: Vec<i64> = wanted.iter().filter_map(|row| row.key(0)).collect();
        let id = ids.first().copied().unwrap_or_default();
        let tried = if ids.is_empty() { &[id][..] } else { &ids };
        let rows = SqlRows::of(tried.iter().map(|id| [*id]));
        let call = &calls::HASH_SOURCES;
        if let Some(sources) = self.part(call, &rows).await? {
            self.look_at_sources(call, &ids, &sources);
        }
        self.store(id).await
    }

    /// Each torrent that lacks a hash has a source, from which one can be rebuilt.
    fn look_at_sources(&mut self, call: &'static Call, wanted: &[i64], sources: &SqlRows) {
        let found: Vec<i64> = sources.iter().filter_map(|row| row.key(0)).collect();
        if let Some(id) = wanted.iter().find(|id| !found.contains(id)) {
            let page = self.job.place(&calls::HASHES_WANTED);
            let problem = format!("does not find the torrent {id}, which {page} gives");
            return self.problem(call, problem);
        }
        let problems: Vec<String> = sources
            .iter()
            .map_while(|row| rebuild(&row).err())
            .collect();
        if let Some(problem) = problems.first().filter(|_| problems.len() == sources.len()) {
            let problem = format!("gives no row from which an info hash can be rebuilt: {problem}");
            self.problem(call, problem);
        }
    }

    /// Stores a hash for that torrent, sets it by hand, and has it rebuilt again.
    async fn store(&mut self, id: i64) -> SqlResult<()> {
        let mut built = SqlRows::new(3);
        built.push(&[Cell::Int(id), Cell::Bytes(&NEW_HASH.0), Cell::Int(0)]);
        self.part(&calls::STORE_HASHES, &built).await?;
        for hash in [Some(&NEW_HASH), None] {
            let params = [
                ("id", Cell::Int(id)),
                ("info_hash", hash_cell(hash, &[])),
                ("info_hash_v2", Cell::Null),
            ];
            self.part(&calls::SET_HASH, &params).await?;
        }
        Ok(())
    }
}
