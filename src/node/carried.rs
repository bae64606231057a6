//! The swarms of a public tracker without a cache, from one process to the next, in memory that both have open.
//!
//! ```text
//! | MAGIC | Unix time (8) | for each shard: length in bytes (4) | swarms |
//! ```

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek as _, Write};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::node::Node;
use crate::tracker::Tracker;

/// Begins the file; the number is that of the format. A process that does not know it begins without peers.
const MAGIC: &[u8; 14] = b"mika-swarms-1\n";

/// The most bytes of a shard that are read at once: more than any tracker has.
const SHARD_MAX: u32 = 1 << 30;

/// Writes all peers to a file in memory.
///
/// # Errors
/// The system has no memory or no descriptor for it.
pub(super) fn write(node: &Node) -> io::Result<File> {
    let mut file = File::from(memfd_create("mika-swarms", MemfdFlags::CLOEXEC)?);
    let now = node.clock.now();
    let mut out = BufWriter::new(&mut file);
    out.write_all(MAGIC)?;
    out.write_all(&now.unix.to_le_bytes())?;
    for shard in 0..Tracker::SHARDS {
        let bytes = node.tracker.pack_swarms(shard, now);
        let length = u32::try_from(bytes.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&bytes)?;
    }
    out.flush()?;
    drop(out);
    Ok(file)
}

/// Adds the peers of such a file to the tracker; logs how many.
pub(super) fn read(file: &File, node: &Node) {
    match try_read(file, node) {
        Ok(peers) => tracing::info!(peers, "swarms taken over from the process before"),
        Err(error) => {
            tracing::warn!(%error, "the swarms of the process before can't be read; they fill again by themselves");
        }
    }
}

fn try_read(mut file: &File, node: &Node) -> io::Result<u64> {
    file.rewind()?;
    let mut input = BufReader::new(file);
    if &array::<14>(&mut input)? != MAGIC {
        return Err(ErrorKind::InvalidData.into());
    }
    let now = node.clock.now();
    let written = i64::from_le_bytes(array(&mut input)?);
    let age = u32::try_from(now.unix.saturating_sub(written).max(0)).unwrap_or(u32::MAX);
    let mut peers = 0;
    for _ in 0..Tracker::SHARDS {
        let length = u32::from_le_bytes(array(&mut input)?);
        if length > SHARD_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length as usize];
        input.read_exact(&mut bytes)?;
        let added = node.tracker.unpack_swarms(&bytes, age, now);
        peers += added.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    }
    Ok(peers)
}

fn array<const LEN: usize>(input: &mut impl Read) -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}
