//! The known clients, and how their peer ids are read.

use super::version::{ClientVersion, Style, dashed, shadow};

/// A client by its common name.
pub(super) struct KnownClient {
    pub name: &'static str,
    mark: Mark,
}

/// The beginning of a peer id.
enum Mark {
    /// Azureus style, `-XX1234-`: the two letters, and the format of the four characters.
    Azureus([u8; 2], Style),
    /// Shadow style, `X12345---`: the letter.
    Shadow(u8),
    /// A text, then numbers separated by dashes: `A2-1-36-0-`.
    Dashed(&'static [u8]),
    /// A text, then four characters.
    Plain(&'static [u8], Style),
}

const fn azureus(code: [u8; 2], name: &'static str, style: Style) -> KnownClient {
    KnownClient {
        name,
        mark: Mark::Azureus(code, style),
    }
}

/// Clients with several codes are listed several times. Azureus style comes first, the most common
/// clients before the others.
#[rustfmt::skip] // a table
pub(super) const KNOWN: [KnownClient; 44] = {
    use Style::{Digits, PaddedPairs, Pairs, Transmission};
    [
        azureus(*b"qB", "qBittorrent", Digits(3)),
        azureus(*b"TR", "Transmission", Transmission),
        azureus(*b"LT", "libtorrent", Digits(3)),
        azureus(*b"lt", "rTorrent", Digits(3)),
        azureus(*b"DE", "Deluge", Digits(3)),
        azureus(*b"UT", "µTorrent", Digits(3)),
        azureus(*b"UM", "µTorrent for Mac", Digits(3)),
        azureus(*b"UW", "µTorrent Web", Digits(3)),
        azureus(*b"UE", "µTorrent Embedded", Digits(3)),
        azureus(*b"BT", "BitTorrent", Digits(3)),
        azureus(*b"BW", "BitTorrent Web", Digits(3)),
        azureus(*b"BI", "BiglyBT", Digits(4)),
        azureus(*b"AZ", "Vuze", Digits(4)),
        azureus(*b"WW", "WebTorrent", Pairs),
        azureus(*b"WD", "WebTorrent Desktop", Pairs),
        azureus(*b"KT", "KTorrent", Digits(2)),
        azureus(*b"BC", "BitComet", PaddedPairs),
        azureus(*b"BL", "BitLord", Digits(3)),
        azureus(*b"XL", "Xunlei", Digits(4)),
        azureus(*b"SD", "Xunlei", Digits(4)),
        azureus(*b"QD", "QQDownload", Digits(4)),
        azureus(*b"FD", "Free Download Manager", Digits(3)),
        azureus(*b"FW", "FrostWire", Digits(3)),
        azureus(*b"TL", "Tribler", Digits(3)),
        azureus(*b"PI", "PicoTorrent", Digits(3)),
        azureus(*b"MG", "MediaGet", Digits(3)),
        azureus(*b"HL", "Halite", Digits(3)),
        azureus(*b"SZ", "Shareaza", Digits(4)),
        azureus(*b"AG", "Ares", Digits(3)),
        azureus(*b"Lr", "LibreTorrent", Digits(3)),
        azureus(*b"GT", "anacrolix/torrent", Digits(4)),
        azureus(*b"MO", "MonoTorrent", Digits(4)),
        azureus(*b"BF", "Bitflu", Digits(4)),
        azureus(*b"CD", "CTorrent", Digits(4)),
        azureus(*b"CT", "CTorrent", Digits(4)),
        azureus(*b"BB", "BitBuddy", Digits(4)),
        azureus(*b"XF", "Xfplay", Digits(4)),
        azureus(*b"TT", "TuoTu", Digits(4)),
        azureus(*b"SP", "BitSpirit", Digits(3)),
        KnownClient { name: "Tixati", mark: Mark::Plain(b"TIX", PaddedPairs) },
        KnownClient { name: "aria2", mark: Mark::Dashed(b"A2-") },
        KnownClient { name: "BitTorrent", mark: Mark::Dashed(b"M") },
        KnownClient { name: "BitTornado", mark: Mark::Shadow(b'T') },
        KnownClient { name: "ABC", mark: Mark::Shadow(b'A') },
    ]
};

/// The index of the first client of another style.
const OTHER_STYLES: usize = 39;

/// The index in [`KNOWN`] of the client with that peer id, and its version if it can be read.
pub(super) fn identify(peer_id: &[u8; 20]) -> Option<(usize, Option<ClientVersion>)> {
    if let [b'-', first, second, a, b, c, d, _, ..] = *peer_id {
        let place = place_of_code([first, second])?;
        let Mark::Azureus(_, style) = KNOWN[place].mark else {
            return None;
        };
        return Some((place, style.read([a, b, c, d])));
    }
    let mut all = KNOWN.iter().enumerate().skip(OTHER_STYLES);
    all.find_map(|(place, known)| Some((place, Some(known.mark.of_other_style(peer_id)?))))
}

fn place_of_code(code: [u8; 2]) -> Option<usize> {
    let mut all = KNOWN.iter();
    all.position(|known| matches!(known.mark, Mark::Azureus(own, _) if own == code))
}

impl Mark {
    /// The version of a client whose peer id has this mark, which is not of Azureus style. Without a
    /// version after it, a mark that short may be chance.
    fn of_other_style(&self, peer_id: &[u8; 20]) -> Option<ClientVersion> {
        match *self {
            Self::Azureus(..) => None,
            Self::Shadow(letter) => {
                let is_it = peer_id[0] == letter && peer_id[6..9] == *b"---";
                is_it.then(|| shadow(&peer_id[1..6]))?
            }
            Self::Dashed(begin) => dashed(peer_id.strip_prefix(begin)?),
            Self::Plain(begin, style) => {
                let version = peer_id.strip_prefix(begin)?.first_chunk()?;
                style.read(*version)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(begin: &str) -> (&'static str, String) {
        let mut peer_id = *b"xxxxxxxxxxxxxxxxxxxx";
        peer_id[..begin.len()].copy_from_slice(begin.as_bytes());
        match identify(&peer_id) {
            None => ("other", "other".into()),
            Some((place, version)) => {
                let version = version.map_or("other".into(), |version| version.to_string());
                (KNOWN[place].name, version)
            }
        }
    }

    #[test]
    fn peer_ids_are_parsed() {
        let cases = [
            ("-qB4650-", "qBittorrent", "4.6.5"),
            ("-qB51A0-", "qBittorrent", "5.1.10"),
            ("-TR2940-", "Transmission", "2.94"),
            ("-TR3000-", "Transmission", "3.00"),
            ("-TR4050-", "Transmission", "4.0.5"),
            ("-TR410Z-", "Transmission", "4.1.0"),
            ("-LT20B0-", "libtorrent", "2.0.11"),
            ("-lt0D80-", "rTorrent", "0.13.8"),
            ("-DE211s-", "Deluge", "2.1.1"),
            ("-DE13F0-", "Deluge", "1.3.15"),
            ("-UT355W-", "µTorrent", "3.5.5"),
            ("-BT7a5S-", "BitTorrent", "7.10.5"),
            ("-BI3500-", "BiglyBT", "3.5.0.0"),
            ("-AZ5750-", "Vuze", "5.7.5.0"),
            ("-WW0108-", "WebTorrent", "1.8"),
            ("-WW0207-", "WebTorrent", "2.7"),
            ("-BC0205-", "BitComet", "2.05"),
            ("TIX0298-", "Tixati", "2.98"),
            ("A2-1-36-0-", "aria2", "1.36.0"),
            ("M7-9-2--", "BitTorrent", "7.9.2"),
            ("T03I-----", "BitTornado", "0.3.18"),
        ];
        for (peer_id, name, version) in cases {
            assert_eq!(read(peer_id), (name, version.into()), "{peer_id}");
        }
    }

    #[test]
    fn unknown_forms_are_other() {
        for peer_id in [
            "-ZQ1234-",
            "",
            "-",
            "T0-----xxx",
            "M-----",
            "A2-x-",
            "TIXabcd",
            "T-----------",
        ] {
            assert_eq!(read(peer_id), ("other", "other".into()), "{peer_id}");
        }
        assert_eq!(read("-qB4!50-"), ("qBittorrent", "other".into()));
        assert_eq!(read("-TR1.93-"), ("Transmission", "other".into()));
    }

    #[test]
    fn a_code_is_one_client() {
        for (place, known) in KNOWN.iter().enumerate() {
            let is_first = place < OTHER_STYLES;
            match known.mark {
                Mark::Azureus(code, _) => assert_eq!(place_of_code(code), Some(place)),
                _ => assert!(!is_first, "{}", known.name),
            }
        }
    }
}
