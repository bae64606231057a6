//! A wrong wall clock for one program: a small preloaded library.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::Mika;

const LIBRARY: &str = "clock.so";

/// What `cc` makes of `clock.c`, once for all tests of a process.
fn library() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/clock.c");
        let made = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(folder.path().join(LIBRARY))
            .arg(source)
            .status()
            .expect("cc starts");
        assert!(made.success(), "{source} can't be compiled");
        folder
    });
    folder.path().join(LIBRARY)
}

// === impl Mika ===

impl Mika {
    /// Has the daemon, and its `mika-manage`, see the wall clock this many seconds ahead; at once
    /// if it runs and its clock was shifted when it was started.
    pub fn shift_clock(&mut self, seconds: i64) {
        let path = self.path("clock");
        // In place, because a running program has it in its memory.
        let is_new = !path.exists();
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0))
            .expect("the shift can be written");
        if is_new {
            self.set_variable("CLOCK_SHIFT", path.to_str().expect("a path of text"));
            self.set_variable("LD_PRELOAD", library().to_str().expect("a path of text"));
        }
    }
}
