//! The statements that write: credit, and edits.

use super::super::cells::SqlRow;
use super::{
    Call, Cell, Given, Sample, SqlResult, SqlRows, StatementTrial, StoredTorrent, StoredUser, calls,
};
use crate::base::ids::InfoHash;
use crate::storage::Finding;

/// Totals of bytes, which no smaller type can hold and no `DOUBLE` can add up.
const UPLOADED: i64 = (1 << 59) + 1;
const DOWNLOADED: i64 = (1 << 58) + 3;
/// By which part a total may be off that is not exact, and still be meant as one.
const NEARLY: u64 = 1000;

/// How many users without totals are tried.
const FRESH_MAX: usize = 20;

const NEW_NAME: &str = "mika-check";
/// As long as those that Mika makes.
const NEW_PASSKEY: &str = "mika-check-mika-check-mika-check";
const NEW_PREFIX: &str = "-ZZ9";
pub(super) const NEW_HASH: InfoHash = InfoHash([0x7e; 20]);
/// A torrent that is not there.
const NO_TORRENT: i64 = u32::MAX as i64;

impl StatementTrial<'_, '_> {
    /// Credits the first user and the first torrent: a little first, then as much as totals may be.
    pub(super) async fn credit(
        &mut self,
        users: &Sample<StoredUser>,
        torrents: &Sample<StoredTorrent>,
    ) -> SqlResult<()> {
        if let Some(user) = users.usable.first() {
            let id = i64::from(user.user.id.0);
            let little = SqlRows::of([[id, 1, 1, 1, 1, 1]].into_iter());
            let much = SqlRows::of([[id, UPLOADED, DOWNLOADED, 1, 1, 60]].into_iter());
            if let Some(changed) = self.credits(&calls::CREDIT_USERS, &little).await? {
                self.credit_much(&little, &much).await?;
                if changed > 0 {
                    self.credit_fresh(&users.usable).await?;
                }
            }
        }
        let id = torrents.usable.first().map(|it| i64::from(it.torrent.id.0));
        if let Some(id) = id {
            let little = SqlRows::of([[id, 1, 1, 1, 1, 1, 1]].into_iter());
            let much = SqlRows::of([[id, UPLOADED, DOWNLOADED, 1, 1, 1, 1]].into_iter());
            if self
                .credits(&calls::CREDIT_TORRENTS, &little)
                .await?
                .is_some()
            {
                self.part(&calls::CREDIT_TORRENTS, &much).await?;
            }
            let snatch = SqlRows::of([[id, 1]].into_iter());
            self.part(&calls::CREDIT_SNATCHES, &snatch).await?;
        }
        let forms = self.job.hash_forms().await?;
        let text = forms[0].expressions(&NEW_HASH).into_iter().next();
        let hash = text
            .as_deref()
            .map_or(Cell::Bytes(&NEW_HASH.0), Cell::Expression);
        let mut fresh = SqlRows::new(2);
        fresh.push(&[hash, Cell::Int(1)]);
        self.part(&calls::ADD_SNATCHED, &fresh).await?;
        Ok(())
    }

    /// Looks whether totals grow by what is added, which the first credit locks.
    async fn credit_much(&mut self, little: &SqlRows, much: &SqlRows) -> SqlResult<()> {
        let call = &calls::CREDIT_USERS;
        self.begin().await?;
        if self.run(call, little).await?.is_none() {
            return Ok(());
        }
        let before = self.first_users().await?;
        if self.run(call, much).await?.is_some() {
            let after = self.first_users().await?;
            self.compare(&before, &after);
            self.end().await?;
        }
        Ok(())
    }

    /// Credits some users without totals, whose row may be missing in a table of totals.
    async fn credit_fresh(&mut self, users: &[StoredUser]) -> SqlResult<()> {
        let call = &calls::CREDIT_USERS;
        let is_fresh = |it: &&StoredUser| it.totals.uploaded == 0 && it.totals.downloaded == 0;
        for user in users.iter().skip(1).filter(is_fresh).take(FRESH_MAX) {
            let id = user.user.id.0;
            let row = SqlRows::of([[i64::from(id), 1, 1, 1, 1, 1]].into_iter());
            let written = self.part(call, &row).await?;
            let is_one = self.job.statements().of(call).len() == 1;
            if is_one && written.is_some_and(|result| result.changed == 0) {
                let place = self.job.place(call);
                self.note(Finding::problem(
                    format!(
                        "the statement {place} changes no row for the user {id}, who has no totals yet: credit would \
                         be lost"
                    ),
                    "let it insert the row if it is missing: INSERT … ON CONFLICT, or ON DUPLICATE KEY UPDATE",
                ));
                break;
            }
        }
        Ok(())
    }

    /// How many rows a row of credit changes, none if it fails; notes a statement for users that changes nothing.
    async fn credits(&mut self, call: &'static Call, row: &SqlRows) -> SqlResult<Option<u64>> {
        let Some(result) = self.part(call, row).await? else {
            return Ok(None);
        };
        let is_one = self.job.statements().of(call).len() == 1;
        if is_one && result.changed == 0 && call.name == calls::CREDIT_USERS.name {
            let id = row.first().map(|row| row.text(0)).unwrap_or_default();
            let place = self.job.place(call);
            self.note(Finding::note(
                format!("the statement {place} changes no row for the user {id}"),
                "if your users have totals, credit would be lost: see its WHERE or its join",
            ));
        }
        Ok(Some(result.changed))
    }

