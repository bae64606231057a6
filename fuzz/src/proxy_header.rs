//! Headers of the PROXY protocol: in one piece or in many, the same is read, and nothing after the header.

use mika::wire::proxy_header::{HEADER_MAX, InvalidProxyHeader, Proxied, ProxyHeaderReader};

type Read = Result<Option<(usize, Proxied)>, InvalidProxyHeader>;

pub fn proxy_header(bytes: &[u8]) {
    let whole = read(bytes, bytes.len().max(1));
    for size in [1, 7, 15] {
        assert_eq!(read(bytes, size), whole, "in pieces of {size}");
    }
    let Ok(Some((length, _))) = whole else {
        return;
    };
    assert!(length <= HEADER_MAX && length <= bytes.len());
    assert_eq!(
        read(&bytes[..length], length),
        whole,
        "without what follows"
    );
    let almost = length - 1;
    assert_eq!(
        read(&bytes[..almost], almost.max(1)),
        Ok(None),
        "without its end"
    );
}

/// Reads a header in pieces of that size; its length, and whom it names.
fn read(bytes: &[u8], size: usize) -> Read {
    let mut reader = ProxyHeaderReader::default();
    let mut at = 0;
    while at < bytes.len() {
        let piece = &bytes[at..bytes.len().min(at + size)];
        let (taken, proxied) = reader.take(piece)?;
        assert!(taken <= piece.len());
        at += taken;
        if let Some(proxied) = proxied {
            return Ok(Some((at, proxied)));
        }
        assert_eq!(taken, piece.len(), "all of an incomplete header");
    }
    Ok(None)
}
