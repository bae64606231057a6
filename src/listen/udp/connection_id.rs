//! Connection ids: proof that a client's address is not forged, without state (rule U3).

use std::fs;
use std::hash::Hasher;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use siphasher::sip::SipHasher24;

use crate::base::file::PendingFile;

/// The key of connection ids: 256 bits, shared by all listeners and processes of a host.
#[derive(Clone)]
pub struct ConnectionSecret([u8; 32]);

/// Issues and verifies connection ids.
///
/// An id holds the low 8 bits of the time slot that it was issued in, and 56 bits of a keyed hash
/// over slot and address. The port is not included: clients use one id from several.
#[derive(Clone)]
pub struct ConnectionIds {
    /// The hash of the first half of the secret, keyed by the other.
    hash: SipHasher24,
    slot_seconds: i64,
}

/// How many slots after its own an id is accepted.
const AGE_MAX: u8 = 8;

// === impl ConnectionSecret ===

impl ConnectionSecret {
    /// A secret for this process alone.
    pub fn random() -> io::Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        Ok(Self(secret))
    }

    /// Reads the secret from a file, or creates the file, readable by its owner only. Processes that
    /// create it at the same time all get the first one's secret.
    ///
    /// # Errors
    /// The file can be neither read nor created, or is not a secret.
    pub fn load(path: &Path) -> io::Result<Self> {
        match Self::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            other => other,
        }
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut secret = Vec::new();
        fs::File::open(path)?.take(33).read_to_end(&mut secret)?;
        secret.try_into().map(Self).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "expected exactly 32 bytes in it",
            )
        })
    }

    /// Writes a temporary file and links it to `path`, so that no process ever reads half of it.
    fn create(path: &Path) -> io::Result<Self> {
        let secret = Self::random()?;
        let pending = PendingFile::write(path, &secret.0, 0o600);
        let written = pending.and_then(|pending| pending.link(path));
        match written {
            Ok(()) => Ok(secret),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            Err(error) => Err(error),
        }
    }
}

// === impl ConnectionIds ===

impl ConnectionIds {
    /// Ids that are accepted for at least `lifetime` seconds.
    pub fn new(secret: &ConnectionSecret, lifetime: u32) -> Self {
        let (key, prefix) = secret.0.split_at(16);
        let mut hash = SipHasher24::new_with_key(key.first_chunk().unwrap_or(&[0; 16]));
        hash.write(prefix);
        Self {
            hash,
            slot_seconds: i64::from(lifetime / u32::from(AGE_MAX)) + 1,
        }
    }

    /// The id for that address at that Unix time.
    pub fn issue(&self, ip: IpAddr, unix: i64) -> u64 {
        self.of_slot(ip, unix / self.slot_seconds)
    }

    /// Whether the id was issued for that address, and has not expired (rule U3). One of the next slot is
    /// valid, too: the clocks of other processes may be a little ahead.
    pub fn verify(&self, id: u64, ip: IpAddr, unix: i64) -> bool {
        let now = unix / self.slot_seconds;
        let age = (now as u8).wrapping_sub((id >> 56) as u8);
        let slot = match age {
            0..=AGE_MAX => now - i64::from(age),
            u8::MAX => now + 1,
            _ => return false,
        };
        // A comparison of two words takes constant time.
        self.of_slot(ip, slot) == id
    }

    fn of_slot(&self, ip: IpAddr, slot: i64) -> u64 {
        let mut hash = self.hash;
        let mut bytes = [0; 25];
        bytes[..8].copy_from_slice(&slot.to_be_bytes());
        let length = match ip {
            IpAddr::V4(ip) => {
                bytes[8] = 4;
                bytes[9..13].copy_from_slice(&ip.octets());
                13
            }
            IpAddr::V6(ip) => {
                bytes[8] = 6;
                bytes[9..].copy_from_slice(&ip.octets());
                25
            }
        };
        hash.write(&bytes[..length]);
        (slot as u64) << 56 | hash.finish() >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn ids(lifetime: u32) -> ConnectionIds {
        ConnectionIds::new(&ConnectionSecret([7; 32]), lifetime)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_id_is_good_for_its_lifetime_and_its_address() {
        let client = ip("192.0.2.1");
        for lifetime in [16, 120, 3600] {
            let ids = ids(lifetime);
            let slot = i64::from(lifetime / 8 + 1);
            for begin in NOW..NOW + slot {
                let id = ids.issue(client, begin);
                assert!(ids.verify(id, client, begin));
                assert!(ids.verify(id, client, begin + i64::from(lifetime)));
                assert!(!ids.verify(id, client, begin + 9 * slot));
                assert!(ids.verify(id, client, begin - 1), "a clock a little behind");
                assert!(!ids.verify(id, client, begin - 2 * slot));
                // The 8 bits of the slot come round again.
                assert!(!ids.verify(id, client, begin + 256 * slot));
            }
        }
        let id = ids(120).issue(client, NOW);
        assert!(!ids(120).verify(id, client, NOW + 200));
        assert!(!ids(120).verify(id, ip("192.0.2.2"), NOW));
        assert!(!ids(120).verify(id, ip("::ffff:192.0.2.1"), NOW));
        assert!(!ids(120).verify(id ^ 1, client, NOW));
        assert_ne!(id, ids(120).issue(client, NOW + 32));
        assert_ne!(id, crate::wire::udp::PROTOCOL);
    }

    #[test]
    fn other_secrets_accept_nothing_in_either_half() {
        let client = ip("2001:db8::1");
        let id = ids(120).issue(client, NOW);
        for half in [0, 31] {
            let mut secret = ConnectionSecret([7; 32]);
            secret.0[half] ^= 1;
            assert!(!ConnectionIds::new(&secret, 120).verify(id, client, NOW));
        }
        assert!(ids(120).verify(id, client, NOW));
    }

    #[test]
    fn a_secret_is_created_once_and_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let made: Vec<_> = std::thread::scope(|scope| {
            let make = || ConnectionSecret::load(&path).unwrap().0;
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(made.iter().all(|secret| *secret == made[0]));
        assert_eq!(ConnectionSecret::load(&path).unwrap().0, made[0]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(&path, "too short").unwrap();
        assert!(ConnectionSecret::load(&path).is_err());
        assert!(ConnectionSecret::load(&folder.path().join("none/secret")).is_err());
    }
}
