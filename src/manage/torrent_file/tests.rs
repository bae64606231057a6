use super::*;

const PIECES: &str = "6:pieces20:aaaaaaaaaaaaaaaaaaaa";
const V1: &str = "6:lengthi5e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa";

fn read_info(info: &str) -> Result<TorrentFile, String> {
    parse(format!("d4:info{info}e").as_bytes())
}

/// The file tree of one file of 5 bytes.
fn tree(name: &str) -> String {
    let root = "r".repeat(32);
    let leaf = format!("d0:d6:lengthi5e11:pieces root32:{root}ee");
    format!("9:file treed{}:{name}{leaf}e", name.len())
}

#[test]
fn the_hash_is_over_the_bytes_of_the_info_dictionary() {
    let sorted = format!("d{V1}e");
    let file = read_info(&sorted).unwrap();
    assert_eq!(file.torrent.info_hash, sha1(sorted.as_bytes()));
    assert_eq!(file.torrent.info_hash_v2, None);
    assert_eq!(file.torrent.name, "a");
    assert!(!file.private);

    let unsorted = format!("d{PIECES}7:privatei1e4:name1:a6:lengthi5e12:piece lengthi16384ee");
    let file = parse(format!("d4:info{unsorted}8:announce1:xe\n").as_bytes()).unwrap();
    assert_eq!(file.torrent.info_hash, sha1(unsorted.as_bytes()));
    assert!(file.private);
}

#[test]
fn a_v2_torrent_has_the_cut_sha256_and_a_hybrid_has_both() {
    let v2 = format!(
        "d{}12:meta versioni2e4:name1:a12:piece lengthi16384ee",
        tree("a")
    );
    let torrent = read_info(&v2).unwrap().torrent;
    assert_eq!(
        (torrent.info_hash, torrent.info_hash_v2),
        (sha256(v2.as_bytes()), None)
    );

    let hybrid = format!(
        "d{}6:lengthi5e12:meta versioni2e4:name1:a12:piece lengthi16384e{PIECES}e",
        tree("a")
    );
    let torrent = read_info(&hybrid).unwrap().torrent;
    assert_eq!(torrent.info_hash, sha1(hybrid.as_bytes()));
    assert_eq!(torrent.info_hash_v2, Some(sha256(hybrid.as_bytes())));
}

#[test]
fn names_are_decoded_truncated_and_printable() {
    let named = |key: &str, raw: &[u8], encoding: &str| {
        let mut bytes = format!("d8:encoding{}:{encoding}4:info", encoding.len()).into_bytes();
        bytes.extend(format!("d6:lengthi5e{key}{}:", raw.len()).into_bytes());
        bytes.extend(raw);
        bytes.extend(format!("12:piece lengthi16384e{PIECES}ee").into_bytes());
        parse(&bytes).unwrap().torrent.name
    };
    assert_eq!(
        named("4:name1:a10:name.utf-8", "é".as_bytes(), "UTF-8"),
        "é"
    );
    assert_eq!(
        named("4:name", "é".repeat(300).as_bytes(), ""),
        "é".repeat(255)
    );
    assert_eq!(
        named("4:name", b"\xcf\xf0\xe8\xe2\xe5\xf2", "windows-1251"),
        "Привет"
    );
    assert_eq!(
        named("4:name", b"\xcf\xf0", "no such encoding"),
        "\u{fffd}\u{fffd}"
    );
    assert_eq!(
        named("4:name", b"../etc/a\x1b[31m\0b\xe2\x80\xae", ""),
        "..etca_[31mb"
    );
    let nameless = named("4:name", b" \xe2\x80\x89", "");
    assert!(nameless.parse::<InfoHash>().is_ok(), "{nameless:?}");
}

#[test]
fn files_without_a_torrent_are_refused_with_a_reason() {
    let v1_with = |change: (&str, &str)| format!("d{}e", V1.replace(change.0, change.1));
    let listed = |files: &str| v1_with(("6:lengthi5e", &format!("5:filesl{files}e")));
    let v2_of = |tree: &str| format!("d{tree}12:meta versioni2e4:name1:a12:piece lengthi16384ee");
    for (info, reason) in [
        ("i1e", "no info dictionary"),
        ("d4:name", "not a .torrent file"),
        (&v1_with((PIECES, "")), "no pieces"),
        (&v1_with(("12:piece lengthi16384e", "")), "no piece length"),
        (&v1_with(("i16384e", "i0e")), "its piece length"),
        (&v1_with(("4:name1:a", "")), "no name"),
        (&v1_with(("4:name1:a", "4:name2:..")), "no name"),
        (&v1_with(("i5e", "i50000e")), "80 bytes of hashes"),
        (&v1_with(("6:lengthi5e", "")), "no length"),
        (&v1_with((PIECES, "12:meta versioni2e")), "not in order"),
        (&v2_of(""), "file tree"),
        (&v2_of("").replace("i2e", "i3e"), "meta version 3"),
        (&v2_of("9:file treede"), "no files"),
        (&v2_of("9:file treed1:ad0:d6:lengthi5eeee"), "pieces root"),
        (&v2_of("9:file treed1:ad0:d4:attr1:peee"), "padding"),
        (&v2_of("9:file treed0:d0:deee"), "file tree"),
        (&v2_of(&tree("a")).replace("i2e", "i0e"), "meta version"),
        (&listed(""), "no files"),
        (&listed("d6:lengthi5ee"), "no path"),
        (&listed("d6:lengthi5e4:pathli1eee"), "not a text"),
    ] {
        let error = read_info(info).unwrap_err();
        assert!(error.contains(reason), "{info}: {error}");
    }
    assert!(parse(b"").is_err());
    assert!(parse(b"<html>").is_err());
}

#[test]
fn a_hybrid_whose_parts_list_other_files_is_refused() {
    let hybrid = format!(
        "d{}6:lengthi5e12:meta versioni2e4:name1:a12:piece lengthi16384e{PIECES}e",
        tree("b")
    );
    let error = read_info(&hybrid).unwrap_err();
    assert!(error.contains("other files"), "{error}");
}

#[test]
fn a_magnet_link_replaces_an_info_dictionary() {
    let linked = |uri: &str| parse(format!("d10:magnet-uri{}:{uri}e", uri.len()).as_bytes());
    let (v1, v2) = ("ab".repeat(20), "cd".repeat(32));
    let torrent = linked(&format!(
        "magnet:?dn=x&xt=urn:btih:{v1}&xt=urn:btmh:1220{v2}"
    ));
    let torrent = torrent.unwrap().torrent;
    assert_eq!(torrent.info_hash.to_string(), v1);
    assert_eq!(torrent.info_hash_v2.unwrap().to_string(), v2[..40]);
    let torrent = linked("magnet:?xt=urn:btih:vov2xk5lvov2xk5lvov2xk5lvov2xk5l").unwrap();
    assert_eq!(torrent.torrent.info_hash.to_string(), v1);
    assert!(linked("magnet:?dn=x").is_err());
    assert!(linked("http://example.org/").is_err());
}
