//! The sessions of a client, which reports are settled against, packed for a column of storage.
//!
//! A version byte, and for each total (uploaded, then downloaded) the flags and the numbers
//! of the parts that are there. Numbers are LEB128 ([`varint`](crate::base::varint)).
//!
//! ```text
//! flags: 1 current   2 it is the first known   4 previous   8 it is the first known   16 dip
//!        32 current has the same times and source as uploaded's, which are omitted
//!        64 the `started` of current is known   128 that of previous is known
//!        256 current goes on from a total that the previous one has not reached yet
//!        512 there are earlier ones
//! session: low, high - low, began (zigzag), last - began, and if it is known, began - start (zigzag)
//! dip:     since (zigzag), total, at - since
//! earlier: how many, then for each whether its `started` is known (0 or 1), and the session
//! After the sessions, if there is one: the source of current's last report. At the end, the total that
//! current goes on from, and earlier ones, of which the oldest are left out where the column has no room.
//! ```
//!
//! A client reports both totals at once, so the second one rarely needs times of its own.
//!
//! If several machines share the peer id, a byte of flags follows (1 IPv6, 2 there is a second machine), then
//! for each machine its id, both totals and the time (zigzag).

use super::machines::{Machine, Machines};
use super::peer::PeerAccount;
use super::sessions::{Dip, EarlierSessions, ReportSource, Session, Sessions};
use crate::base::varint::{put, take, unzigzag, zigzag};

const VERSION: u8 = 2;

const CURRENT: u64 = 1;
const CURRENT_IS_FIRST: u64 = 2;
const PREVIOUS: u64 = 4;
const PREVIOUS_IS_FIRST: u64 = 8;
const DIP: u64 = 16;
const LIKE_UPLOADED: u64 = 32;
const CURRENT_HAS_START: u64 = 64;
const PREVIOUS_HAS_START: u64 = 128;
const GOES_ON: u64 = 256;
const EARLIER: u64 = 512;

const IS_V6: u8 = 1;
const HAS_OTHER: u8 = 2;

/// Bytes that the column has room for (migration `0002_sessions`).
const COLUMN: usize = 320;

/// Replaces `bytes` by the packed account.
pub fn pack(account: &PeerAccount, bytes: &mut Vec<u8>) {
    pack_all(account, bytes);
    for count in (0..EarlierSessions::MAX).rev() {
        if bytes.len() <= COLUMN {
            return;
        }
        let newest = |sessions: Sessions| Sessions {
            earlier: sessions.earlier.newest(count),
            ..sessions
        };
        let account = PeerAccount {
            up: newest(account.up),
            down: newest(account.down),
            ..*account
        };
        pack_all(&account, bytes);
    }
}

fn pack_all(account: &PeerAccount, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.push(VERSION);
    put_sessions(bytes, &account.up, None);
    put_sessions(bytes, &account.down, Some(&account.up));
    if let Some(machines) = &account.machines {
        let has_other = machines.other.map_or(0, |_| HAS_OTHER);
        bytes.push((u8::from(machines.is_v6) * IS_V6) | has_other);
        for machine in [Some(machines.latest), machines.other].iter().flatten() {
            put(bytes, machine.id.into());
            put(bytes, machine.up);
            put(bytes, machine.down);
            put(bytes, zigzag(machine.at));
        }
    }
}

fn put_sessions(bytes: &mut Vec<u8>, sessions: &Sessions, uploaded: Option<&Sessions>) {
    let first = |session: Option<Session>| session.is_some_and(|session| session.is_first);
    let named = |session: Option<Session>| session.is_some_and(|session| session.start.is_some());
    let is_like_uploaded = uploaded.is_some_and(|uploaded| is_alike(sessions, uploaded));
    let flags = [
        (CURRENT, sessions.current.is_some()),
        (CURRENT_IS_FIRST, first(sessions.current)),
        (PREVIOUS, sessions.previous.is_some()),
        (PREVIOUS_IS_FIRST, first(sessions.previous)),
        (DIP, sessions.dip.is_some()),
        (LIKE_UPLOADED, is_like_uploaded),
        (CURRENT_HAS_START, named(sessions.current)),
        (PREVIOUS_HAS_START, named(sessions.previous)),
        (GOES_ON, sessions.goes_on_from.is_some()),
        (EARLIER, sessions.earlier.iter().next().is_some()),
    ];
    let set = flags.iter().filter(|(_, is_set)| *is_set);
    put(bytes, set.fold(0, |flags, (flag, _)| flags | flag));
    if let Some(current) = sessions.current {
        put_window(bytes, &current);
        if !is_like_uploaded {
            put_times(bytes, &current);
        }
    }
    if let Some(previous) = sessions.previous {
        put_window(bytes, &previous);
        put_times(bytes, &previous);
    }
    if sessions.current.is_some() && !is_like_uploaded {
        put(bytes, sessions.by.0.into());
    }
    if let Some(dip) = sessions.dip {
        put(bytes, zigzag(dip.since));
        put(bytes, dip.total);
        put(bytes, dip.at.wrapping_sub(dip.since).cast_unsigned());
    }
    if let Some(from) = sessions.goes_on_from {
        put(bytes, from);
    }
    put_earlier(bytes, &sessions.earlier);
}