    /// What the statement `users` gave before and after the first user was credited.
    fn compare(&mut self, before: &Sample<StoredUser>, after: &Sample<StoredUser>) {
        let call = &calls::CREDIT_USERS;
        let mut all = before.usable.iter().zip(&after.usable);
        let Some((was, is)) = all.next() else {
            return;
        };
        let id = was.user.id.0;
        let is_credited = |(before, after): (&StoredUser, &StoredUser)| {
            let enough = before.totals.uploaded + UPLOADED.cast_unsigned();
            before.user.id.0 != id && after.totals.uploaded >= enough
        };
        if all.any(is_credited) {
            self.problem(call, "credits other users than those of {rows}, too");
        }
        let row = |sample: &Sample<StoredUser>, column: usize| {
            let mut rows = sample.rows.iter();
            rows.find(|row: &SqlRow<'_>| row.id(0) == Ok(id))
                .is_some_and(|row| row.is_null(column))
        };
        let more = (
            is.totals.uploaded.wrapping_sub(was.totals.uploaded),
            is.totals.downloaded.wrapping_sub(was.totals.downloaded),
        );
        let (up, down) = (UPLOADED.cast_unsigned(), DOWNLOADED.cast_unsigned());
        if more == (down, up) {
            return self.problem(
                call,
                "adds what was uploaded to what users gives as downloaded, and the other way round",
            );
        }
        for (name, column, more, added) in
            [("uploaded", 5, more.0, up), ("downloaded", 6, more.1, down)]
        {
            let total = if column == 5 {
                is.totals.uploaded
            } else {
                is.totals.downloaded
            };
            if row(before, column) && row(after, column) {
                self.problem(call, format!(
                    "leaves {name} of the user {id} NULL: write COALESCE({name}, 0) + …, or give the column a default"
                ));
            } else if total == added {
                self.problem(
                    call,
                    format!(
                        "sets {name} to what is credited: it has to add that, {name} = {name} + …"
                    ),
                );
            } else if more != added && more.abs_diff(added) < added / NEARLY {
                self.problem(call, format!(
                    "adds {added} to {name}, and {more} arrive: the column has no type for whole numbers of 64 bits"
                ));
            } else if more != added && more != 0 {
                let place = self.job.place(call);
                self.note(Finding::note(
                    format!("the statement {place} adds {added} to {name}, and users gives {more} more than before"),
                    "see whether that is meant",
                ));
            }
        }
    }

    /// Edits, as `mika-manage` and the API make them.
    pub(super) async fn edits(
        &mut self,
        user: Option<&StoredUser>,
        torrent: Option<&StoredTorrent>,
    ) -> SqlResult<()> {
        let params = [
            ("id", Cell::Null),
            ("passkey", NEW_PASSKEY.into()),
            ("username", NEW_NAME.into()),
        ];
        self.part(&calls::ADD_USER, &params).await?;
        if let Some(user) = user {
            self.user_edits(user).await?;
        }
        let forms = self.job.hash_forms().await?;
        let texts = forms[0].texts(&NEW_HASH);
        let hash = texts
            .first()
            .map_or(Cell::Bytes(&NEW_HASH.0), |text| Cell::Text(text));
        let params = [
            ("id", Cell::Null),
            ("info_hash", hash),
            ("info_hash_v2", Cell::Null),
            ("release_name", NEW_NAME.into()),
        ];
        self.part(&calls::ADD_TORRENT, &params).await?;
        if let Some(torrent) = torrent {
            self.torrent_edits(torrent).await?;
        }
        let none = SqlRows::of([[NO_TORRENT, -1]].into_iter());
        self.part(&calls::REMOVE_TORRENTS, &none).await?;
        let params = [("peer_id", NEW_PREFIX.into()), ("vstring", NEW_NAME.into())];
        self.part(&calls::ADD_CLIENT, &params).await?;
        self.part(&calls::REMOVE_CLIENT, Given::Params(&params[..1]))
            .await?;
        Ok(())
    }

    /// Writes what the user has already, and wipes and mends nobody.
    async fn user_edits(&mut self, stored: &StoredUser) -> SqlResult<()> {
        let StoredUser { user, totals } = stored;
        let id = user.id.0;
        let total = |total: u64| Cell::Int(i64::try_from(total).unwrap_or(i64::MAX));
        let params = [
            ("id", id.into()),
            ("passkey", user.passkey.expose().into()),
            ("username", user.username.as_str().into()),
            ("enabled", user.enabled.into()),
            ("can_leech", user.can_leech.into()),
            ("uploaded", total(totals.uploaded)),
            ("downloaded", total(totals.downloaded)),
        ];
        self.part(&calls::UPDATE_USER, &params).await?;
        self.upkeep([&calls::WIPE_USERS, &calls::FIX_USERS], id)
            .await
    }

    async fn torrent_edits(&mut self, stored: &StoredTorrent) -> SqlResult<()> {
        let id = stored.torrent.id.0;
        let params = [
            ("id", id.into()),
            ("release_name", stored.name.as_str().into()),
            ("enabled", stored.torrent.enabled.into()),
            ("has_reason", true.into()),
            ("reason", NEW_NAME.into()),
            ("multi_up", 1.5.into()),
            ("multi_dn", 0.5.into()),
        ];
        self.part(&calls::UPDATE_TORRENT, &params).await?;
        let params = [("id", id.into()), ("new_id", id.into())];
        self.part(&calls::MOVE_TORRENT, &params).await?;
        self.upkeep([&calls::WIPE_TORRENTS, &calls::FIX_TORRENTS], id)
            .await
    }

    async fn upkeep(&mut self, [wipe, mend]: [&'static Call; 2], id: u32) -> SqlResult<()> {
        // From this id on up to it: none.
        let params = [("after", id.into()), ("last", id.into())];
        self.part(wipe, &params).await?;
        let rows = SqlRows::of_ids([id].into_iter());
        self.part(mend, &rows).await?;
        Ok(())
    }
}
