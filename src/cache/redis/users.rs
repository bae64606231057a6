//! Users: one hash each, and a key that maps the passkey to the id.

use redis::{Cmd, Value, cmd};

use super::commands::{Commands, Script};
use super::fault::is_wrong_type;
use super::link::RedisLink;
use super::rows::{USER_FIELDS, user_counters, user_fields};
use super::scan::{RowScan, scan_keys};
use super::session::RedisSession;
use super::{keys, reply, rows, side_by_side};
use crate::base::ids::{Passkey, UserId};
use crate::cache::{CacheError, CacheKey, Scan, Write};
use crate::registry::{BadRow, StoredUser};

/// Users that one job writes or removes.
const ROWS_MAX: usize = 500;

/// Usual arguments of the command that writes a user without counters, and their bytes.
const ARGS: usize = 12;
const BYTES: usize = 160;

pub(super) async fn put(
    link: &RedisLink,
    users: &[StoredUser],
    write: Write,
) -> Result<(), CacheError> {
    let session = link.session().await?;
    side_by_side(users.chunks(ROWS_MAX), |chunk| {
        put_chunk(&session, chunk, write)
    })
    .await
}

/// Removes a former passkey first: if the connection breaks after it, the passkey has stopped working, and a
/// retry does the rest.
async fn put_chunk(
    session: &RedisSession<'_>,
    users: &[StoredUser],
    write: Write,
) -> Result<(), CacheError> {
    let known = if write == Write::Fill {
        vec![None; users.len()]
    } else {
        let ids: Vec<UserId> = users.iter().map(|row| row.user.id).collect();
        passkeys(session, &ids).await?
    };
    let former = users.iter().zip(&known).filter_map(|(row, known)| {
        let passkey = known.as_deref()?;
        (passkey != row.user.passkey.expose()).then_some((row.user.id, passkey))
    });
    forget_passkeys(session, former.collect()).await?;

    let mut commands = Commands::default();
    for (row, known) in users.iter().zip(&known) {
        let user = &row.user;
        let mut set = Cmd::with_capacity(ARGS, BYTES);
        set.arg("HSET");
        set.arg(keys::user(user.id)).arg(&user_fields(user)[..]);
        if known.is_none() {
            for (name, number) in user_counters(&row.totals) {
                set.arg(name).arg(number);
            }
        }
        commands.push(set);
        let mut passkey = Cmd::with_capacity(3, 100);
        passkey.arg("SET");
        passkey.arg(keys::passkey(user.passkey.expose()));
        commands.push(passkey.arg(user.id.0).take());
    }
    session.run(commands).await.map(drop)
}

/// The passkeys of these users; none for missing ones.
async fn passkeys(
    session: &RedisSession<'_>,
    users: &[UserId],
) -> Result<Vec<Option<String>>, CacheError> {
    let ask = |id: &UserId| -> Cmd { cmd("HGET").arg(keys::user(*id)).arg("passkey").take() };
    let questions: Commands = users.iter().map(ask).collect();
    let answers = session.run(questions).await?;
    Ok(answers.into_iter().map(reply::text).collect())
}

/// Removes passkeys, unless they belong to another user by now.
async fn forget_passkeys(
    session: &RedisSession<'_>,
    former: Vec<(UserId, &str)>,
) -> Result<(), CacheError> {
    let ask =
        |(_, passkey): &(UserId, &str)| -> Cmd { cmd("GET").arg(keys::passkey(passkey)).take() };
    let questions: Commands = former.iter().map(ask).collect();
    let owners = session.run(questions).await?;
    let mut commands = Commands::default();
    for ((id, passkey), owner) in former.into_iter().zip(owners) {
        if reply::integer(&owner) == Some(id.0.into()) {
            commands.push(cmd("UNLINK").arg(keys::passkey(passkey)).take());
        }
    }
    session.run(commands).await.map(drop)
}

pub(super) async fn remove(link: &RedisLink, users: &[UserId]) -> Result<(), CacheError> {
    let session = link.session().await?;
    side_by_side(users.chunks(ROWS_MAX), |chunk| {
        remove_chunk(&session, chunk)
    })
    .await
}

