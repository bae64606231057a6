//! Users and their passkeys.

use crate::base::ids::{Passkey, UserId};

/// A user as the tracker needs to know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub passkey: Passkey,
    pub username: String,
    /// A disabled user is refused.
    pub enabled: bool,
    /// Without it, announces with something left to download are refused.
    pub can_leech: bool,
}
