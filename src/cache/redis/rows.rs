//! Rows of the registry as fields of a hash. A web application may write them, so each is checked.

use redis::Value;

use super::reply;
use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::registry::{BadRow, Permille, StoredTorrent, StoredUser, Torrent, User, UserTotals};

/// The largest number that Redis counts to.
const COUNT_MAX: u64 = i64::MAX.cast_unsigned();

/// The fields of a user's hash, in the order in which they are read.
pub(super) const USER_FIELDS: [&str; 10] = [
    "user_id",
    "passkey",
    "username",
    "enabled",
    "can_leech",
    "uploaded",
    "downloaded",
    "snatches",
    "announces",
    "seed_time",
];

/// The fields of a torrent's hash, in the order in which they are read.
pub(super) const TORRENT_FIELDS: [&str; 14] = [
    "torrent_id",
    "info_hash",
    "info_hash_v2",
    "name",
    "enabled",
    "reason",
    "multi_up",
    "multi_dn",
    "seeders",
    "leechers",
    "snatches",
    "announces",
    "uploaded",
    "downloaded",
];

/// What announces need of a user, by index in [`USER_FIELDS`]: its id, passkey and flags.
pub(super) const ACCESS_FIELDS: [usize; 4] = [0, 1, 3, 4];

/// What announces need of a torrent, by index in [`TORRENT_FIELDS`]: all but its name and most counters.
pub(super) const RULE_FIELDS: [usize; 8] = [0, 1, 2, 4, 5, 6, 7, 10];

/// The values of some fields at their places among all `N`; the others are missing.
pub(super) fn placed<const N: usize>(places: &[usize], values: Vec<Value>) -> Vec<Value> {
    let mut all = vec![Value::Nil; N];
    for (&place, value) in places.iter().zip(values) {
        if let Some(cell) = all.get_mut(place) {
            *cell = value;
        }
    }
    all
}

/// The values of a hash, by index in the list of fields.
struct Cells(Vec<Option<String>>);

/// The user whose id is in the key; none if the hash is missing, or has only counters and no passkey.
pub(super) fn user(id: UserId, values: Vec<Value>) -> Option<Result<StoredUser, BadRow>> {
    let cells = Cells::of(values);
    let bad = |problem: String| BadRow {
        table: "t:u",
        id: id.0.to_string(),
        problem,
    };
    cells.text(1)?;
    let read = || {
        if cells.text(0).is_some_and(|text| text.parse() != Ok(id.0)) {
            return Err("its user_id is not the one in the name of the key".into());
        }
        let passkey: Option<Passkey> = cells.text(1).and_then(|text| text.parse().ok());
        Ok(User {
            id,
            passkey: passkey.ok_or("its passkey is not 8 to 64 letters, digits, '_' or '-'")?,
            username: cells.text(2).unwrap_or_default().into(),
            enabled: cells.flag(3, "enabled")?,
            can_leech: cells.flag(4, "can_leech")?,
        })
    };
    Some(read().map_err(bad).map(|user| StoredUser {
        user,
        totals: UserTotals {
            uploaded: cells.total(5),
            downloaded: cells.total(6),
            snatches: cells.total(7),
            announces: cells.total(8),
            seed_time: cells.total(9),
        },
    }))
}

/// The torrent whose info hash is in the key; none if the hash is missing, or has only counters and no id.
pub(super) fn torrent(
    info_hash: InfoHash,
    values: Vec<Value>,
) -> Option<Result<StoredTorrent, BadRow>> {
    let cells = Cells::of(values);
    let bad = |problem: String| BadRow {
        table: "t:t",
        id: info_hash.to_string(),
        problem,
    };
    cells.text(0)?;
    let read = || {
        let id = cells.text(0).and_then(|text| text.parse().ok());
        let same = |text: &str| text.parse() == Ok(info_hash);
        if cells.text(1).is_some_and(|text| !same(text)) {
            return Err("its info_hash is not the one in the name of the key".into());
        }
        let second = cells.text(2).map(|text| {
            text.parse()
                .map_err(|_| "its info_hash_v2 is not 40 hexadecimal digits")
        });
        Ok(Torrent {
            id: TorrentId(
                id.ok_or_else(|| format!("its torrent_id is not between 0 and {}", u32::MAX))?,
            ),
            info_hash,
            info_hash_v2: second.transpose()?,
            enabled: cells.flag(4, "enabled")?,
            reason: cells.text(5).map(Into::into),
            multi_up: cells.permille(6, "multi_up")?,
            multi_down: cells.permille(7, "multi_dn")?,
            snatches: cells.small(10),
        })
    };
    Some(read().map_err(bad).map(|torrent| StoredTorrent {
        torrent,
        name: cells.text(3).unwrap_or_default().into(),
        seeders: cells.small(8),
        leechers: cells.small(9),
        announces: cells.total(11),
        uploaded: cells.total(12),
        downloaded: cells.total(13),
    }))
}

