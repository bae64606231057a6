//! Magnet links (BEP 9, BEP 52): some programs write one to a .torrent file until they have the
//! info dictionary.

use data_encoding::BASE32_NOPAD_NOCASE;

use crate::base::ids::InfoHash;
use crate::storage::NewTorrent;

/// The multihash prefix of a SHA-256 in a link: its kind and length.
const MULTIHASH_SHA256: &str = "1220";

/// Reads the hashes of a magnet link. The torrent is named by its hash.
pub(super) fn parse(uri: &[u8]) -> Result<NewTorrent, String> {
    let uri = str::from_utf8(uri).ok();
    let query = uri.and_then(|uri| uri.strip_prefix("magnet:?"));
    let query = query.ok_or("its magnet-uri is not a magnet link")?;
    let (mut v1, mut v2) = (None, None);
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key == "xt" || key.starts_with("xt.") {
            let hash = |kind| value.strip_prefix(kind);
            v1 = v1.or(hash("urn:btih:").and_then(v1_hash));
            v2 = v2.or(hash("urn:btmh:").and_then(v2_hash));
        }
    }
    let info_hash = v1.or(v2).ok_or("its magnet link has no info hash")?;
    Ok(NewTorrent {
        id: None,
        info_hash,
        info_hash_v2: v1.and(v2),
        name: info_hash.to_string(),
    })
}

/// 40 hexadecimal digits or 32 letters of base 32.
fn v1_hash(text: &str) -> Option<InfoHash> {
    if text.len() != 32 {
        return text.parse().ok();
    }
    let bytes = BASE32_NOPAD_NOCASE.decode(text.as_bytes()).ok()?;
    InfoHash::from_slice(&bytes)
}

/// The first 20 of the 32 bytes, as announces carry them.
fn v2_hash(text: &str) -> Option<InfoHash> {
    let digits = text.strip_prefix(MULTIHASH_SHA256)?;
    let is_sha256 = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sha256.then(|| digits[..40].parse().ok())?
}
