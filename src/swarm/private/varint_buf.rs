//! The numbers of a packed entry as bytes of variable length, written and read in order.

use crate::accounting::machines::{Machine, Machines};
use crate::accounting::sessions::Point;
use crate::base::clock::Seconds;
use crate::base::ids::UserId;
use crate::swarm::private::packed::LEN_MAX;
use crate::swarm::records::{Account, Owed, UserHistory};

/// Room for an entry, and 8 bytes more: even the last number is written as 8 whole bytes first.
pub(super) const ROOM: usize = LEN_MAX + 8;

/// Stored in place of a width if there is no number: a base was not reported, bytes left are not known, or
/// counted bytes equal the base.
const ABSENT: u64 = 15;

/// A flag in the width of a number of at most 4 bytes. In that of the seed time: the `started` that began the
/// session is known. In that of the announces: both totals began at 0 at the same time, as for most clients.
/// In that of the age: the `started` of downloads has a time of its own.
const FLAG: u64 = 8;
/// The bits of such a width without the flag.
const WIDTH_MASK: u64 = 7;

// The flags of a history.

/// The history has numbers of its own, not those of the account.
const HAS_NUMBERS: u16 = 1 << 10;
const IS_HNR: u16 = 1 << 11;
const OWES_SNATCH: u16 = 1 << 12;
/// The time of the snatch is there: in 4 bytes, or in 8.
const HAS_SNATCH: u16 = 1 << 13;
const HAS_LONG_SNATCH: u16 = 1 << 14;

/// The bytes of an entry, and the position to write or read next.
pub(super) struct VarintBuf {
    pub bytes: [u8; ROOM],
    pub at: usize,
}

/// The widths of several numbers, 4 bits each, the first in the lowest bits.
struct Widths(u64);

// === impl VarintBuf: writing ===

impl VarintBuf {
    pub fn new(at: usize) -> Self {
        Self {
            bytes: [0; ROOM],
            at,
        }
    }

    pub fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    /// Writes `moment` and returns `flag`; returns 0 if there is no moment, or if it is the `usual` one.
    pub fn put_unless(&mut self, usual: Seconds, moment: Option<Seconds>, flag: u16) -> u16 {
        self.put_some(moment.filter(|&moment| moment != usual), flag)
    }

    pub fn put_some(&mut self, moment: Option<Seconds>, flag: u16) -> u16 {
        let Some(moment) = moment else { return 0 };
        self.put(moment.0.to_le_bytes());
        flag
    }

    /// Writes the lower bytes of a number, as needed; returns how many.
    fn put_number(&mut self, number: u64) -> u64 {
        let width = u64::from(71 - (number | 1).leading_zeros()) / 8 * u64::from(number != 0);
        self.bytes[self.at..self.at + 8].copy_from_slice(&number.to_le_bytes());
        self.at += width as usize;
        width
    }

    fn put_number_unless(&mut self, is_absent: bool, number: u64) -> u64 {
        if is_absent {
            return ABSENT;
        }
        self.put_number(number)
    }

    /// Writes widths into the `N` bytes that were left for them.
    fn set_widths<const N: usize>(&mut self, at: usize, widths: &Widths) {
        self.bytes[at..at + N].copy_from_slice(&widths.0.to_le_bytes()[..N]);
    }

    pub fn put_account(&mut self, account: &Account) {
        let widths_at = self.at;
        self.at += 5;
        let (base_up, base_down) = (account.base_up, account.base_down);
        let age = account
            .last_announce
            .0
            .wrapping_sub(account.first_announce.0);
        let is_one_machine = account.machines.is_none();
        let starts =
            [account.start_up, account.start_down].map(|start| start.filter(|_| is_one_machine));
        let [up, down] = starts.map(|start| start.map(|point| point.at));
        let time = up.or(down);
        let has_own_time = down.is_some() && down != time;
        let is_from_zero =
            !has_own_time && starts.map(|start| start.map(|point| point.total)) == [Some(0); 2];
        let widths = Widths::of([
            self.put_number_unless(base_up == Account::NO_TOTAL, base_up),
            self.put_number_unless(base_down == Account::NO_TOTAL, base_down),
            self.put_number_unless(account.uploaded == base_up, account.uploaded),
            self.put_number_unless(account.downloaded == base_down, account.downloaded),
            self.put_number_unless(account.left.is_none(), account.left.unwrap_or(0)),
            self.put_number(account.speed_up.into()),
            self.put_number(account.speed_down.into()),
            self.put_number(account.seed_time.into()) | flag(time.is_some()),
            self.put_number(account.announces.into()) | flag(is_from_zero),
            self.put_number(age.into()) | flag(has_own_time),
        ]);
        self.set_widths::<5>(widths_at, &widths);
        if time.is_some() && !is_from_zero {
            self.put_start_totals(starts);
        }
        for time in [time, down.filter(|_| has_own_time)].into_iter().flatten() {
            self.put_unix(time);
        }
    }

