//! .torrent files: info hashes and name (BEP 3, BEP 47, BEP 52).
//!
//! What libtorrent 2.0 loads is accepted, with the same info hashes; what it refuses is refused,
//! because hardly any client could use it. Unlike libtorrent, this limits the
//! size of a file, and ignores everything outside the info dictionary.

mod layout;
mod magnet;
mod name;
mod walk;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::base::ids::InfoHash;
use crate::storage::NewTorrent;
use crate::wire::bencode::{self, Node};

pub use self::walk::Walk;

/// The largest file that is read. A torrent of two million pieces has 40 MiB.
const FILE_BYTES_MAX: u64 = 100 << 20;

/// The contents of a .torrent file.
#[derive(Debug)]
pub struct TorrentFile {
    pub torrent: NewTorrent,
    /// Whether clients must use no other source of peers (BEP 27).
    pub private: bool,
}

/// Reads the file at `path`; the error says why it is not a torrent.
pub fn read(path: &Path) -> Result<TorrentFile, String> {
    let too_large = || format!("larger than {} MiB", FILE_BYTES_MAX >> 20);
    // Opening a pipe would block until it has a writer.
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
    let Some(info) = root.get(b"info").filter(|info| info.is_dict()) else {
        return without_info(&root);
    };
    let raw = &bytes[info.span.clone()];
    let versions = layout::check(info, raw)?;
    let (v1, v2) = (
        versions.v1.then(|| sha1(raw)),
        versions.v2.then(|| sha256(raw)),
    );
    let (info_hash, info_hash_v2) = match (v1, v2) {
        (Some(v1), v2) => (v1, v2),
        (None, Some(v2)) => (v2, None),
        (None, None) => return Err("it is neither a v1 nor a v2 torrent".into()),
    };
    let encoding = root.get(b"encoding").and_then(Node::as_bytes);
    let torrent = NewTorrent {
        id: None,
        info_hash,
        info_hash_v2,
        name: name::of(info, encoding).unwrap_or_else(|| info_hash.to_string()),
    };
    let private = info.get(b"private").and_then(Node::as_int) == Some(1);
    Ok(TorrentFile { torrent, private })
}

/// A file without an info dictionary may hold a magnet link instead.
fn without_info(root: &Node) -> Result<TorrentFile, String> {
    let uri = root.get(b"magnet-uri").and_then(Node::as_bytes);
    let uri = uri.ok_or("not a .torrent file: it has no info dictionary")?;
    let torrent = magnet::parse(uri)?;
    Ok(TorrentFile {
        torrent,
        private: false,
    })
}

/// The hashes are over the bytes as they are in the file, whatever their order (BEP 3).
fn sha1(raw: &[u8]) -> InfoHash {
    InfoHash(Sha1::digest(raw).into())
}

/// The SHA-256, truncated to the 20 bytes of announces (BEP 52).
fn sha256(raw: &[u8]) -> InfoHash {
    let digest: [u8; 32] = Sha256::digest(raw).into();
    let (first, _) = digest.split_first_chunk().expect("32 is more than 20");
    InfoHash(*first)
}

#[cfg(test)]
mod tests;