fn put_earlier(bytes: &mut Vec<u8>, earlier: &EarlierSessions) {
    let count = earlier.iter().count() as u64;
    if count > 0 {
        put(bytes, count);
    }
    for session in earlier.iter() {
        put(bytes, session.start.is_some().into());
        put_window(bytes, session);
        put_times(bytes, session);
    }
}

/// Whether the current sessions of both totals have the same times and source.
fn is_alike(one: &Sessions, other: &Sessions) -> bool {
    let times = |sessions: &Sessions| {
        let current = sessions.current?;
        Some((current.began, current.last, current.start, sessions.by))
    };
    times(one).is_some() && times(one) == times(other)
}

fn put_window(bytes: &mut Vec<u8>, session: &Session) {
    put(bytes, session.low);
    put(bytes, session.high.wrapping_sub(session.low));
}

fn put_times(bytes: &mut Vec<u8>, session: &Session) {
    let length = session.last.wrapping_sub(session.began);
    put(bytes, zigzag(session.began));
    put(bytes, length.cast_unsigned());
    if let Some(start) = session.start {
        put(bytes, zigzag(session.began.wrapping_sub(start)));
    }
}

/// What [`pack`] wrote; none if the bytes are damaged or of another version.
pub fn unpack(bytes: &[u8]) -> Option<PeerAccount> {
    let mut rest = bytes.strip_prefix(&[VERSION])?;
    let up = sessions(&mut rest, None)?;
    let down = sessions(&mut rest, Some(&up))?;
    let mut account = PeerAccount {
        up,
        down,
        machines: None,
    };
    if let Some((&flags, after)) = rest.split_first() {
        rest = after;
        let latest = machine(&mut rest)?;
        let other = if flags & HAS_OTHER == 0 {
            None
        } else {
            Some(machine(&mut rest)?)
        };
        account.machines = Some(Machines {
            is_v6: flags & IS_V6 != 0,
            latest,
            other,
        });
    }
    rest.is_empty().then_some(account)
}

fn machine(rest: &mut &[u8]) -> Option<Machine> {
    Some(Machine {
        id: u32::try_from(take(rest)?).ok()?,
        up: take(rest)?,
        down: take(rest)?,
        at: unzigzag(take(rest)?),
    })
}

fn sessions(rest: &mut &[u8], uploaded: Option<&Sessions>) -> Option<Sessions> {
    let flags = take(rest)?;
    let has = |flag| flags & flag != 0;
    let like = if has(LIKE_UPLOADED) {
        Some(uploaded?)
    } else {
        None
    };
    let mut found = Sessions::default();
    if has(CURRENT) {
        let window = window(rest)?;
        let times = match like {
            Some(uploaded) => uploaded.current?,
            None => times(rest, has(CURRENT_HAS_START))?,
        };
        found.current = Some(session(window, times, has(CURRENT_IS_FIRST)));
    }
    if has(PREVIOUS) {
        let window = window(rest)?;
        let times = times(rest, has(PREVIOUS_HAS_START))?;
        found.previous = Some(session(window, times, has(PREVIOUS_IS_FIRST)));
    }
    if found.current.is_some() {
        found.by = match like {
            Some(uploaded) => uploaded.by,
            None => ReportSource(u16::try_from(take(rest)?).ok()?),
        };
    }
    if has(DIP) {
        let since = unzigzag(take(rest)?);
        found.dip = Some(Dip {
            since,
            total: take(rest)?,
            at: since.wrapping_add(take(rest)?.cast_signed()),
        });
    }
    if has(GOES_ON) {
        found.goes_on_from = Some(take(rest)?);
    }
    if has(EARLIER) {
        found.earlier = earlier(rest)?;
    }
    Some(found)
}

fn earlier(rest: &mut &[u8]) -> Option<EarlierSessions> {
    let mut found = EarlierSessions::default();
    let count = take(rest)?;
    if count > EarlierSessions::MAX as u64 {
        return None;
    }
    for _ in 0..count {
        let has_start = take(rest)? != 0;
        let window = window(rest)?;
        let times = times(rest, has_start)?;
        found.push_oldest(session(window, times, false));
    }
    Some(found)
}

/// The total at the beginning, and the highest one.
fn window(rest: &mut &[u8]) -> Option<(u64, u64)> {
    let low = take(rest)?;
    Some((low, low.wrapping_add(take(rest)?)))
}

/// A session with its times, and nothing else yet.
fn times(rest: &mut &[u8], has_start: bool) -> Option<Session> {
    let began = unzigzag(take(rest)?);
    let last = began.wrapping_add(take(rest)?.cast_signed());
    let start = if has_start {
        Some(began.wrapping_sub(unzigzag(take(rest)?)))
    } else {
        None
    };
    Some(Session {
        low: 0,
        high: 0,
        began,
        last,
        is_first: false,
        start,
    })
}