    /// Writes a Unix time in 4 bytes; one outside the years 1970 to 2106 is clamped.
    fn put_unix(&mut self, time: i64) {
        let seconds = time.clamp(0, u32::MAX.into());
        self.put((seconds as u32).to_le_bytes());
    }

    fn put_start_totals(&mut self, starts: [Option<Point>; 2]) {
        let widths_at = self.at;
        self.at += 1;
        let widths = Widths::of(starts.map(|start| match start {
            Some(start) => self.put_number(start.total),
            None => ABSENT,
        }));
        self.set_widths::<1>(widths_at, &widths);
    }

    pub fn put_machines(&mut self, machines: &Machines) {
        let has_other = u8::from(machines.other.is_some());
        self.put([u8::from(machines.is_v6) | has_other << 1]);
        for machine in [Some(machines.latest), machines.other].iter().flatten() {
            self.put(machine.id.to_le_bytes());
            self.put((machine.at as u32).to_le_bytes());
            let widths_at = self.at;
            self.at += 1;
            let widths = Widths::of(
                [machine.up, machine.down]
                    .map(|total| self.put_number_unless(total == Account::NO_TOTAL, total)),
            );
            self.set_widths::<1>(widths_at, &widths);
        }
    }

    pub fn put_owed(&mut self, owed: &Owed) {
        let widths_at = self.at;
        self.at += 2;
        let widths = Widths::of([
            self.put_number(owed.uploaded),
            self.put_number(owed.downloaded),
            self.put_number(owed.seed_time.into()),
            self.put_number(owed.announces.into()),
        ]);
        self.set_widths::<2>(widths_at, &widths);
        self.put(owed.since.0.to_le_bytes());
        self.put(owed.seeded_until.0.to_le_bytes());
        let flags = [owed.began_up, owed.began_down, owed.left];
        self.put([flags
            .iter()
            .rev()
            .fold(0, |bits, &flag| bits << 1 | u8::from(flag))]);
    }

    /// Returns the flags. `is_same`: the numbers equal those of the account, and are omitted.
    pub fn put_history(&mut self, history: &UserHistory, is_same: bool) -> u16 {
        let mut flags = 0;
        if history.hnr {
            flags |= IS_HNR;
        }
        if history.owes_snatch {
            flags |= OWES_SNATCH;
        }
        if let Some(completed_at) = history.completed_at {
            flags |= HAS_SNATCH;
            if let Ok(short) = u32::try_from(completed_at) {
                self.put(short.to_le_bytes());
            } else {
                flags |= HAS_LONG_SNATCH;
                self.put(completed_at.to_le_bytes());
            }
        }
        if !is_same {
            flags |= HAS_NUMBERS;
            let widths_at = self.at;
            self.at += 1;
            let widths = Widths::of([
                self.put_number(history.downloaded),
                self.put_number(history.seed_time.into()),
            ]);
            self.set_widths::<1>(widths_at, &widths);
        }
        flags
    }
}

// === impl VarintBuf: reading ===

