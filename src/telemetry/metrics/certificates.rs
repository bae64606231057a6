//! Until when the certificates of TLS listeners are valid.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The moment at which the certificate of each TLS listener expires.
#[derive(Default)]
pub struct Certificates(Mutex<BTreeMap<&'static str, i64>>);

// === impl Certificates ===

impl Certificates {
    /// A listener, by its name in the config (`http`, `api`), serves with a certificate that expires
    /// at that Unix time; none if it serves without.
    pub fn set(&self, listener: &'static str, expires_at: Option<i64>) {
        let mut all = self.0.lock();
        match expires_at {
            Some(expires_at) => all.insert(listener, expires_at),
            None => all.remove(listener),
        };
    }

    /// Each listener with TLS, and when its certificate expires, in Unix time.
    pub fn all(&self) -> Vec<(&'static str, i64)> {
        let all = self.0.lock();
        all.iter().map(|(name, at)| (*name, *at)).collect()
    }
}
