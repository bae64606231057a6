//! Heads of HTTP requests (rules H1, H3 to H8): parsed the same in any
//! number of pieces, and nothing is accepted that a proxy could parse differently.

use mika::listen::http::http1::{
    HEAD_MAX, HEADERS_MAX, HttpVersion, RequestBody, RequestHead, parse,
};

pub fn http_head(bytes: &[u8]) {
    match parse(bytes) {
        Ok(Some((head, length))) => {
            check(&bytes[..length], &head);
            pieces(&bytes[..length], &head);
        }
        Ok(None) => assert!(bytes.len() <= HEAD_MAX + 2, "it waits for ever"),
        Err(fault) => {
            // Later bytes do not make it valid.
            for more in ["\n", "\r\n\r\n", " HTTP/1.1\r\n\r\n", ": x\r\n\r\n"] {
                let longer = [bytes, more.as_bytes()].concat();
                let again = parse(&longer).map(|head| head.is_some());
                assert!(again.is_err(), "{fault:?} was mended by {more:?}");
            }
        }
    }
}

/// It is a head only with its last byte, and what follows it changes nothing.
fn pieces(bytes: &[u8], head: &RequestHead) {
    for cut in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
        assert_eq!(parse(&bytes[..cut]), Ok(None), "at {cut}");
    }
    assert_eq!(parse(&bytes[..bytes.len() - 1]), Ok(None));
    let longer = [bytes, b"GET / HTTP/1.1\r\n\x00"].concat();
    assert_eq!(parse(&longer), Ok(Some((*head, bytes.len()))));
}

fn check(bytes: &[u8], head: &RequestHead) {
    assert!(bytes.len() <= HEAD_MAX);
    let lines: Vec<&[u8]> = bytes
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect();
    let [first, headers @ .., b"", b""] = &lines[..] else {
        panic!("no empty line at the end, and only there")
    };
    for line in &lines {
        let is_control = |byte: &u8| *byte == 0x7f || (*byte < b' ' && *byte != b'\t');
        assert!(!line.iter().any(is_control), "a control character passes");
    }
    let version = match head.version {
        HttpVersion::Http10 => "HTTP/1.0",
        HttpVersion::Http11 => "HTTP/1.1",
    };
    let words: Vec<&[u8]> = first.split(|&byte| byte == b' ').collect();
    assert_eq!(words.len(), 3);
    assert_eq!((words[0], words[2]), (head.method, version.as_bytes()));
    let question = words[1].iter().position(|&byte| byte == b'?');
    let (before, query) = words[1].split_at(question.unwrap_or(words[1].len()));
    assert_eq!(head.query, query.strip_prefix(b"?").unwrap_or_default());
    assert!(before.ends_with(head.path));
    assert!(head.path.is_empty() || head.path.starts_with(b"/"));
    check_headers(headers, head);
}

fn check_headers(lines: &[&[u8]], head: &RequestHead) {
    assert!(lines.len() <= HEADERS_MAX);
    let mut lengths = Vec::new();
    let (mut closes, mut stays, mut has_coding, mut expects) = (false, false, false, false);
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.expect("a header without a colon"));
        let is_token =
            |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
        assert!(!name.is_empty() && name.iter().all(is_token), "{name:?}");
        let value = value[1..].trim_ascii();
        match &*name.to_ascii_lowercase() {
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => has_coding = true,
            b"expect" => expects = true,
            b"connection" => {
                for option in value.to_ascii_lowercase().split(|&byte| byte == b',') {
                    closes |= option.trim_ascii() == b"close";
                    stays |= option.trim_ascii() == b"keep-alive";
                }
            }
            _ => {}
        }
    }
    let is_kept = !closes && (stays || head.version == HttpVersion::Http11);
    assert_eq!(head.keep_alive, is_kept);
    // With two lengths of one body, a reader of the other one sees two requests.
    match (head.body, &lengths[..]) {
        (RequestBody::Unknown, []) => assert!(has_coding),
        (RequestBody::Unknown, [_]) => assert!(expects && !has_coding),
        (RequestBody::Bytes(0), []) => assert!(!has_coding),
        (RequestBody::Bytes(length), [told]) => {
            assert!(!has_coding && (length == 0 || !expects));
            assert!(told.iter().all(u8::is_ascii_digit));
            let told = std::str::from_utf8(told).expect("digits");
            assert_eq!(told.parse(), Ok(length));
        }
        (body, lengths) => panic!("{body:?} of {lengths:?}"),
    }
    let forwarded: Vec<&str> = head.values("x-forwarded-for").collect();
    assert!(forwarded.len() <= lines.len());
}