fn session((low, high): (u64, u64), times: Session, is_first: bool) -> Session {
    Session {
        low,
        high,
        is_first,
        ..times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(low: u64, high: u64, began: i64, last: i64) -> Sessions {
        let session = Session {
            low,
            high,
            began,
            last,
            is_first: true,
            start: Some(last),
        };
        Sessions {
            current: Some(session),
            previous: Some(Session {
                is_first: false,
                start: None,
                ..session
            }),
            dip: Some(Dip {
                since: last,
                total: high,
                at: began,
            }),
            goes_on_from: Some(low),
            earlier: EarlierSessions::default(),
            by: ReportSource(u16::MAX),
        }
    }

    #[test]
    fn what_was_packed_is_read_again() {
        let all = [
            Sessions::default(),
            Sessions::known(5, 1_700_000_000),
            Sessions::known(7, 1_700_000_001),
            full(0, u64::MAX, i64::MIN, i64::MAX),
            full(u64::MAX, u64::MAX, -1, -1),
        ];
        let machine = Machine {
            id: u32::MAX,
            up: u64::MAX,
            down: 0,
            at: i64::MIN,
        };
        let several = |is_v6, other| Machines {
            is_v6,
            latest: machine,
            other,
        };
        let machines = [
            None,
            Some(several(true, Some(machine))),
            Some(several(false, None)),
        ];
        let mut bytes = Vec::new();
        for (up, down) in all
            .iter()
            .flat_map(|up| all.iter().map(move |down| (*up, *down)))
        {
            for machines in machines {
                let account = PeerAccount { up, down, machines };
                pack(&account, &mut bytes);
                assert_eq!(unpack(&bytes), Some(account));
                assert_eq!(unpack(&bytes[..bytes.len() - 1]), None);
            }
        }
        // Totals up to 2^63-1 (rule A8), and times of the next centuries.
        let largest = |began, last| full(0, u64::MAX >> 1, began, last);
        let account = PeerAccount {
            up: largest(1 << 35, 1 << 36),
            down: largest(1 << 36, 1 << 37),
            machines: Some(several(
                true,
                Some(Machine {
                    at: 1 << 37,
                    ..machine
                }),
            )),
        };
        pack(&account, &mut bytes);
        assert!(bytes.len() <= COLUMN, "{}", bytes.len());
        let usual = PeerAccount::known(5_000_000_000, 5_000_000_000, 1_700_000_000);
        pack(&usual, &mut bytes);
        assert_eq!(bytes.len(), 22);
    }

    #[test]
    fn earlier_sessions_are_packed_as_far_as_there_is_room() {
        let session = |number: u64, start| Session {
            start,
            ..full(number, number << 40, 1 << 34, 1 << 35)
                .current
                .unwrap()
        };
        let mut earlier = EarlierSessions::default();
        for number in 1..=EarlierSessions::MAX as u64 {
            let start = (number % 2 == 0).then_some(1 << 34);
            earlier.push_oldest(Session {
                is_first: false,
                ..session(number, start)
            });
        }
        let with = |up, down| PeerAccount {
            up: Sessions {
                earlier,
                ..Sessions::known(up, 1 << 34)
            },
            down: Sessions::known(down, 1 << 34),
            machines: None,
        };
        let mut bytes = Vec::new();
        pack(&with(1, 1), &mut bytes);
        assert_eq!(unpack(&bytes), Some(with(1, 1)));
        assert_eq!(unpack(&bytes[..bytes.len() - 1]), None);
        let mut account = PeerAccount {
            up: full(0, u64::MAX >> 1, 1 << 36, 1 << 37),
            down: full(0, u64::MAX >> 1, 1 << 37, 1 << 38),
            machines: None,
        };
        account.up.earlier = earlier;
        account.down.earlier = earlier;
        pack(&account, &mut bytes);
        let kept = unpack(&bytes).unwrap();
        let count = kept.up.earlier.iter().count();
        assert!((1..EarlierSessions::MAX).contains(&count), "{count}");
        assert_eq!(kept.up.earlier, earlier.newest(count));
        assert_eq!(kept.down.earlier, earlier.newest(count));
        assert_eq!(kept.up.current, account.up.current);
        assert!(bytes.len() <= COLUMN, "{}", bytes.len());
    }

    #[test]
    fn what_is_damaged_is_none() {
        assert_eq!(unpack(&[]), None);
        assert_eq!(unpack(&[VERSION + 1, 0, 0]), None);
        assert_eq!(unpack(&[VERSION, 0, 0, HAS_OTHER]), None);
        assert_eq!(unpack(&[VERSION, CURRENT as u8, 0x80]), None);
        assert_eq!(
            unpack(&[VERSION, 0, (CURRENT | LIKE_UPLOADED) as u8, 0, 0]),
            None
        );
        assert_eq!(
            unpack(&[VERSION, (CURRENT | LIKE_UPLOADED) as u8, 0, 0, 0]),
            None
        );
    }
}