impl VarintBuf {
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[self.at..self.at + N]);
        self.at += N;
        array
    }

    pub fn moment(&mut self) -> Seconds {
        Seconds(u32::from_le_bytes(self.take()))
    }

    fn widths<const N: usize>(&mut self) -> Widths {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.take::<N>());
        Widths(u64::from_le_bytes(bytes))
    }

    /// Reads a number of that width; returns `usual` if it is absent.
    fn number_or(&mut self, width: u64, usual: u64) -> u64 {
        if width == ABSENT {
            return usual;
        }
        let mut array = [0; 8];
        array.copy_from_slice(&self.bytes[self.at..self.at + 8]);
        self.at += width as usize;
        let unused = 64 - 8 * width as u32;
        u64::from_le_bytes(array) & u64::MAX.checked_shr(unused).unwrap_or(0)
    }

    pub fn number(&mut self, width: u64) -> u64 {
        self.number_or(width, 0)
    }

    pub fn account(&mut self, last: Seconds) -> Account {
        let mut widths = self.widths::<5>();
        let base_up = self.number_or(widths.next(), Account::NO_TOTAL);
        let base_down = self.number_or(widths.next(), Account::NO_TOTAL);
        let uploaded = self.number_or(widths.next(), base_up);
        let downloaded = self.number_or(widths.next(), base_down);
        let left_width = widths.next();
        let left = (left_width != ABSENT).then(|| self.number(left_width));
        let speed_up = self.number(widths.next()) as u32;
        let speed_down = self.number(widths.next()) as u32;
        let [seed_time, announces, age] = [widths.next(), widths.next(), widths.next()];
        let [has_starts, is_from_zero, has_own_time] =
            [seed_time, announces, age].map(|width| width & FLAG != 0);
        let [seed_time, announces, age] =
            [seed_time, announces, age].map(|width| self.number(width & WIDTH_MASK) as u32);
        let (start_up, start_down) = if has_starts {
            self.starts(is_from_zero, has_own_time)
        } else {
            (None, None)
        };
        Account {
            base_up,
            base_down,
            base_at: last,
            start_up,
            start_down,
            dip_up: None,
            dip_down: None,
            uploaded,
            downloaded,
            left,
            speed_up,
            speed_down,
            seed_time,
            announces,
            first_announce: Seconds(last.0.wrapping_sub(age)),
            last_announce: last,
            machines: None,
        }
    }

    fn starts(&mut self, is_from_zero: bool, has_own_time: bool) -> (Option<Point>, Option<Point>) {
        let totals = if is_from_zero {
            (Some(0), Some(0))
        } else {
            self.start_totals()
        };
        let mut unix = || i64::from(u32::from_le_bytes(self.take()));
        let at = unix();
        let down_at = if has_own_time { unix() } else { at };
        let start = |total: Option<u64>, at| total.map(|total| Point { total, at });
        (start(totals.0, at), start(totals.1, down_at))
    }

    fn start_totals(&mut self) -> (Option<u64>, Option<u64>) {
        let mut widths = self.widths::<1>();
        let mut total = || {
            let width = widths.next();
            (width != ABSENT).then(|| self.number(width))
        };
        (total(), total())
    }

    pub fn machines(&mut self) -> Machines {
        let [bits] = self.take();
        Machines {
            is_v6: bits & 1 != 0,
            latest: self.machine(),
            other: (bits & 2 != 0).then(|| self.machine()),
        }
    }

    fn machine(&mut self) -> Machine {
        let id = u32::from_le_bytes(self.take());
        let at = self.moment().0.into();
        let mut widths = self.widths::<1>();
        Machine {
            id,
            up: self.number_or(widths.next(), Account::NO_TOTAL),
            down: self.number_or(widths.next(), Account::NO_TOTAL),
            at,
        }
    }

    pub fn owed(&mut self) -> Owed {
        let mut widths = self.widths::<2>();
        let owed = Owed {
            uploaded: self.number(widths.next()),
            downloaded: self.number(widths.next()),
            seed_time: self.number(widths.next()) as u32,
            announces: self.number(widths.next()) as u32,
            ..Owed::default()
        };
        let since = self.moment();
        let seeded_until = self.moment();
        let [flags] = self.take();
        Owed {
            since,
            seeded_until,
            began_up: flags & 1 != 0,
            began_down: flags & 2 != 0,
            left: flags & 4 != 0,
            ..owed
        }
    }

    /// `counted`: the account's downloaded bytes and seed time, for a history without numbers of its own.
    pub fn history(&mut self, user: UserId, flags: u16, counted: (u64, u32)) -> UserHistory {
        let has = |flag| flags & flag != 0;
        let completed_at = has(HAS_SNATCH).then(|| {
            if has(HAS_LONG_SNATCH) {
                i64::from_le_bytes(self.take())
            } else {
                u32::from_le_bytes(self.take()).into()
            }
        });
        let (downloaded, seed_time) = if has(HAS_NUMBERS) {
            let mut widths = self.widths::<1>();
            let downloaded = self.number(widths.next());
            (downloaded, self.number(widths.next()) as u32)
        } else {
            counted
        };
        UserHistory {
            user,
            hnr: has(IS_HNR),
            owes_snatch: has(OWES_SNATCH),
            seed_time,
            downloaded,
            completed_at,
        }
    }
}

fn flag(is_set: bool) -> u64 {
    if is_set { FLAG } else { 0 }
}

// === impl Widths ===

impl Widths {
    pub fn of<const N: usize>(widths: [u64; N]) -> Self {
        let add = |all, &width: &u64| all << 4 | width;
        Self(widths.iter().rev().fold(0, add))
    }

    pub fn next(&mut self) -> u64 {
        let width = self.0 & 15;
        self.0 >>= 4;
        width
    }
}
