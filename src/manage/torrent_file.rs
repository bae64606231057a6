//! .torrent files: which info hashes and which name a file stands for (BEP 3, BEP 52).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::control::TEXT_MAX;
use crate::ids::InfoHash;
use crate::storage::NewTorrent;
use crate::wire::bencode::{self, Node};

/// The largest file that is read. A torrent of a million pieces has 20 MiB.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// How deep folders are searched.
const FOLDER_DEPTH_MAX: usize = 64;

/// What a .torrent file says.
#[derive(Debug)]
pub struct TorrentFile {
    pub torrent: NewTorrent,
    /// Whether clients are told to use no other source of peers (BEP 27).
    pub private: bool,
}

/// The .torrent files among and below some paths, in the order of their names.
pub struct Walk {
    /// Still to be looked at, the next one last, with the depth of each.
    pending: Vec<(PathBuf, usize)>,
    /// Folders by device and inode: links may lead in circles.
    seen: HashSet<(u64, u64)>,
}

/// Reads the file at `path`; an error says why it is no torrent.
pub fn read(path: &Path) -> Result<TorrentFile, String> {
    let too_large = || format!("larger than {} MiB", FILE_BYTES_MAX >> 20);
    // Opening a pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(too_large());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large());
    }
    parse(&bytes)
}

/// Reads the contents of a .torrent file.
pub fn parse(bytes: &[u8]) -> Result<TorrentFile, String> {
    let root =
        bencode::parse_lenient(bytes).map_err(|error| format!("not a .torrent file: {error}"))?;
    let info = root
        .get(b"info")
        .filter(|info| info.is_dict())
        .ok_or("not a .torrent file: it has no info dictionary")?;
    let (info_hash, info_hash_v2) = hashes(info, &bytes[info.span.clone()])?;
    let torrent = NewTorrent {
        id: None,
        info_hash,
        info_hash_v2,
        name: name(info)?,
    };
    let private = info.get(b"private").and_then(Node::as_int) == Some(1);
    Ok(TorrentFile { torrent, private })
}

/// The hashes are over the bytes as they stand in the file, whatever their order (BEP 3).
fn hashes(info: &Node, raw: &[u8]) -> Result<(InfoHash, Option<InfoHash>), String> {
    let has_v1 = info
        .get(b"pieces")
        .and_then(Node::as_bytes)
        .is_some_and(|pieces| pieces.len() % 20 == 0);
    let has_v2 = match info.get(b"meta version").map(Node::as_int) {
        None | Some(Some(1)) => false,
        Some(Some(2)) if info.get(b"file tree").is_some_and(Node::is_dict) => true,
        Some(Some(2)) => return Err("a v2 torrent without a file tree".into()),
        Some(_) => return Err("of a version that this program does not know".into()),
    };
    let v1 = || InfoHash(Sha1::digest(raw).into());
    let v2 = || {
        let digest: [u8; 32] = Sha256::digest(raw).into();
        let (first, _) = digest.split_first_chunk().expect("32 is more than 20");
        InfoHash(*first)
    };
    match (has_v1, has_v2) {
        (true, true) => Ok((v1(), Some(v2()))),
        (true, false) => Ok((v1(), None)),
        (false, true) => Ok((v2(), None)),
        (false, false) => Err("its info dictionary has no pieces".into()),
    }
}

/// The name, cut to what storage holds: clients identify a torrent by its hash only.
fn name(info: &Node) -> Result<String, String> {
    let name = [&b"name.utf-8"[..], b"name"]
        .into_iter()
        .filter_map(|key| info.get(key)?.as_bytes())
        .find(|name| !name.is_empty())
        .ok_or("its info dictionary has no name")?;
    let name: Cow<str> = String::from_utf8_lossy(name);
    Ok(name.chars().take(TEXT_MAX).collect())
}

// === impl Walk ===

impl Walk {
    pub fn new(paths: &[PathBuf]) -> Self {
        Self {
            pending: paths.iter().rev().map(|path| (path.clone(), 0)).collect(),
            seen: HashSet::new(),
        }
    }

    /// Puts the .torrent files and folders of a folder in line, unless it was there before.
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
    /// A file to read, or a path that can't be searched and why.
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

    const PIECES: &str = "6:pieces20:aaaaaaaaaaaaaaaaaaaa";

    fn read_info(info: &str) -> Result<TorrentFile, String> {
        parse(format!("d4:info{info}e").as_bytes())
    }

    #[test]
    fn the_hash_is_over_the_bytes_of_the_info_dictionary() {
        let sorted = format!("d6:lengthi5e4:name1:a12:piece lengthi16384e{PIECES}e");
        let file = read_info(&sorted).unwrap();
        assert_eq!(
            file.torrent.info_hash,
            InfoHash(Sha1::digest(&sorted).into())
        );
        assert_eq!(file.torrent.info_hash_v2, None);
        assert_eq!(file.torrent.name, "a");
        assert!(!file.private);

        let unsorted = format!("d{PIECES}7:privatei1e4:name1:a6:lengthi5ee");
        let file = parse(format!("d4:info{unsorted}8:announce1:xe\n").as_bytes()).unwrap();
        assert_eq!(
            file.torrent.info_hash,
            InfoHash(Sha1::digest(&unsorted).into())
        );
        assert!(file.private);
    }

    #[test]
    fn a_v2_torrent_has_the_cut_sha256_and_a_hybrid_has_both() {
        let v2_hash = |info: &str| InfoHash::from_slice(&Sha256::digest(info)[..20]).unwrap();
        let v2 = "d9:file treede12:meta versioni2e4:name1:ae";
        let file = read_info(v2).unwrap();
        assert_eq!(
            (file.torrent.info_hash, file.torrent.info_hash_v2),
            (v2_hash(v2), None)
        );

        let hybrid = format!("d9:file treede12:meta versioni2e4:name1:a{PIECES}e");
        let file = read_info(&hybrid).unwrap();
        assert_eq!(
            file.torrent.info_hash,
            InfoHash(Sha1::digest(&hybrid).into())
        );
        assert_eq!(file.torrent.info_hash_v2, Some(v2_hash(&hybrid)));
    }

    #[test]
    fn names_are_the_utf8_one_and_cut() {
        let file = read_info(&format!("d4:name1:a10:name.utf-82:é{PIECES}e")).unwrap();
        assert_eq!(file.torrent.name, "é");
        let long = "é".repeat(300);
        let file = read_info(&format!("d4:name600:{long}{PIECES}e")).unwrap();
        assert_eq!(file.torrent.name, "é".repeat(255));
    }

    #[test]
    fn what_is_no_torrent_says_why() {
        for (info, reason) in [
            ("i1e", "no info dictionary"),
            ("d4:name1:ae", "no pieces"),
            ("d4:name1:a6:pieces3:abce", "no pieces"),
            ("d4:name1:a12:meta versioni2ee", "file tree"),
            ("d4:name1:a12:meta versioni3ee", "version"),
            (&format!("d{PIECES}e"), "no name"),
            ("d4:name", "not a .torrent file"),
        ] {
            let error = read_info(info).unwrap_err();
            assert!(error.contains(reason), "{info}: {error}");
        }
        assert!(parse(b"").is_err());
        assert!(parse(b"<html>").is_err());
    }

    #[test]
    fn a_walk_finds_files_in_order_and_no_circle_catches_it() {
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
