//! Which entries of the feed may still be followed by lower numbers.
//!
//! A number is taken when an entry is written, and seen when its transaction commits. What is open can't be
//! seen, and a gap does not say whether its transaction is open or was rolled back. Comparing transactions with
//! `pg_snapshot_xmin` would stop the feed at each gap for as long as any transaction of the server is open, also one
//! that has nothing to do with users or torrents. So a trigger of `mika_feed` lets each transaction that writes
//! entries hold one advisory lock, named by the table and by the first number that it took: `pg_locks` shows every
//! account which numbers are open, and the server releases the lock at the end of the transaction, after its entries
//! can be seen. The microseconds between number and lock are covered by what the engine does about young gaps.

use super::fault::PostgresResult;
use super::session::PostgresSession;
use crate::storage::settle::clamp;

/// The last number of the feed up to `newest` before which no transaction is open.
pub(super) async fn settled(
    session: &mut PostgresSession<'_>,
    after: u64,
    newest: u64,
) -> PostgresResult<u64> {
    // A lock has the last 32 bits of the number.
    let sql = "SELECT objid::bigint FROM pg_locks \
        WHERE locktype = 'advisory' AND objsubid = 2 AND classid = 'mika_feed'::regclass \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let rows = session.query(sql, &[]).await?;
    let open = rows.iter().filter_map(|row| row.integer(0));
    let open = open.map(|low| number_of(low, clamp(newest)));
    let first = open
        .filter(|number| (clamp(after) + 1..=clamp(newest)).contains(number))
        .min();
    Ok(first.map_or(newest, |first| (first - 1).cast_unsigned()))
}

/// The number near `newest` whose last 32 bits are `low`.
fn number_of(low: i64, newest: i64) -> i64 {
    const TURN: i64 = 1 << 32;
    let number = newest - newest.rem_euclid(TURN) + low;
    if number > newest && number - newest > TURN / 2 {
        number - TURN
    } else if newest - number > TURN / 2 {
        number + TURN
    } else {
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_known_by_its_last_bits() {
        let turn = 1_i64 << 32;
        assert_eq!(number_of(7, 9), 7);
        assert_eq!(number_of(12, 9), 12);
        assert_eq!(number_of(5, 3 * turn + 9), 3 * turn + 5);
        assert_eq!(number_of(turn - 1, 3 * turn + 9), 3 * turn - 1);
        assert_eq!(number_of(3, 3 * turn - 2), 3 * turn + 3);
    }
}
