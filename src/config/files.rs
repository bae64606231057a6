//! Files that hold secrets, and whether other users can read them.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

use super::{ConfigSource, Loaded};
use crate::base::file::with_suffix;
use crate::storage;

/// Permissions of users other than owner and group.
const OTHERS: u32 = 0o007;

/// A file with secrets that other users can read or write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// What is wrong, in a sentence.
    pub problem: String,
    /// A command that removes only the permissions of others.
    pub hint: String,
}

/// The suffixes of a database and of the files that SQLite puts beside it.
const SQLITE_SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// The existing files of a config that others can read or write: private keys, the config itself if it
/// has secrets, the databases, the UDP secret, and the log. Files that can't be inspected are left out.
pub fn exposed(loaded: &Loaded) -> Vec<Exposed> {
    files(loaded)
        .into_iter()
        .filter_map(|(file, what)| inspect(&file, what))
        .collect()
}

/// All files with secrets, and what they hold.
fn files(loaded: &Loaded) -> Vec<(PathBuf, &'static str)> {
    let config = &loaded.config;
    let mut files = Vec::new();
    if let (ConfigSource::File(file), true) = (&loaded.source, loaded.file_has_secrets) {
        files.push((file.clone(), "passwords"));
    }
    files.push((config.api.tls.key.clone(), "a private key"));
    let tls = config.http.tls.iter();
    files.extend(tls.map(|tls| (tls.key.clone(), "a private key")));
    let database = storage::file_of(&config.storage.driver, &config.storage.url);
    let spill = config.journal.spill.as_path();
    for database in database.as_deref().into_iter().chain([spill]) {
        for suffix in SQLITE_SUFFIXES {
            let what = if database == spill {
                "users' records"
            } else {
                "passkeys"
            };
            files.push((with_suffix(database, suffix), what));
        }
    }
    files.push((config.udp.secret.clone(), "the secret of UDP"));
    files.push((config.log.file.clone(), "addresses of users"));
    files
}

fn inspect(file: &Path, what: &str) -> Option<Exposed> {
    let found = fs::metadata(file).ok().filter(Metadata::is_file)?;
    let shown = file.display();
    let mode = found.mode() & 0o777;
    let (own, group) = (geteuid().as_raw(), getegid().as_raw());
    if mode & OTHERS != 0 {
        // Mika may read the file through its group, so the group's permissions stay.
        let is_own = found.uid() == own && found.gid() == group;
        let command = if is_own { "600" } else { "o=" };
        return Some(Exposed {
            problem: format!(
                "{shown} holds {what}, and everybody may {} it (mode {mode:04o})",
                rights(mode)
            ),
            hint: format!("chmod {command} {}", quoted(file)),
        });
    }
    // Root may read it anyway, and can't know which user Mika will run as.
    let is_foreign = own != 0 && found.uid() != 0 && found.uid() != own;
    is_foreign.then(|| Exposed {
        problem: format!(
            "{shown} holds {what}, and belongs to another user ({})",
            found.uid()
        ),
        hint: format!("chown {own} {} (as root)", quoted(file)),
    })
}

/// What a mode permits users other than owner and group.
fn rights(mode: u32) -> &'static str {
    match mode & OTHERS {
        4 | 5 => "read",
        2 | 3 => "write",
        6 | 7 => "read and write",
        _ => "execute",
    }
}

/// A path, quoted for a shell.
fn quoted(file: &Path) -> String {
    let text = file.to_string_lossy();
    let is_plain = |char: char| char.is_alphanumeric() || "/._-+:@%".contains(char);
    if text.chars().all(is_plain) && !text.starts_with('-') {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_that_others_can_read_are_reported_with_a_command() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("the key");
        fs::write(&file, "").unwrap();
        let at = |mode| {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            inspect(&file, "a private key")
        };
        for (mode, rights) in [
            (0o644, "may read it"),
            (0o604, "may read it"),
            (0o602, "may write it"),
            (0o666, "may read and write it"),
            (0o601, "may execute it"),
        ] {
            let Exposed { problem, hint } = at(mode).expect("exposed");
            assert!(problem.contains("holds a private key"), "{problem}");
            assert!(problem.contains(rights), "{problem}");
            assert_eq!(hint, format!("chmod 600 '{}'", file.display()));
        }
        for mode in [0o600, 0o640, 0o660, 0o400] {
            assert_eq!(at(mode), None, "{mode:o}");
        }
        assert_eq!(inspect(&folder.path().join("absent"), "nothing"), None);
        assert_eq!(inspect(folder.path(), "nothing"), None);
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("/etc/mika/key.pem")), "/etc/mika/key.pem");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(Path::new("-rf")), "'-rf'");
    }
}
