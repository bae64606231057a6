//! The statements that read: what the pages give, the others have to find.

use clap::ValueEnum as _;

use super::super::decode;
use super::super::hashes::of_hashes;
use super::super::read::{BEFORE_ALL, page};
use super::{
    Call, Cell, Given, Sample, SqlResult, SqlRows, StatementTrial, StoredTorrent, StoredUser,
    calls, is_passing,
};
use crate::base::ids::InfoHash;
use crate::storage::rows::SortKey;
use crate::storage::{BadRow, Page, TorrentKey, UserKey};

/// Rows of a page that are read.
const SAMPLE: i64 = 50;

/// What is looked up where there is no row to find.
const NO_ID: u32 = 0;
const NO_PASSKEY: &str = "no-such-passkey";
const NO_HASH: InfoHash = InfoHash([0x2d; 20]);

impl StatementTrial<'_, '_> {
    /// Tries the statements that read users; returns a few.
    pub(super) async fn users(&mut self) -> SqlResult<Sample<StoredUser>> {
        let sample = self.first_users().await?;
        self.pages(&calls::USERS, &sample.rows).await?;
        let first = sample.usable.first();
        let id = first.map(|it| it.user.id.0);
        let name = first.map_or("", |it| it.user.username.as_str());
        let passkey = first.map_or(NO_PASSKEY, |it| it.user.passkey.expose());
        let id_of = id.unwrap_or(NO_ID);
        let named = id.filter(|_| !name.is_empty());
        self.finds(&calls::USER, &[("id", id_of.into())], id)
            .await?;
        self.finds(&calls::USERS_NAMED, &[("username", name.into())], named)
            .await?;
        self.finds(&calls::USER_OF_PASSKEY, &[("passkey", passkey.into())], id)
            .await?;
        let rows = SqlRows::of_ids([id_of].into_iter());
        self.finds(&calls::USERS_KNOWN, &rows, id).await?;
        Ok(sample)
    }

    /// The first users, as they are now.
    pub(super) async fn first_users(&mut self) -> SqlResult<Sample<StoredUser>> {
        let rows = self.first_rows(&calls::USERS).await?;
        let usable = self.usable(&calls::USERS, page(&rows, u32::MAX, decode::user));
        Ok(Sample { rows, usable })
    }

    /// Tries the statements that read torrents; returns a few.
    pub(super) async fn torrents(&mut self) -> SqlResult<Sample<StoredTorrent>> {
        let rows = self.first_rows(&calls::TORRENTS).await?;
        self.pages(&calls::TORRENTS, &rows).await?;
        let usable = self.usable(&calls::TORRENTS, page(&rows, u32::MAX, decode::torrent));
        let first = usable.first();
        let id = first.map(|it: &StoredTorrent| it.torrent.id.0);
        let id_of = id.unwrap_or(NO_ID);
        self.finds(&calls::TORRENT, &[("id", id_of.into())], id)
            .await?;
        let ids = SqlRows::of_ids([id_of].into_iter());
        self.finds(&calls::TORRENTS_KNOWN, &ids, id).await?;
        let hash = first.map_or(NO_HASH, |it| it.torrent.info_hash);
        self.begin().await?;
        match of_hashes(self.job, &[hash]).await {
            Ok(found) => {
                self.end().await?;
                let is_found = found.iter().any(|(found, ..)| Some(found.0) == id);
                self.must_find(&calls::TORRENTS_OF_HASHES, id, is_found);
            }
            Err(fault) => self.failed(&calls::TORRENTS_OF_HASHES, fault).await?,
        }
        Ok(Sample { rows, usable })
    }

    /// The whitelist, and the lists for the API, in each of their orders.
    pub(super) async fn lists(&mut self) -> SqlResult<()> {
        self.part(&calls::WHITELIST, &[]).await?;
        let users = UserKey::value_variants().iter().map(|key| key.column());
        self.list([&calls::COUNT_USERS, &calls::FIND_USERS], users)
            .await?;
        let torrents = TorrentKey::value_variants().iter().map(|key| key.column());
        self.list([&calls::COUNT_TORRENTS, &calls::FIND_TORRENTS], torrents)
            .await
    }

