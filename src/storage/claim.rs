//! The right to serve from a storage.

use std::any::Any;
use std::fmt;

use tokio::sync::watch;

/// The right to serve from a storage, held until it is dropped.
#[must_use = "the claim ends when this is dropped"]
#[derive(Default)]
pub struct Claim {
    _guard: Option<Box<dyn Any + Send + Sync>>,
    /// The reason once the claim is lost; none if it can't be lost.
    lost: Option<watch::Receiver<Option<String>>>,
}

impl Claim {
    /// A claim that is held while `guard` lives.
    pub fn held_by(guard: impl Any + Send + Sync) -> Self {
        Self {
            _guard: Some(Box::new(guard)),
            lost: None,
        }
    }

    /// Makes the claim one that may be lost to another process; `reason` publishes how.
    pub fn until(self, reason: watch::Receiver<Option<String>>) -> Self {
        Self {
            lost: Some(reason),
            ..self
        }
    }

    /// Resolves with the reason when another process has claimed the storage.
    pub fn lost(&self) -> impl Future<Output = String> + Send + use<> {
        let lost = self.lost.clone();
        async move {
            if let Some(mut lost) = lost
                && let Ok(reason) = lost.wait_for(Option::is_some).await
                && let Some(reason) = &*reason
            {
                return reason.clone();
            }
            std::future::pending().await
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim")
    }
}
