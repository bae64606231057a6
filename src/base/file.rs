//! Files that appear whole or not at all, and paths beside a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A new file next to its target, to be renamed or linked to it. Dropping this removes what is left under
/// the temporary name.
pub struct PendingFile {
    path: PathBuf,
    file: File,
}

/// The path of a file beside `path`, whose name is that with a suffix.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The folder that a file is in.
pub fn folder_of(file: &Path) -> &Path {
    let folder = file.parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

impl PendingFile {
    /// Writes a file for `target` with these permissions. It is not synced.
    pub fn write(target: &Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let path = with_suffix(target, &format!(".{:016x}.new", fastrand::u64(..)));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)?;
        let mut pending = Self { path, file };
        pending.file.write_all(bytes)?;
        Ok(pending)
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Replaces the target.
    pub fn rename(&self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)
    }

    /// Creates the target; fails if it exists.
    pub fn link(&self, target: &Path) -> io::Result<()> {
        fs::hard_link(&self.path, target)
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        // Gone already if it was renamed.
        let _ = fs::remove_file(&self.path);
    }
}
