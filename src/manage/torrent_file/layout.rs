//! The info dictionary: its versions, and whether files and pieces are consistent.

use super::name::{self, path_element};
use crate::wire::bencode::{self, Node, Value};

/// Bytes of a block, the unit of requests, and of hashes in v2 torrents.
const BLOCK: u64 = 16 << 10;

/// The longest piece in bytes that clients support.
const PIECE_LENGTH_MAX: i64 = (i32::MAX / 2) as i64;

/// Clients refuse more pieces.
const PIECES_MAX: u64 = 1 << 21;

/// The longest file in blocks, and the most bytes of all files together.
const FILE_BLOCKS_MAX: u64 = (i32::MAX / 2) as u64;
const TOTAL_MAX: u64 = (1 << 48) - 1;

/// Bytes of a SHA-1 and of a SHA-256.
const SHA1_LEN: u64 = 20;
const SHA256_LEN: usize = 32;

/// Attributes of files (BEP 47).
const PADDING: u8 = b'p';
const SYMLINK: u8 = b'l';

/// The versions of a torrent: v1, v2 or, as a hybrid, both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    pub v1: bool,
    pub v2: bool,
}

/// The files of a torrent, as one of its versions lists them.
struct Files {
    /// Padding files are left out (BEP 47).
    list: Vec<Listed>,
    /// Whether any file is listed, padding or not.
    any: bool,
    total: u64,
    /// Bytes of a piece, if each file starts at a piece boundary (v2).
    align: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Listed {
    path: String,
    size: u64,
    offset: u64,
}

/// Checks the info dictionary, whose bytes are `raw`.
pub(super) fn check(info: &Node, raw: &[u8]) -> Result<Versions, String> {
    // Clients keep only 32 bits of it.
    let version = int(info, b"meta version").map_or(-1, |version| version as i32);
    if version > 0 {
        bencode::parse_sorted(raw)
            .map_err(|error| format!("its info dictionary is not in order: {error}"))?;
    }
    if version > 2 {
        return Err(format!(
            "of meta version {version}; this program knows 1 and 2"
        ));
    }
    let piece_length = piece_length(info, version)?;
    let name = name::raw(info).ok_or("its info dictionary has no name")?;
    let tree = info.get(b"file tree").filter(|tree| tree.is_dict());
    let versions = Versions {
        v1: version < 2 || list_of(info, b"files").is_some() || info.get(b"length").is_some(),
        v2: version == 2,
    };
    let files = match (versions.v2, tree) {
        (true, Some(tree)) => {
            let v2 = v2_files(info, tree, piece_length)?;
            if versions.v1 && v1_files(info, name)?.list != v2.list {
                return Err("its v1 and v2 parts list other files".into());
            }
            v2
        }
        (true, None) => return Err("a v2 torrent without a file tree".into()),
        (false, Some(_)) => return Err("it has a file tree, but no meta version 2".into()),
        (false, None) => v1_files(info, name)?,
    };
    check_pieces(info, &files, piece_length, versions)?;
    Ok(versions)
}

fn piece_length(info: &Node, version: i32) -> Result<u64, String> {
    let length = int(info, b"piece length").ok_or("its info dictionary has no piece length")?;
    let is_valid = (1..=PIECE_LENGTH_MAX).contains(&length);
    let length = length.unsigned_abs();
    if !is_valid || (version == 2 && (length < BLOCK || !length.is_power_of_two())) {
        return Err("its piece length is not one that clients can use".into());
    }
    Ok(length)
}

fn check_pieces(
    info: &Node,
    files: &Files,
    piece_length: u64,
    versions: Versions,
) -> Result<(), String> {
    if !files.any {
        return Err("it has no files".into());
    }
    let number = files.total.div_ceil(piece_length);
    if number > PIECES_MAX {
        return Err(format!("it has more than {PIECES_MAX} pieces"));
    }
    match info.get(b"pieces").and_then(Node::as_bytes) {
        Some(pieces) if pieces.len() as u64 != number * SHA1_LEN => {
            let found = pieces.len();
            Err(format!(
                "its {number} pieces need {} bytes of hashes, found {found}",
                number * SHA1_LEN
            ))
        }
        None if !versions.v2 => Err("its info dictionary has no pieces".into()),
        _ if files.total == 0 => Err("its files are empty".into()),
        _ => Ok(()),
    }
}

/// The files of the v1 part: a list, or a single file with the torrent's name.
fn v1_files(info: &Node, name: &[u8]) -> Result<Files, String> {
    let mut files = Files::new(None);
    let Some(list) = list_of(info, b"files") else {
        let path = path_element(name);
        if name.is_empty() || path.is_empty() {
            return Err("its info dictionary has no name that a file could have".into());
        }
        files.add(info, path)?;
        return Ok(files);
    };
    for file in list {
        if !file.is_dict() {
            return Err("its list of files holds something else".into());
        }
        let path = path_of(file)?;
        files.add(file, path)?;
    }
    Ok(files)
}

/// The path of a file in a list; a padding file needs none.
fn path_of(file: &Node) -> Result<String, String> {
    let parts = list_of(file, b"path.utf-8").or_else(|| list_of(file, b"path"));
    let parts = parts.unwrap_or_default();
    if parts.is_empty() && !has_attribute(file, PADDING) {
        return Err("one of its files has no path".into());
    }
    join(parts)
}

fn join(parts: &[Node]) -> Result<String, String> {
    let mut path = String::new();
    for part in parts {
        let part = part.as_bytes();
        let part = part.ok_or("a part of one of its paths is not a text")?;
        push_element(&mut path, part);
    }
    if path.is_empty() {
        path.push('_');
    }
    Ok(path)
}

fn push_element(path: &mut String, raw: &[u8]) {
    let element = path_element(raw);
    if !path.is_empty() && !element.is_empty() {
        path.push('/');
    }
    path.push_str(&element);
}

/// The files of the v2 part: a tree of folders, whose leaves have one entry with an empty name.
fn v2_files(info: &Node, tree: &Node, piece_length: u64) -> Result<Files, String> {
    let mut files = Files::new(Some(piece_length));
    files.add_tree(tree, "")?;
    if let ([only], None) = (&*files.list, list_of(info, b"files"))
        && only.path.is_empty()
    {
        return Err("its file has no name".into());
    }
    Ok(files)
}

impl Files {
    fn new(align: Option<u64>) -> Self {
        Self {
            list: Vec::new(),
            any: false,
            total: 0,
            align,
        }
    }

