//! Disks of limited size, in memory, which can be full.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The file that fills a disk.
const FILLER: &str = "filler";

/// Disks that are mounted in a folder until they go out of scope.
pub struct Disks {
    folder: TempDir,
    mounted: Vec<PathBuf>,
}

/// Fills a disk to its last byte.
pub fn fill(disk: &Path) {
    let mut filler = File::create(disk.join(FILLER)).expect("a file on the disk");
    for size in [1 << 20, 4096, 1] {
        let block = vec![0; size];
        loop {
            match filler.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{}: {error}", disk.display()),
            }
        }
    }
}

/// Undoes what [`fill`] did.
pub fn clear(disk: &Path) {
    fs::remove_file(disk.join(FILLER)).expect("the disk was filled");
}

// === impl Disks ===

impl Disks {
    pub fn new(name: &str) -> Self {
        let prefix = format!("{name}-");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
        let folder = folder.expect("a temporary folder");
        // Servers run as accounts of their own.
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open).expect("its owner may open it");
        Self {
            folder,
            mounted: Vec::new(),
        }
    }

    /// Mounts another disk; its path.
    pub fn mount(&mut self, name: &str, megabytes: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir(&path).expect("a name that no other disk has");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), name])
            .arg(&path)
            .status()
            .expect("mount starts");
        assert!(mounted.success(), "tests that mount disks run as root");
        self.mounted.push(path.clone());
        path
    }

    /// Copies what the disks have to a folder that stays; its path.
    pub fn keep(&self) -> PathBuf {
        let copy = self.folder.path().with_extension("kept");
        // It may complain of files that running programs delete meanwhile.
        Command::new("cp")
            .args(["--archive", "--sparse=always"])
            .args([self.folder.path(), &copy])
            .status()
            .expect("cp starts");
        copy
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for path in &self.mounted {
            // Lazily: a program that was killed may not be gone yet.
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}