/// Removes the hash last: a retry finds the passkey in it.
async fn remove_chunk(session: &RedisSession<'_>, users: &[UserId]) -> Result<(), CacheError> {
    let known = passkeys(session, users).await?;
    let former = users
        .iter()
        .zip(&known)
        .filter_map(|(id, passkey)| Some((*id, passkey.as_deref()?)));
    forget_passkeys(session, former.collect()).await?;
    let mut commands = Commands::default();
    for id in users {
        for set in keys::USER_SETS {
            commands.push(cmd("UNLINK").arg(keys::user_set(set, *id)).take());
        }
    }
    commands.barrier();
    for id in users {
        commands.push(cmd("UNLINK").arg(keys::user(*id)).take());
    }
    session.run(commands).await.map(drop)
}

/// Sets fields of an existing user: one that was removed meanwhile must not come back as totals only.
static SET_IF_THERE: Script = Script::new(
    r"
if redis.call('HEXISTS', KEYS[1], 'passkey') == 1 then
    redis.call('HSET', KEYS[1], unpack(ARGV))
end
",
);

pub(super) async fn set_totals(
    link: &RedisLink,
    id: UserId,
    uploaded: Option<u64>,
    downloaded: Option<u64>,
) -> Result<(), CacheError> {
    let session = link.session().await?;
    let mut set = SET_IF_THERE.call(&keys::user(id));
    for (field, total) in [("uploaded", uploaded), ("downloaded", downloaded)] {
        if let Some(total) = total {
            set.arg(field).arg(total);
        }
    }
    let mut commands = Commands::with_script(&SET_IF_THERE);
    commands.push(set);
    session.run(commands).await.map(drop)
}

/// The user of each passkey. A passkey without a user is reported without its text.
pub(super) async fn scan_passkeys(
    link: &RedisLink,
    cursor: u64,
) -> Result<Scan<CacheKey>, CacheError> {
    let session = link.session().await?;
    let (found, next) = scan_keys(link, &session, keys::ALL_PASSKEYS, cursor).await?;
    let questions: Commands = found.iter().map(|key| cmd("GET").arg(key).take()).collect();
    let owners = session.run_tolerant(questions, is_wrong_type).await?;
    let mut scan = Scan {
        rows: Vec::with_capacity(found.len()),
        bad: Vec::new(),
        next,
    };
    for (key, owner) in found.iter().zip(owners) {
        if owner == Value::Nil {
            continue; // removed meanwhile
        }
        match passkey_entry(key, owner) {
            Some((passkey, id)) => scan.rows.push(CacheKey::Passkey(passkey, Some(id))),
            None => scan.bad.push(BadRow {
                table: "t:user",
                id: "***".into(),
                problem: "it does not lead from a passkey to the id of a user".into(),
            }),
        }
    }
    Ok(scan)
}

/// The passkey in a key and the user id in its value, if both are valid.
pub(super) fn passkey_entry(key: &str, owner: Value) -> Option<(Passkey, UserId)> {
    let passkey = keys::passkey_of(key)?.parse().ok()?;
    let id = reply::text(owner)?.parse().ok()?;
    Some((passkey, UserId(id)))
}

/// Removes passkeys; those with a user only if they still belong to that user.
pub(super) async fn remove_passkeys(
    link: &RedisLink,
    passkeys: &[(&Passkey, Option<UserId>)],
) -> Result<(), CacheError> {
    let session = link.session().await?;
    let session = &session;
    side_by_side(passkeys.chunks(ROWS_MAX), |chunk| async move {
        let owned = chunk
            .iter()
            .filter_map(|(passkey, of)| Some(((*of)?, passkey.expose())));
        forget_passkeys(session, owned.collect()).await?;
        let others = chunk.iter().filter(|(_, of)| of.is_none());
        let remove =
            others.map(|(passkey, _)| cmd("UNLINK").arg(keys::passkey(passkey.expose())).take());
        session.run(remove.collect::<Commands>()).await.map(drop)
    })
    .await
}

pub(super) const ROWS: RowScan<UserId, StoredUser> = RowScan {
    pattern: keys::ALL_USERS,
    id: keys::user_of,
    read: |id| {
        cmd("HMGET")
            .arg(keys::user(id))
            .arg(&USER_FIELDS[..])
            .take()
    },
    row: rows::user,
};
