//! The one way to change the registry: validated, then written to storage.
//!
//! Running nodes with the `memory` cache follow storage's own feed (`Storage::feed`), so a
//! change made here reaches them without another word, as plain SQL does.

use std::sync::Arc;

use crate::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::registry::Client;
use crate::storage::{
    NewTorrent, NewUser, Storage, StorageError, StoredTorrent, TorrentPatch, UserPatch,
};

/// The longest user name, torrent name, client name and reason, in characters.
pub const TEXT_MAX: usize = 255;

/// A whitelist prefix is the beginning of a peer id, which has 20 bytes.
pub const PREFIX_MAX: usize = 20;

/// Why a change of the registry was not made.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The value can't be accepted; says what is expected.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Changes users, torrents and the whitelist.
#[derive(Clone)]
pub struct Control {
    storage: Arc<dyn Storage>,
}

/// A passkey of 32 letters and digits from the operating system's random source.
pub fn random_passkey() -> Result<Passkey, ControlError> {
    const LENGTH: usize = 32;
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // Bytes from here up would make the first letters likelier than the last.
    const UNBIASED: u8 = 252;

    let mut text = String::with_capacity(LENGTH);
    let mut random = [0; 2 * LENGTH];
    while text.len() < LENGTH {
        getrandom::fill(&mut random)
            .map_err(|error| StorageError::Away(format!("no random bytes: {error}")))?;
        let usable = random.iter().filter(|&&byte| byte < UNBIASED);
        let letters = usable.map(|byte| char::from(ALPHABET[usize::from(byte % 36)]));
        text.extend(letters.take(LENGTH - text.len()));
    }
    text.parse()
        .map_err(|error| ControlError::Invalid(format!("{error}")))
}

/// Whether `client` may stand in the whitelist: a prefix as clients send it, a name as people read it.
pub fn validate_client(client: &Client) -> Result<(), ControlError> {
    let prefix = client.prefix.as_str();
    let printable = prefix.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if prefix.is_empty() || prefix.len() > PREFIX_MAX || !printable || prefix.trim() != prefix {
        return Err(ControlError::Invalid(format!(
            "the prefix {prefix:?} must have 1 to {PREFIX_MAX} printable ASCII characters, such as -TR3000- or -qB"
        )));
    }
    if prefix.starts_with('#') {
        // Exported lists use it for comments.
        return Err(ControlError::Invalid(format!(
            "the prefix {prefix:?} must not begin with '#'"
        )));
    }
    validate_text("client name", &client.name)
}

// === impl Control ===

impl Control {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// Adds a user, with a random passkey if none is given.
    pub async fn add_user(
        &self,
        username: &str,
        passkey: Option<Passkey>,
    ) -> Result<(UserId, Passkey), ControlError> {
        validate_text("user name", username)?;
        if !self.storage.users_named(username).await?.is_empty() {
            return Err(StorageError::Duplicate(format!("user {username:?}")).into());
        }
        let passkey = passkey.map_or_else(random_passkey, Ok)?;
        let user = NewUser {
            username: username.into(),
            passkey: passkey.clone(),
        };
        Ok((self.storage.add_user(&user).await?, passkey))
    }

    pub async fn set_user_enabled(&self, id: UserId, enabled: bool) -> Result<(), ControlError> {
        let patch = UserPatch {
            enabled: Some(enabled),
            ..UserPatch::default()
        };
        Ok(self.storage.update_user(id, &patch).await?)
    }

    /// Gives a user a new random passkey; the old one is refused from then on.
    pub async fn new_passkey(&self, id: UserId) -> Result<Passkey, ControlError> {
        let passkey = random_passkey()?;
        let patch = UserPatch {
            passkey: Some(passkey.clone()),
            ..UserPatch::default()
        };
        self.storage.update_user(id, &patch).await?;
        Ok(passkey)
    }

