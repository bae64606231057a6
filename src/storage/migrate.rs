//! Migrations: the numbered SQL files of `migrations/`, and which of them a database has.

/// One migration that this version knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// The file's name without its extension, such as `0001_init`.
    pub name: &'static str,
    pub applied: bool,
}
