//! What the Lua scripts of the driver do, in Rust.

use data_encoding::HEXLOWER;
use redis::Value;
use sha1::{Digest as _, Sha1};

use super::commands::{entry_name, error, number, text};
use super::keyspace::{Bytes, Hash, Keyspace, Stream, WrongType};

/// A script of the driver.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    /// Writes members of a swarm that are newer.
    PutUnlessNewer,
    /// Writes a field if it is missing.
    Begin,
    /// Writes a field if it is missing or has a certain value.
    SetOwner,
    /// Writes fields of a user that is there.
    SetIfThere,
    /// Writes a field if another has a certain value, or is missing and the value is empty.
    SetInEpoch,
    /// The id of the last entry that a stream ever had.
    LastId,
}

/// The scripts that a server knows.
#[derive(Default)]
pub struct Scripts(Vec<Loaded>);

struct Loaded {
    code: Bytes,
    id: Bytes,
    script: Script,
}

// === impl Scripts ===

impl Scripts {
    /// Remembers a script; returns its id.
    pub fn load(&mut self, code: &[u8]) -> Value {
        let known = self.0.iter().find(|loaded| loaded.code == code);
        if let Some(loaded) = known {
            return text(&*loaded.id);
        }
        let loaded = Loaded::of(code);
        let id = text(&*loaded.id);
        self.0.push(loaded);
        id
    }

    /// Executes `EVALSHA id 1 key argument …`.
    pub fn call(&self, keys: &mut Keyspace, key: &str, args: &[&[u8]]) -> Value {
        let Some(loaded) = self.0.iter().find(|loaded| loaded.id == args[1]) else {
            return error("NOSCRIPT No matching script. Please use EVAL.");
        };
        let done = loaded.script.run(keys, key, &args[4..]);
        done.unwrap_or_else(|_| {
            error("WRONGTYPE Operation against a key holding the wrong kind of value")
        })
    }
}

impl Loaded {
    fn of(code: &[u8]) -> Self {
        let words = [
            ("last-generated-id", Script::LastId),
            ("skipped", Script::PutUnlessNewer),
            ("owner", Script::SetOwner),
            ("unpack(ARGV)", Script::SetIfThere),
            ("HEXISTS", Script::Begin),
            ("ARGV[4]", Script::SetInEpoch),
        ];
        let text = String::from_utf8_lossy(code);
        let script = words.into_iter().find(|(word, _)| text.contains(word));
        let (_, script) = script.unwrap_or_else(|| panic!("an unknown script: {text}"));
        Self {
            code: code.to_vec(),
            id: HEXLOWER.encode(&Sha1::digest(code)).into_bytes(),
            script,
        }
    }
}

// === impl Script ===

impl Script {
    fn run(self, keys: &mut Keyspace, key: &str, args: &[&[u8]]) -> Result<Value, WrongType> {
        match self {
            Self::PutUnlessNewer => keys.change(key, |hash| put_unless_newer(hash, args)),
            Self::Begin => keys.change(key, |hash: &mut Hash| {
                let field = hash.entry(args[0].to_vec());
                text(&**field.or_insert_with(|| args[1].to_vec()))
            }),
            Self::SetOwner => keys.change(key, |hash: &mut Hash| {
                let owner = hash.get(args[0]).filter(|owner| **owner != args[2]);
                if let Some(owner) = owner {
                    return text(&**owner);
                }
                hash.insert(args[0].to_vec(), args[1].to_vec());
                text(args[1])
            }),
            Self::SetIfThere => keys.change(key, |hash: &mut Hash| {
                if hash.contains_key(&b"passkey"[..]) {
                    let pairs = args.chunks_exact(2);
                    hash.extend(pairs.map(|it| (it[0].to_vec(), it[1].to_vec())));
                }
                Value::Nil
            }),
            Self::SetInEpoch => keys.change(key, |hash: &mut Hash| {
                let epoch = hash.get(args[0]).map(Vec::as_slice).unwrap_or_default();
                let is_same = epoch == args[1];
                if is_same {
                    hash.insert(args[2].to_vec(), args[3].to_vec());
                }
                Value::Int(is_same.into())
            }),
            Self::LastId => {
                let stream = keys.get::<Stream>(key)?;
                let last = stream.map(|stream| stream.last).unwrap_or_default();
                Ok(text(entry_name(last)))
            }
        }
    }
}

/// Fields, each with text, number of announces, times of the first and the last one, and whether it is active.
fn put_unless_newer(hash: &mut Hash, args: &[&[u8]]) -> Value {
    let mut skipped = Vec::new();
    for member in args.chunks_exact(6) {
        let is_newer = match hash.get(member[0]).and_then(|old| age_of(old)) {
            Some(old) => is_newer(&member[2..], &old),
            None => true,
        };
        if is_newer {
            hash.insert(member[0].to_vec(), member[1].to_vec());
        } else {
            skipped.push(text(member[0]));
        }
    }
    Value::Array(skipped)
}

/// Announces, first, last, and whether it is active, of the text of a member.
fn age_of(text: &[u8]) -> Option<[i64; 4]> {
    let text = std::str::from_utf8(text).ok()?;
    let fields: Vec<&str> = text.split(' ').collect();
    if fields.first() != Some(&"1") || fields.len() < 19 {
        return None;
    }
    let number = |index: usize| fields[index].parse().ok();
    Some([number(14)?, number(15)?, number(16)?, number(17)?])
}

fn is_newer(new: &[&[u8]], old: &[i64; 4]) -> bool {
    let number = |index: usize| number(new[index]).unwrap_or(0);
    let new: [i64; 4] = [number(0), number(1), number(2), number(3)];
    let [announces, first, last, active] = *old;
    if new[1] - last > 5 {
        return true;
    }
    let (more, later) = (new[0] - announces, new[2] - last);
    let is_as_new = if new[3] == active {
        later >= 0
    } else {
        active == 1
    };
    first - new[2] <= 5 && (more > 0 || later > 5 || (more == 0 && is_as_new))
}