    /// Adds torrents in one transaction; for each, its id, or none if it is known already.
    pub async fn add_torrents(
        &self,
        torrents: &[NewTorrent],
    ) -> Result<Vec<Option<TorrentId>>, ControlError> {
        for torrent in torrents {
            validate_length("torrent name", &torrent.name)?;
        }
        Ok(self.storage.add_torrents(torrents).await?)
    }

    /// Disables a torrent, with the reason that clients are given, or enables it again.
    pub async fn set_torrent_enabled(
        &self,
        info_hash: InfoHash,
        enabled: bool,
        reason: Option<String>,
    ) -> Result<StoredTorrent, ControlError> {
        if let Some(reason) = &reason {
            validate_text("reason", reason)?;
        }
        let mut stored = self
            .storage
            .torrent(info_hash)
            .await?
            .ok_or_else(|| StorageError::NotFound(format!("torrent {info_hash}")))?;
        let patch = TorrentPatch {
            enabled: Some(enabled),
            reason: Some(reason.clone()),
            ..TorrentPatch::default()
        };
        self.storage
            .update_torrent(stored.torrent.id, &patch)
            .await?;
        stored.torrent.enabled = enabled;
        stored.torrent.reason = reason;
        Ok(stored)
    }

    /// Allows clients, or renames those whose prefix is there; all of them or, if one is invalid, none.
    pub async fn add_clients(&self, clients: &[Client]) -> Result<(), ControlError> {
        clients.iter().try_for_each(validate_client)?;
        Ok(self.storage.add_clients(clients).await?)
    }

    pub async fn remove_client(&self, prefix: &str) -> Result<(), ControlError> {
        Ok(self.storage.remove_client(prefix).await?)
    }
}

/// 1 to [`TEXT_MAX`] characters, none of them a control character.
fn validate_text(what: &str, text: &str) -> Result<(), ControlError> {
    validate_length(what, text)?;
    if text.chars().any(char::is_control) {
        return Err(ControlError::Invalid(format!(
            "the {what} must not have control characters"
        )));
    }
    Ok(())
}

fn validate_length(what: &str, text: &str) -> Result<(), ControlError> {
    if text.is_empty() || text.chars().nth(TEXT_MAX).is_some() {
        return Err(ControlError::Invalid(format!(
            "the {what} must have 1 to {TEXT_MAX} characters"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_passkeys_are_lower_case_letters_and_digits_and_differ() {
        let first = random_passkey().unwrap();
        assert_eq!(first.expose().len(), 32);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        assert!(first.expose().bytes().all(plain));
        assert_ne!(first, random_passkey().unwrap());
    }

    #[test]
    fn every_symbol_of_a_passkey_is_equally_likely() {
        let mut counts = [0_u32; 128];
        for _ in 0..2000 {
            for byte in random_passkey().unwrap().expose().bytes() {
                counts[usize::from(byte)] += 1;
            }
        }
        // 64,000 draws of 36 symbols: 1778 each, 6 sigma are 250.
        let drawn: Vec<u32> = counts.into_iter().filter(|&count| count > 0).collect();
        assert_eq!(drawn.len(), 36);
        assert!(
            drawn.iter().all(|&count| count.abs_diff(1778) < 250),
            "{drawn:?}"
        );
    }

    #[test]
    fn a_prefix_is_what_a_client_may_send() {
        let valid = |prefix: &str, name: &str| {
            let client = Client {
                prefix: prefix.into(),
                name: name.into(),
            };
            validate_client(&client).is_ok()
        };
        for good in [
            "-qB",
            "-TR3000-",
            "M4-3-6--",
            "a",
            "12345678901234567890",
            "-a b-",
        ] {
            assert!(valid(good, "name"), "{good}");
        }
        for bad in [
            "",
            "123456789012345678901",
            " -qB",
            "-qB ",
            "-ü",
            "-\t",
            "#-qB",
        ] {
            assert!(!valid(bad, "name"), "{bad}");
        }
        assert!(!valid("-qB", ""));
        assert!(!valid("-qB", "a\nb"));
        assert!(valid("-qB", &"ü".repeat(255)));
        assert!(!valid("-qB", &"ü".repeat(256)));
    }
}
