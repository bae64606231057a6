//! The API: what a web application and those who run the tracker ask and change over HTTPS.

pub mod page;
