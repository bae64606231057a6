//! Rows of each table as values: the columns as the statements give them. An unusable row says why.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use super::cells::SqlRow;
use crate::base::ids::{Passkey, PeerId, TorrentId, UserId};
use crate::change::{PeerKey, PeerRecord};
use crate::registry::{ClientPrefix, Torrent, User};
use crate::storage::rows::{self, Unusable};
use crate::storage::{BadRow, StoredHistory, StoredPeer, StoredTorrent, StoredUser, UserTotals};

pub(super) fn user(row: SqlRow<'_>) -> Result<StoredUser, Unusable> {
    if row.is_blank(1) {
        return Err(Unusable::Unfinished);
    }
    let read = || {
        let passkey: Option<Passkey> = row.parsed(1);
        Ok(User {
            id: UserId(row.id(0)?),
            passkey: passkey.ok_or("its passkey is not 8 to 64 letters, digits, '_' or '-'")?,
            username: row.text(2),
            enabled: row.site_flag(3, "enabled")?,
            can_leech: row.site_flag(4, "can_leech")?,
        })
    };
    Ok(StoredUser {
        user: read().map_err(|problem: String| bad("users", &row, problem))?,
        totals: UserTotals {
            uploaded: row.total(5),
            downloaded: row.total(6),
            snatches: row.total(7),
            announces: row.total(8),
            seed_time: row.total(9),
        },
    })
}

pub(super) fn torrent(row: SqlRow<'_>) -> Result<StoredTorrent, Unusable> {
    let first = row.info_hash(1, "info_hash");
    let first = first.map_err(|problem| bad("torrents", &row, problem))?;
    let info_hash = first.ok_or(Unusable::Unfinished)?;
    let read = || {
        Ok(Torrent {
            id: TorrentId(row.id(0)?),
            info_hash,
            info_hash_v2: row.info_hash(2, "info_hash_v2")?,
            enabled: row.site_flag(4, "enabled")?,
            reason: (!row.is_null(5)).then(|| row.text(5)),
            multi_up: row.permille(6, "multi_up")?,
            multi_down: row.permille(7, "multi_dn")?,
            snatches: row.small(10),
        })
    };
    Ok(StoredTorrent {
        torrent: read().map_err(|problem: String| bad("torrents", &row, problem))?,
        name: row.text(3),
        seeders: row.small(8),
        leechers: row.small(9),
        announces: row.total(11),
        uploaded: row.total(12),
        downloaded: row.total(13),
    })
}

pub(super) fn client(row: SqlRow<'_>) -> Result<(ClientPrefix, String), Unusable> {
    let written = row.text(0);
    let client = rows::client(&written, row.text(1));
    // In quotes, because it may consist of blanks.
    let client = client.map_err(|problem| BadRow {
        id: format!("{:?}", row.shown(0)),
        ..bad("whitelist", &row, problem)
    })?;
    Ok((client, written))
}

pub(super) fn peer(row: SqlRow<'_>) -> Result<StoredPeer, Unusable> {
    let key = || {
        Ok(PeerKey {
            user: UserId(row.id(0)?),
            torrent: TorrentId(row.id(1)?),
            peer_id: PeerId::from_slice(row.bytes(2)).ok_or("its peer id is not 20 bytes")?,
        })
    };
    Ok(StoredPeer {
        key: key().map_err(|problem: String| bad("peers", &row, problem))?,
        record: PeerRecord {
            base_up: row.total(3),
            base_down: row.total(4),
            start_up: None,
            start_down: None,
            base_at: row.integer(5).unwrap_or(0),
            dip_up: row.integer(6),
            dip_down: row.integer(7),
            uploaded: row.total(8),
            downloaded: row.total(9),
            left: (!row.is_null(10)).then(|| row.total(10)),
            v4: row
                .parsed(11)
                .zip(port(&row, 12))
                .map(|(ip, port): (Ipv4Addr, _)| SocketAddrV4::new(ip, port)),
            v6: row
                .parsed(13)
                .zip(port(&row, 14))
                .map(|(ip, port): (Ipv6Addr, _)| SocketAddrV6::new(ip, port, 0, 0)),
            v4_at: None,
            v6_at: None,
            speed_up: row.small(15),
            speed_down: row.small(16),
            seed_time: row.small(17),
            announces: row.small(18),
            first_announce: row.integer(19).unwrap_or(0),
            last_announce: row.integer(20).unwrap_or(0),
            active: row.flag(21),
            paused: row.flag(22),
        },
    })
}

fn port(row: &SqlRow<'_>, column: usize) -> Option<u16> {
    u16::try_from(row.integer(column)?).ok()
}

pub(super) fn history(row: SqlRow<'_>) -> Result<StoredHistory, Unusable> {
    let ids = row.id(0).and_then(|torrent| Ok((torrent, row.id(1)?)));
    let (torrent, user) = ids.map_err(|problem| bad("history", &row, problem))?;
    Ok(StoredHistory {
        user: UserId(user),
        torrent: TorrentId(torrent),
        uploaded: row.total(2),
        downloaded: row.total(3),
        seed_time: row.total(4),
        completed_at: row.integer(5),
        hnr: row.flag(6),
    })
}

pub(super) fn bad(table: &'static str, row: &SqlRow<'_>, problem: String) -> BadRow {
    BadRow {
        table,
        id: row.shown(0),
        problem,
    }
}
