//! Whole seconds in the config: `"30m"` as a number of seconds, for `#[serde(with = "…")]`.

use std::time::Duration;

use serde::{Deserializer, Serializer};

/// Drops fractions of a second. A duration that does not fit into 32 bits becomes the longest that does.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let duration: Duration = humantime_serde::deserialize(deserializer)?;
    Ok(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX))
}

pub fn serialize<S: Serializer>(seconds: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    humantime_serde::serialize(&Duration::from_secs((*seconds).into()), serializer)
}
