//! The statements that read: what the pages give, the others have to find.

use clap::ValueEnum as _;

use super::super::decode;
use super::super::hashes::of_hashes;
use super::super::read::{BEFORE_ALL, page};
use super::{
    Call, Cell, Given, Sample, SqlFault, SqlRows, StatementTrial, StoredTorrent, StoredUser, calls,
};
use crate::base::ids::InfoHash;
use crate::storage::rows::SortKey;
use crate::storage::{TorrentKey, UserKey};

/// Rows of a page that are read.
const SAMPLE: i64 = 50;

/// What is looked up where there is no row to find.
const NO_ID: u32 = 0;
const NO_PASSKEY: &str = "no-such-passkey";
const NO_HASH: InfoHash = InfoHash([0x2d; 20]);

impl StatementTrial<'_, '_> {
    /// Tries the statements that read users; returns a few.
    pub(super) async fn users(&mut self) -> Result<Sample<StoredUser>, SqlFault> {
        let sample = self.first_users().await?;
        let first = sample.usable.first();
        let id = first.map(|it| it.user.id.0);
        let name = first.map_or("", |it| it.user.username.as_str());
        let passkey = first.map_or(NO_PASSKEY, |it| it.user.passkey.expose());
        let id_of = id.unwrap_or(NO_ID);
        let named = id.filter(|_| !name.is_empty());
        self.finds(&calls::USER, Given::Params(&[("id", id_of.into())]), id)
            .await?;
        self.finds(
            &calls::USERS_NAMED,
            Given::Params(&[("username", name.into())]),
            named,
        )
        .await?;
        self.finds(
            &calls::USER_OF_PASSKEY,
            Given::Params(&[("passkey", passkey.into())]),
            id,
        )
        .await?;
        let rows = SqlRows::of_ids([id_of].into_iter());
        self.finds(&calls::USERS_KNOWN, Given::Rows(&rows), id)
            .await?;
        Ok(sample)
    }

    /// The first users, as they are now.
    pub(super) async fn first_users(&mut self) -> Result<Sample<StoredUser>, SqlFault> {
        let rows = self.first_rows(&calls::USERS).await?;
        let usable = page(&rows, u32::MAX, decode::user).rows;
        Ok(Sample { rows, usable })
    }

    /// Tries the statements that read torrents; returns a few.
    pub(super) async fn torrents(&mut self) -> Result<Sample<StoredTorrent>, SqlFault> {
        let rows = self.first_rows(&calls::TORRENTS).await?;
        let usable = page(&rows, u32::MAX, decode::torrent).rows;
        let first = usable.first();
        let id = first.map(|it: &StoredTorrent| it.torrent.id.0);
        let id_of = id.unwrap_or(NO_ID);
        self.finds(&calls::TORRENT, Given::Params(&[("id", id_of.into())]), id)
            .await?;
        let ids = SqlRows::of_ids([id_of].into_iter());
        self.finds(&calls::TORRENTS_KNOWN, Given::Rows(&ids), id)
            .await?;
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
    pub(super) async fn lists(&mut self) -> Result<(), SqlFault> {
        self.part(&calls::WHITELIST, Given::Params(&[])).await?;
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
    ) -> Result<(), SqlFault> {
        let params = [
            ("pattern", Cell::Text("%a%")),
            ("id", Cell::Int(1)),
            ("enabled", Cell::Int(1)),
        ];
        self.part(count, Given::Params(&params)).await?;
        for column in columns {
            self.begin().await?;
            let tail = format!(" ORDER BY {column} ASC, id ASC LIMIT 1 OFFSET 0");
            match self.job.call_then(find, &params, &tail).await {
                Ok(rows) => self.look_at(find, &rows),
                Err(fault) => return self.failed(find, fault).await,
            }
            self.end().await?;
        }
        Ok(())
    }

    async fn first_rows(&mut self, call: &'static Call) -> Result<SqlRows, SqlFault> {
        let params = [
            ("after", Cell::Int(BEFORE_ALL)),
            ("limit", Cell::Int(SAMPLE)),
        ];
        let rows = self.run(call, Given::Params(&params)).await?;
        Ok(rows.unwrap_or_default())
    }

    /// Runs a look-up that has to find that row, if there is one.
    async fn finds(
        &mut self,
        call: &'static Call,
        given: Given<'_>,
        id: Option<u32>,
    ) -> Result<(), SqlFault> {
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
