//! Where the two address families differ: the bytes of a peer, and where a swarm keeps it.

use crate::base::addr::{Compact, Compact4, Compact6};
use crate::swarm::public::large::LargePublic;
use crate::swarm::public::peer::{PublicPeer, pack_rest, unpack};
use crate::swarm::public::peer_set::PeerSet;
use crate::swarm::public::pool::Pool;
use crate::swarm::public::small::SmallPublic;

/// The endpoint of one family, as public swarms pack it.
pub(super) trait PackedEndpoint: Compact {
    /// A peer as bytes.
    type Packed: Copy;

    /// Units of one peer in the [pool](super::pool).
    const UNITS: usize;

    fn pack(peer: &PublicPeer<Self>) -> Self::Packed;
    fn unpack(packed: &Self::Packed) -> PublicPeer<Self>;

    /// The peers of this family in a small swarm.
    fn in_small<'a>(small: &'a SmallPublic, pool: &'a Pool) -> &'a [Self::Packed];
    fn in_small_mut<'a>(small: &'a mut SmallPublic, pool: &'a mut Pool) -> &'a mut [Self::Packed];
    /// Sets their number. A new one is not written yet.
    fn set_len(small: &mut SmallPublic, len: usize);
    /// The place of the newest of `len` peers.
    fn newest(len: usize) -> usize;

    /// The peers of this family in a large swarm.
    fn in_large(large: &LargePublic) -> &PeerSet<Self>;
    fn in_large_mut(large: &mut LargePublic) -> &mut PeerSet<Self>;
}

impl PackedEndpoint for Compact4 {
    type Packed = [u8; 12];

    const UNITS: usize = 1;

    fn pack(member: &PublicPeer<Self>) -> [u8; 12] {
        let mut packed = [0; 12];
        packed[..6].copy_from_slice(&member.endpoint.0);
        pack_rest(&mut packed[6..], member);
        packed
    }

    fn unpack(packed: &[u8; 12]) -> PublicPeer<Self> {
        let mut endpoint = [0; 6];
        endpoint.copy_from_slice(&packed[..6]);
        unpack(Self(endpoint), &packed[6..])
    }

    fn in_small<'a>(small: &'a SmallPublic, pool: &'a Pool) -> &'a [[u8; 12]] {
        let len = small.lens().0;
        &small.units(pool)[..len]
    }

    fn in_small_mut<'a>(small: &'a mut SmallPublic, pool: &'a mut Pool) -> &'a mut [[u8; 12]] {
        let len = small.lens().0;
        &mut small.units_mut(pool)[..len]
    }

    fn set_len(small: &mut SmallPublic, len: usize) {
        small.set_lens(len, small.lens().1);
    }

    fn newest(len: usize) -> usize {
        len - 1
    }

    fn in_large(large: &LargePublic) -> &PeerSet<Self> {
        &large.v4
    }

    fn in_large_mut(large: &mut LargePublic) -> &mut PeerSet<Self> {
        &mut large.v4
    }
}

impl PackedEndpoint for Compact6 {
    type Packed = [u8; 24];

    const UNITS: usize = 2;

    fn pack(member: &PublicPeer<Self>) -> [u8; 24] {
        let mut packed = [0; 24];
        packed[..18].copy_from_slice(&member.endpoint.0);
        pack_rest(&mut packed[18..], member);
        packed
    }

    fn unpack(packed: &[u8; 24]) -> PublicPeer<Self> {
        let mut endpoint = [0; 18];
        endpoint.copy_from_slice(&packed[..18]);
        unpack(Self(endpoint), &packed[18..])
    }

    fn in_small<'a>(small: &'a SmallPublic, pool: &'a Pool) -> &'a [[u8; 24]] {
        let (_, v6) = small.ends(small.units(pool));
        v6.as_flattened().as_chunks().0
    }

    fn in_small_mut<'a>(small: &'a mut SmallPublic, pool: &'a mut Pool) -> &'a mut [[u8; 24]] {
        let len = small.lens().1;
        let units = small.units_mut(pool);
        let start = units.len() - 2 * len;
        units[start..].as_flattened_mut().as_chunks_mut().0
    }

    fn set_len(small: &mut SmallPublic, len: usize) {
        small.set_lens(small.lens().0, len);
    }

    fn newest(_: usize) -> usize {
        0
    }

    fn in_large(large: &LargePublic) -> &PeerSet<Self> {
        &large.v6
    }

    fn in_large_mut(large: &mut LargePublic) -> &mut PeerSet<Self> {
        &mut large.v6
    }
}
