//! Finds .torrent files among paths and in folders.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The deepest level of folders searched.
const FOLDER_DEPTH_MAX: usize = 64;

/// Iterates over the .torrent files among and below paths, in the order of their names.
pub struct Walk {
    /// A stack of paths to visit, with their depths.
    pending: Vec<(PathBuf, usize)>,
    /// Folders visited, by device and inode: links may form cycles.
    seen: HashSet<(u64, u64)>,
}

impl Walk {
    pub fn new(paths: &[PathBuf]) -> Self {
        Self {
            pending: paths.iter().rev().map(|path| (path.clone(), 0)).collect(),
            seen: HashSet::new(),
        }
    }

    /// Pushes the .torrent files and folders of a folder, unless it was visited before.
    fn enter(&mut self, folder: &Path, depth: usize) -> Result<(), String> {
        let metadata = fs::metadata(folder).map_err(|error| error.to_string())?;
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        if depth > FOLDER_DEPTH_MAX {
            return Err(format!("more than {FOLDER_DEPTH_MAX} folders deep"));
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() || has_extension(&path) {
                found.push((path, depth + 1));
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        self.pending.append(&mut found);
        Ok(())
    }
}

impl Iterator for Walk {
    /// A file to read, or a path that can't be searched, with the reason.
    type Item = Result<PathBuf, (PathBuf, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((path, depth)) = self.pending.pop() {
            if !path.is_dir() {
                return Some(Ok(path));
            }
            if let Err(reason) = self.enter(&path, depth) {
                return Some(Err((path, reason)));
            }
        }
        None
    }
}

fn has_extension(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("torrent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_order_despite_cycles() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        for name in ["a.torrent", "b/x.TORRENT", "b/c/y.torrent", "b/note.txt"] {
            fs::write(root.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("b/c/up")).unwrap();
        let mut found = Walk::new(&[root.into(), root.join("b/note.txt")]).map(Result::unwrap);
        for name in ["a.torrent", "b/c/y.torrent", "b/x.TORRENT", "b/note.txt"] {
            assert_eq!(found.next(), Some(root.join(name)));
        }
        assert_eq!(found.next(), None);
    }
}