/// The fields of a user that storage decides, alternating with their values.
pub(super) fn user_fields(user: &User) -> [String; 10] {
    let flag = |value: bool| u8::from(value).to_string();
    [
        "user_id".into(),
        user.id.0.to_string(),
        "passkey".into(),
        user.passkey.expose().into(),
        "username".into(),
        user.username.clone(),
        "enabled".into(),
        flag(user.enabled),
        "can_leech".into(),
        flag(user.can_leech),
    ]
}

/// The counters of a user that are not 0.
pub(super) fn user_counters(totals: &UserTotals) -> impl Iterator<Item = (&'static str, u64)> {
    counted([
        ("uploaded", totals.uploaded),
        ("downloaded", totals.downloaded),
        ("snatches", totals.snatches),
        ("announces", totals.announces),
        ("seed_time", totals.seed_time),
    ])
}

/// The counters of a torrent that are not 0.
pub(super) fn torrent_counters(
    row: &StoredTorrent,
) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    counted([
        ("seeders", row.seeders.into()),
        ("leechers", row.leechers.into()),
        ("snatches", row.torrent.snatches.into()),
        ("announces", row.announces),
        ("uploaded", row.uploaded),
        ("downloaded", row.downloaded),
    ])
}

fn counted<const N: usize>(
    counters: [(&'static str, u64); N],
) -> impl Iterator<Item = (&'static str, u64)> {
    counters
        .into_iter()
        .filter(|(_, number)| *number > 0)
        .map(|(name, number)| (name, number.min(COUNT_MAX)))
}

impl Cells {
    fn of(values: Vec<Value>) -> Self {
        Self(values.into_iter().map(reply::text).collect())
    }

    fn text(&self, place: usize) -> Option<&str> {
        self.0.get(place)?.as_deref()
    }

    /// A flag; on by default.
    fn flag(&self, place: usize, name: &str) -> Result<bool, String> {
        match self.text(place) {
            None | Some("" | "1") => Ok(true),
            Some("0") => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(format!("{name} is neither 0 nor 1")),
        }
    }

    /// A multiplier; 1 by default.
    fn permille(&self, place: usize, name: &str) -> Result<Permille, String> {
        let factor = match self.text(place) {
            None | Some("") => 1.0,
            Some(text) => text.parse().unwrap_or(f64::NAN),
        };
        Permille::from_factor(factor)
            .ok_or_else(|| format!("{name} is not between 0 and {}", Permille::MAX.factor()))
    }

    /// A counter: 0 if it can't be read.
    fn total(&self, place: usize) -> u64 {
        self.text(place)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
            .min(COUNT_MAX)
    }

    fn small(&self, place: usize) -> u32 {
        u32::try_from(self.total(place)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(texts: &[Option<&str>]) -> Vec<Value> {
        let value = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        texts
            .iter()
            .copied()
            .map(|text| text.map_or(Value::Nil, value))
            .collect()
    }

    #[test]
    fn missing_fields_mean_their_defaults() {
        let row = user(UserId(7), values(&[None, Some("passkey-7")]));
        let row = row.unwrap().unwrap();
        assert!(row.user.enabled && row.user.can_leech);
        assert_eq!(row.totals, UserTotals::default());
        assert!(user(UserId(7), values(&[Some("7")])).is_none());

        let hash = InfoHash([1; 20]);
        let row = torrent(hash, values(&[Some("3")])).unwrap().unwrap();
        assert_eq!(row.torrent.id, TorrentId(3));
        assert_eq!(
            (row.torrent.multi_up, row.torrent.reason),
            (Permille::ONE, None)
        );
        assert!(row.torrent.enabled);
        assert!(torrent(hash, values(&[None, Some("x")])).is_none());
    }

    #[test]
    fn what_people_write_is_read_or_named() {
        let passkey = Some("passkey-7");
        let enabled = |text| user(UserId(7), values(&[None, passkey, None, Some(text)])).unwrap();
        for (text, expected) in [("1", true), ("0", false), ("True", true), ("false", false)] {
            assert_eq!(enabled(text).unwrap().user.enabled, expected, "{text}");
        }
        let bad = enabled("perhaps").unwrap_err();
        assert_eq!((bad.table, bad.id.as_str()), ("t:u", "7"));
        assert!(bad.problem.contains("enabled"));

        let bad = user(UserId(7), values(&[Some("8"), passkey])).unwrap();
        assert!(bad.unwrap_err().problem.contains("user_id"));
        let bad = user(UserId(7), values(&[Some("7"), Some("short")])).unwrap();
        assert!(
            !bad.unwrap_err().problem.contains("short"),
            "never a passkey"
        );

        let mut fields = vec![None; 14];
        fields[0] = Some("3");
        fields[6] = Some("2.5");
        fields[10] = Some("-1");
        let hash = InfoHash([1; 20]);
        let row = torrent(hash, values(&fields)).unwrap().unwrap().torrent;
        assert_eq!((row.multi_up, row.snatches), (Permille(2500), 0));
        fields[7] = Some("much");
        assert!(torrent(hash, values(&fields)).unwrap().is_err());
    }
}
