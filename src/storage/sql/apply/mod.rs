//! Applies batches of a journal: bases, credit and the last number in one transaction.
//!
//! Rows are written in the order of their keys, so that writers do not deadlock, and those of the site last,
//! so that they are locked for the shortest time.

mod held;
mod histories;
mod journals;
mod peers;
mod site;

use std::sync::Arc;

use self::held::held;
use self::journals::applied_for_update;
pub(super) use self::journals::{begin_at, forget, journals, last_applied};
use super::calls::{self, Call};
use super::cells::SqlRows;
use super::database::SqlResult;
use super::hashes::of_hashes;
use super::job::Job;
use crate::base::ids::InfoHash;
use crate::change::Batch;
use crate::change::sums::Credited;
use crate::storage::passed_over::Uncredited;
use crate::storage::settle::{Settlement, clamp};
use crate::storage::touched::{KnownIds, Named, Touched};
use crate::storage::{CreditRules, batches};

/// Applies `batches`, or changes nothing.
pub(super) async fn apply(
    job: &mut Job<'_>,
    batches: &[Arc<Batch>],
    rules: &CreditRules,
) -> SqlResult<Credited> {
    let Some(Batch {
        journal, number, ..
    }) = batches.last().map(Arc::as_ref)
    else {
        return Ok(Credited::default());
    };
    job.begin().await?;
    job.lock_applying().await?;
    let new = batches::not_applied(batches, applied_for_update(job, journal).await?)?;
    let mut credited = Credited::default();
    if !new.is_empty() {
        let changes = || new.iter().flat_map(|batch| &batch.changes);
        let named = Named::by(changes());
        let known = known(job, &named).await?;
        job.uncredited.extend(gone(&named, &known));
        let touched = Touched::by(changes(), &known);
        let held = held(job, &touched).await?;
        let settled = Settlement::of(touched, held, journal, rules);
        peers::write(job, &settled).await?;
        histories::write(job, &settled).await?;
        let params = [
            ("node", journal.as_str().into()),
            ("applied", clamp(*number).into()),
        ];
        job.call(&calls::SET_APPLIED, &params).await?;
        site::write(job, &settled).await?;
        credited = settled.into_credited();
    }
    job.commit().await?;
    Ok(credited)
}

/// The users and torrents named by changes that exist.
async fn known(job: &mut Job<'_>, named: &Named) -> SqlResult<KnownIds> {
    let mut torrents: Vec<u32> = named.torrents.iter().map(|(id, _)| *id).collect();
    torrents.dedup();
    let mut known = KnownIds::default();
    let users = existing(job, &calls::USERS_KNOWN, &named.users).await?;
    known.users.extend(users);
    let torrents = existing(job, &calls::TORRENTS_KNOWN, &torrents).await?;
    known.torrents.extend(torrents);
    let gone: Vec<InfoHash> = named
        .torrents
        .iter()
        .filter(|(id, _)| !known.torrents.contains(id))
        .map(|(_, info_hash)| *info_hash)
        .collect();
    if !gone.is_empty() {
        let found = of_hashes(job, &gone).await?;
        let moved = found
            .iter()
            .filter_map(|(id, first, _)| Some(((*first)?, *id)));
        known.moved.extend(moved);
    }
    Ok(known)
}

/// The users and torrents named by changes that do not exist any more.
fn gone(named: &Named, known: &KnownIds) -> Vec<Uncredited> {
    let users = named.users.iter();
    let users = users.filter(|id| !known.users.contains(id));
    let torrents = named.torrents.iter().filter(|(id, info_hash)| {
        !known.torrents.contains(id) && !known.moved.contains_key(info_hash)
    });
    let of = |table| move |id: &u32| Uncredited::Gone { table, id: *id };
    let users = users.map(of("users"));
    let torrents = torrents.map(|(id, _)| id).map(of("torrents"));
    users.chain(torrents).collect()
}

/// Those of some ids that exist.
async fn existing(job: &mut Job<'_>, call: &'static Call, ids: &[u32]) -> SqlResult<Vec<u32>> {
    let wanted = SqlRows::of_ids(ids.iter().copied());
    let rows = job.call_for(call, wanted).await?;
    Ok(rows.iter().filter_map(|row| row.id(0).ok()).collect())
}
