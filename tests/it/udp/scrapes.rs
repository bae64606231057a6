//! Scrapes over UDP (rules U4, U5).

use super::{COMPLETED, V4, V6, client, new_torrent, public};
use crate::harness::udp::{Announce, Reply, SCRAPE, header, scrape};

#[test]
fn entries_come_in_the_order_of_the_request() {
    let mika = public();
    for ip in [V4, V6] {
        let (client, id) = client(&mika, ip);
        let (known, unknown) = (new_torrent(), new_torrent());
        let base = Announce::new(id, known);
        client.announce(&base.peer(1));
        client.announce(&base.peer(2));
        let snatch = Announce {
            event: COMPLETED,
            left: 0,
            ..base.peer(3)
        };
        client.announce(&snatch);
        let packet = scrape(id, 0x1122_3344, &[known, unknown, known]);
        let reply = client.exchange(&packet);
        assert_eq!(reply.len(), 8 + 36);
        assert_eq!(reply[..8], *b"\x00\x00\x00\x02\x11\x22\x33\x44");
        let expected = [[1, 1, 2], [0, 0, 0], [1, 1, 2]];
        assert_eq!(client.scrape(id, &[known, unknown, known]), expected);
        // Asking changed nothing, nor made it a torrent.
        assert_eq!(client.scrape(id, &[unknown, known]), expected[1..]);
    }
}

#[test]
fn half_a_hash_at_the_end_is_ignored_and_none_at_all_is_malformed() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let hash = new_torrent();
    client.announce(&Announce::new(id, hash));
    let packet = scrape(id, 7, &[hash, hash]);
    for length in 36..=packet.len() {
        let whole = (length - 16) / 20;
        let reply = client.ask(&packet[..length]);
        assert_eq!(
            reply,
            Reply::Scraped(vec![[0, 0, 1]; whole]),
            "{length} bytes"
        );
    }
    for length in 16..36 {
        assert_eq!(
            client.error(&packet[..length]),
            "malformed",
            "{length} bytes"
        );
    }
    for length in 0..16 {
        assert!(client.is_dropped(&packet[..length]), "{length} bytes");
    }
    assert_eq!(client.error(&header(id, SCRAPE, 7)), "malformed");
}

#[test]
fn a_scrape_is_limited_to_74_torrents() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let mut hashes: Vec<_> = (0..100).map(|_| new_torrent()).collect();
    client.announce(&Announce::new(id, hashes[73]));
    client.announce(&Announce::new(id, hashes[74]));
    for number in [1, 73, 74] {
        let entries = client.scrape(id, &hashes[..number]);
        assert_eq!(entries.len(), number);
    }
    for number in [75, 100] {
        let entries = client.scrape(id, &hashes[..number]);
        assert_eq!(entries.len(), 74, "{number}");
        assert_eq!(entries[73], [0, 0, 1]);
        assert!(entries[..73].iter().all(|entry| *entry == [0, 0, 0]));
    }
    hashes.truncate(3);
    assert_eq!(client.scrape(id, &hashes).len(), 3);
}
