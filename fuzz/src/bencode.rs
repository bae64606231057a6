//! Bencode and .torrent files (BEP 3): strict parsing accepts only what writing produces.

use mika::manage::torrent_file;
use mika::wire::bencode::{Node, Value, parse, parse_lenient, write_bytes};

pub fn bencode(bytes: &[u8]) {
    let lenient = parse_lenient(bytes);
    if let Ok(node) = &lenient {
        check_spans(bytes, node);
    }
    if let Ok(node) = parse(bytes) {
        let mut again = Vec::new();
        write(&mut again, &node);
        assert_eq!(again, bytes, "canonical bencode has one form");
        assert_eq!(lenient.as_ref(), Ok(&node), "strict is lenient, too");
    }
    match torrent_file::parse(bytes) {
        Ok(file) => {
            let root = lenient.expect("a .torrent file is bencode");
            let has_info = root.get(b"info").is_some_and(Node::is_dict);
            assert!(has_info || root.get(b"magnet-uri").is_some());
            assert!(!file.torrent.name.is_empty());
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// Everything stands where its span says, within what it is a part of.
fn check_spans(bytes: &[u8], node: &Node) {
    let own = &bytes[node.span.clone()];
    match &node.value {
        Value::Int(number) => {
            // Zeros may stand before the digits, and what is too large counts as 0.
            let digits = number.unsigned_abs().to_string();
            assert!(*number == 0 || own.ends_with(format!("{digits}e").as_bytes()));
        }
        Value::Bytes(text) => assert!(own.ends_with(text)),
        Value::List(nodes) => check_inner(bytes, node, nodes.iter()),
        Value::Dict(entries) => check_inner(bytes, node, entries.iter().map(|(_, node)| node)),
    }
}

fn check_inner<'a>(bytes: &[u8], outer: &Node, inner: impl Iterator<Item = &'a Node<'a>> + Clone) {
    let mut end = outer.span.start + 1;
    for node in inner {
        assert!(end <= node.span.start && node.span.end < outer.span.end);
        end = node.span.end;
        check_spans(bytes, node);
    }
}

fn write(out: &mut Vec<u8>, node: &Node) {
    match &node.value {
        Value::Int(number) => out.extend(format!("i{number}e").into_bytes()),
        Value::Bytes(bytes) => write_bytes(out, bytes),
        Value::List(nodes) => {
            out.push(b'l');
            for node in nodes {
                write(out, node);
            }
            out.push(b'e');
        }
        Value::Dict(entries) => {
            out.push(b'd');
            for (key, node) in entries {
                write_bytes(out, key);
                write(out, node);
            }
            out.push(b'e');
        }
    }
}
