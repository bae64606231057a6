//! Announces of known peers allocate nothing, and the memory of peers is freed when they leave.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use mika::base::addr::Endpoint;
use mika::base::clock::{Now, Seconds};
use mika::base::ids::{InfoHash, PeerId};
use mika::registry::Registry;
use mika::telemetry::metrics::{Metrics, Protocol};
use mika::tracker::{AnnounceRequest, Mode, Rules, Tracker, Workspace};
use mika::wire::{Announce, ClientKey, Event};

/// The system's allocator, which counts what each thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    if bytes > 0 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
    BYTES.set(BYTES.get() + bytes);
}

#[allow(unsafe_code)] // an allocator is unsafe by its trait; this one hands all on to the system's
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) };
    }
}

fn tracker() -> Tracker {
    let rules = Rules {
        max_torrents: 1_000_000,
        ..Rules::default()
    };
    let (registry, metrics) = (Arc::default(), Arc::default());
    let _: (&Arc<Registry>, &Arc<Metrics>) = (&registry, &metrics);
    Tracker::new(Mode::Public, rules, registry, 1000, metrics)
}

/// An announce as it comes by UDP: every field has a value.
fn request(torrent: u32, peer: u32) -> AnnounceRequest<'static> {
    let twenty = |number: u32| {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    let v4 = !peer.is_multiple_of(5);
    AnnounceRequest {
        passkey: None,
        params: Ok(Announce {
            info_hash: InfoHash(twenty(torrent)),
            info_hash_as_form: None,
            peer_id: PeerId(twenty(peer)),
            port: 6881,
            uploaded: Some(1),
            downloaded: Some(1),
            left: Some(u64::from(!peer.is_multiple_of(3))),
            event: Event::None,
            numwant: Some(200),
            key: Some(ClientKey(peer)),
            claimed_v4: None,
            claimed_v6: None,
            list_form: false,
            no_peer_id: false,
        }),
        source: if v4 {
            IpAddr::from((0x0900_0000 + peer).to_be_bytes())
        } else {
            IpAddr::from((0x2a00 << 112 | u128::from(peer) << 64).to_be_bytes())
        },
    }
}

fn at(seconds: u32) -> Now {
    Now {
        mono: Seconds::START.plus(seconds),
        unix: 1_800_000_000 + i64::from(seconds),
    }
}

#[test]
fn announces_of_known_peers_allocate_nothing() {
    let tracker = tracker();
    let mut work = Workspace::new(Protocol::Udp, fastrand::Rng::with_seed(1));
    let sizes = [1, 2, 5, 32, 33, 1000, 20_000];
    for (torrent, &size) in sizes.iter().enumerate() {
        let mut announces = |time, expected_peers: bool| {
            for peer in 0..size {
                let request = request(torrent as u32, peer);
                let answer = tracker.announce(&request, at(time), &mut work).unwrap();
                assert!(!expected_peers || answer.reply.complete + answer.reply.incomplete == size);
            }
        };
        announces(0, false);
        announces(1, true); // a worker's own memory grows with its first replies
        let before = (ALLOCATIONS.get(), BYTES.get());
        announces(900, true);
        assert_eq!((ALLOCATIONS.get(), BYTES.get()), before, "{size} peers");
    }
    let announce = |torrent| {
        let request = request(torrent, 0);
        let params = request.params.unwrap();
        (params.info_hash, Endpoint::new(request.source, params.port))
    };
    let announces: Vec<_> = (0..100).map(announce).collect();
    let before = (ALLOCATIONS.get(), BYTES.get());
    tracker.prefetch(&announces);
    assert_eq!((ALLOCATIONS.get(), BYTES.get()), before);
}

#[test]
fn memory_is_freed_when_peers_leave() {
    let tracker = tracker();
    let mut work = Workspace::new(Protocol::Udp, fastrand::Rng::with_seed(1));
    tracker.announce(&request(0, 0), at(0), &mut work).unwrap();
    let sweep = |time| (0..Tracker::SHARDS).for_each(|shard| tracker.sweep(shard, at(time)));
    let before = BYTES.get();
    for round in 0..3 {
        let begin = round * 10_000;
        // Half of the peers in one torrent, the others by threes; every tenth comes back.
        for peer in 0..60_000 {
            let torrent = if peer % 2 == 0 { 1 } else { peer / 6 };
            tracker
                .announce(&request(torrent, peer), at(begin), &mut work)
                .unwrap();
        }
        let filled = BYTES.get() - before;
        for peer in (0..60_000).step_by(10) {
            let torrent = if peer % 2 == 0 { 1 } else { peer / 6 };
            tracker
                .announce(&request(torrent, peer), at(begin + 3000), &mut work)
                .unwrap();
        }
        sweep(begin + 5000);
        let (_, seeders, leechers) = tracker.totals();
        assert_eq!(seeders + leechers, 6000);
        let left = BYTES.get() - before;
        assert!(left < filled / 4, "{left} of {filled} bytes");
        sweep(begin + 9000);
        assert_eq!(tracker.totals(), (0, 0, 0));
        let left = BYTES.get() - before;
        assert!(left < filled / 100, "{left} of {filled} bytes");
    }
}
