//! Expiry of the TLS listeners' certificates.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// When the certificate of each TLS listener expires.
#[derive(Default)]
pub struct Certificates(Mutex<BTreeMap<&'static str, i64>>);

impl Certificates {
    /// Sets the expiry (Unix time) of a listener, by its name in the config (`http`, `api`); none
    /// without TLS.
    pub fn set(&self, listener: &'static str, expires_at: Option<i64>) {
        let mut all = self.0.lock();
        match expires_at {
            Some(expires_at) => all.insert(listener, expires_at),
            None => all.remove(listener),
        };
    }

    /// Each listener with TLS and the expiry of its certificate, in Unix time.
    pub fn all(&self) -> Vec<(&'static str, i64)> {
        let all = self.0.lock();
        all.iter().map(|(name, at)| (*name, *at)).collect()
    }
}