    async fn list(
        &mut self,
        [count, find]: [&'static Call; 2],
        columns: impl Iterator<Item = &'static str>,
    ) -> SqlResult<()> {
        let params = [
            ("pattern", Cell::Text("%a%")),
            ("id", Cell::Int(1)),
            ("enabled", Cell::Int(1)),
        ];
        self.part(count, &params).await?;
        if self.part(find, &params).await?.is_none() {
            return Ok(());
        }
        for column in columns {
            self.begin().await?;
            let tail = format!(" ORDER BY {column} ASC, id ASC LIMIT 1 OFFSET 0");
            match self.job.call_then(find, &params, &tail).await {
                Err(fault) if is_passing(&fault) => return Err(fault),
                result => {
                    self.end().await?;
                    if result.is_err() {
                        let names = find.columns.replace(' ', ", ");
                        self.problem(
                            find,
                            format!(
                                "can't be sorted by {column}: its columns need the names {names}"
                            ),
                        );
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn first_rows(&mut self, call: &'static Call) -> SqlResult<SqlRows> {
        let params = [
            ("after", Cell::Int(BEFORE_ALL)),
            ("limit", Cell::Int(SAMPLE)),
        ];
        let rows = self.run(call, &params).await?;
        Ok(rows.unwrap_or_default())
    }

    /// The rows that can be used; it is a problem of the statement if none can.
    fn usable<T>(&mut self, call: &'static Call, page: Page<T>) -> Vec<T> {
        if let Some(BadRow { id, problem, .. }) = page.bad.first().filter(|_| page.rows.is_empty())
        {
            let problem =
                format!("gives no row that can be used, such as that of the id {id}: {problem}");
            self.problem(call, problem);
        }
        page.rows
    }

    /// Looks whether a statement gives pages: each id once, in order, and after the page before.
    async fn pages(&mut self, call: &'static Call, rows: &SqlRows) -> SqlResult<()> {
        let ids: Vec<i64> = rows.iter().filter_map(|row| row.key(0)).collect();
        if ids.windows(2).any(|pair| pair[0] >= pair[1]) {
            let problem =
                "must give each id once, and in ascending order: see its joins and its ORDER BY";
            self.problem(call, problem);
        }
        let Some(first) = ids.first() else {
            return Ok(());
        };
        let params = [("after", Cell::Int(*first)), ("limit", Cell::Int(1))];
        if let Some(next) = self.part(call, &params).await? {
            let is_before = next
                .iter()
                .any(|row| row.key(0).is_some_and(|id| id <= *first));
            if is_before || next.len() > 1 {
                self.problem(
                    call,
                    "must give the ids above :after, and at most :limit rows",
                );
            }
        }
        Ok(())
    }

    /// Runs a look-up that has to find that row, if there is one.
    async fn finds(
        &mut self,
        call: &'static Call,
        given: impl Into<Given<'_>> + Send,
        id: Option<u32>,
    ) -> SqlResult<()> {
        if let Some(rows) = self.part(call, given).await? {
            let is_found = rows.iter().any(|row| row.id(0).ok() == id);
            self.must_find(call, id, is_found);
        }
        Ok(())
    }

    fn must_find(&mut self, call: &'static Call, id: Option<u32>, is_found: bool) {
        let (kind, page) = if call.name.starts_with("torrent") {
            ("torrent", &calls::TORRENTS)
        } else {
            ("user", &calls::USERS)
        };
        if let Some(id) = id.filter(|_| !is_found) {
            let page = self.job.place(page);
            self.problem(
                call,
                format!("does not find the {kind} {id}, which {page} gives"),
            );
        }
    }
}