    /// Nesting is bounded by the bencode parser.
    fn add_tree(&mut self, tree: &Node, folder: &str) -> Result<(), String> {
        for (key, node) in entries(tree) {
            if key.is_empty() || !node.is_dict() {
                return Err("its file tree holds something other than files and folders".into());
            }
            let mut path = folder.to_owned();
            // Clients strip leading separators first.
            let separators = key.iter().take_while(|&&byte| byte == b'/').count();
            push_element(&mut path, &key[separators..]);
            match entries(node) {
                [(b"", file)] => self.add_leaf(file, path)?,
                _ => self.add_tree(node, &path)?,
            }
        }
        Ok(())
    }

    fn add_leaf(&mut self, file: &Node, path: String) -> Result<(), String> {
        if !file.is_dict() {
            return Err("its file tree holds a file that is no dictionary".into());
        }
        if has_attribute(file, PADDING) {
            return Err("its file tree holds a padding file".into());
        }
        let size = self.add(file, path)?;
        let root = file.get(b"pieces root").and_then(Node::as_bytes);
        let has_root = root.is_some_and(|root| root.len() == SHA256_LEN && root != [0; SHA256_LEN]);
        if size > 0 && !has_root {
            return Err("one of its files has no pieces root".into());
        }
        Ok(())
    }

    /// Adds a file; returns its size in bytes.
    fn add(&mut self, file: &Node, path: String) -> Result<u64, String> {
        let size = if has_attribute(file, SYMLINK) {
            list_of(file, b"symlink path").map_or(Ok(()), |target| join(target).map(drop))?;
            0
        } else {
            let length = int(file, b"length").and_then(|length| u64::try_from(length).ok());
            length
                .filter(|length| length / BLOCK < FILE_BLOCKS_MAX)
                .ok_or("one of its files has no length that clients can use")?
        };
        if let (Some(piece), true) = (self.align, size > 0) {
            self.total = self.total.next_multiple_of(piece);
        }
        self.any = true;
        if !has_attribute(file, PADDING) {
            self.list.push(Listed {
                path,
                size,
                // The position of an empty file has no meaning.
                offset: if size == 0 { 0 } else { self.total },
            });
        }
        self.total += size;
        if self.total > TOTAL_MAX {
            return Err("its files are too large together".into());
        }
        Ok(size)
    }
}

/// Whether that is among the attributes of a file (BEP 47).
fn has_attribute(file: &Node, letter: u8) -> bool {
    let letters = file.get(b"attr").and_then(Node::as_bytes);
    letters.is_some_and(|letters| letters.contains(&letter))
}

fn entries<'n, 'a>(node: &'n Node<'a>) -> &'n [(&'a [u8], Node<'a>)] {
    match &node.value {
        Value::Dict(entries) => entries,
        _ => &[],
    }
}

fn list_of<'n, 'a>(node: &'n Node<'a>, key: &[u8]) -> Option<&'n [Node<'a>]> {
    match &node.get(key)?.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

fn int(node: &Node, key: &[u8]) -> Option<i64> {
    node.get(key)?.as_int()
}
