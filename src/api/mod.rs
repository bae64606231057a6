//! What the web application and those who run the tracker are told.

pub mod metrics;
