//! Files that hold secrets, and whether others than Mika's user can read them.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

use super::{Loaded, Source};
use crate::storage;

/// The rights of those who are neither owner nor group.
const OTHERS: u32 = 0o007;

/// A file with secrets that somebody else can read or write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// What is wrong, in a sentence.
    pub problem: String,
    /// A command that takes the rights of others away, and nobody else's.
    pub hint: String,
}

/// What SQLite puts beside a database.
const SQLITE_SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// The files of a config that are there and that others can read or write: private keys, the config
/// itself if it has secrets, the databases, the secret of UDP, and the log. Of those that can't be looked
/// at nothing is said.
pub fn exposed(loaded: &Loaded) -> Vec<Exposed> {
    let files = files(loaded).into_iter();
    files
        .filter_map(|(file, what)| judge(&file, what))
        .collect()
}

/// What holds secrets, and which.
fn files(loaded: &Loaded) -> Vec<(PathBuf, &'static str)> {
    let config = &loaded.config;
    let mut files = Vec::new();
    if let (Source::File(file), true) = (&loaded.source, loaded.file_has_secrets) {
        files.push((file.clone(), "passwords"));
    }
    files.push((config.api.tls.key.clone(), "a private key"));
    files.extend(
        config
            .http
            .tls
            .iter()
            .map(|tls| (tls.key.clone(), "a private key")),
    );
    let database = storage::file_of(&config.storage.driver, &config.storage.url);
    let spill = config.journal.spill.as_path();
    for database in database.as_deref().into_iter().chain([spill]) {
        for suffix in SQLITE_SUFFIXES {
            let mut file = database.as_os_str().to_owned();
            file.push(suffix);
            let what = if database == spill {
                "users' records"
            } else {
                "passkeys"
            };
            files.push((file.into(), what));
        }
    }
    files.push((config.udp.secret.clone(), "the secret of UDP"));
    files.push((config.log.file.clone(), "addresses of users"));
    files
}

fn judge(file: &Path, what: &str) -> Option<Exposed> {
    let found = fs::metadata(file).ok().filter(Metadata::is_file)?;
    let shown = file.display();
    let mode = found.mode() & 0o777;
    let (own, group) = (geteuid().as_raw(), getegid().as_raw());
    if mode & OTHERS != 0 {
        // The group may be the one that lets Mika read it, and stays as it is.
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
    // Root may read it anyhow; who else Mika runs as, root can't tell.
    let is_foreign = own != 0 && found.uid() != 0 && found.uid() != own;
    is_foreign.then(|| Exposed {
        problem: format!(
            "{shown} holds {what}, and belongs to another user ({})",
            found.uid()
        ),
        hint: format!("chown {own} {} (as root)", quoted(file)),
    })
}

/// What a mode lets those do who are neither owner nor group.
fn rights(mode: u32) -> &'static str {
    match mode & OTHERS {
        4 | 5 => "read",
        2 | 3 => "write",
        6 | 7 => "read and write",
        _ => "execute",
    }
}

/// A path as a shell takes it.
fn quoted(file: &Path) -> String {
    let text = file.to_string_lossy();
    let is_plain = |it: char| it.is_alphanumeric() || "/._-+:@%".contains(it);
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
    fn what_others_can_read_is_named_with_a_command_that_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("the key");
        fs::write(&file, "").unwrap();
        let at = |mode| {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            judge(&file, "a private key")
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
        assert_eq!(judge(&folder.path().join("absent"), "nothing"), None);
        assert_eq!(judge(folder.path(), "nothing"), None);
    }

    #[test]
    fn paths_are_written_as_a_shell_takes_them() {
        assert_eq!(quoted(Path::new("/etc/mika/key.pem")), "/etc/mika/key.pem");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(Path::new("-rf")), "'-rf'");
    }
}
