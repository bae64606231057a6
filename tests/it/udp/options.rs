//! Options of announces (BEP 41, rule U6) at a public tracker, which ignores them: no option
//! invalidates an announce.

use super::{V4, client, counts, new_torrent, public};
use crate::harness::udp::{Announce, url_data};

#[test]
fn no_option_invalidates_an_announce() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let end = b"\x02\x0c/dir?a=b&c=d\x00\xff\xff";
    let long = url_data(&format!("/{}", "x".repeat(1900)));
    let table: &[&[u8]] = &[
        b"",
        b"\x00",
        b"\x02\x00",
        b"\x01\x01\x00",
        end,
        b"\x00\x02\x04/abc",
        b"\x01\x01\x01\x02\x04/abc\x01",
        // Unknown kinds, with a length each.
        b"\x03\x00\xff\x02xx\x02\x04/abc",
        // Lengths that lead beyond the packet.
        b"\x02",
        b"\x02\xff/announce",
        b"\x63\x10short",
        // What BiglyBT appends for a tracker with a password, and no options at all.
        b"user\x00\x00\x00\x00\x12\x34\x56\x78",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        &long,
    ];
    for options in table {
        let it = Announce {
            options: options.to_vec(),
            ..Announce::new(id, new_torrent())
        };
        let escaped = options.escape_ascii();
        assert_eq!(counts(&client, &it), (0, 1), "{escaped}");
        assert_eq!(client.announce(&it).peers, [], "{escaped}");
    }
}
