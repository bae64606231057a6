//! What the Lua scripts of the driver do, in Rust.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use redis::Value;
use sha1::{Digest as _, Sha1};

use super::commands::{error, text};
use super::keyspace::Keyspace;

type Hash = BTreeMap<String, String>;

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
}

/// The scripts that a server knows, by their ids.
#[derive(Clone, Default)]
pub struct Scripts(BTreeMap<String, Script>);

// === impl Scripts ===

impl Scripts {
    /// Remembers a script; returns its id.
    pub fn load(&mut self, code: &str) -> Value {
        let id = HEXLOWER.encode(&Sha1::digest(code));
        let words = [
            ("skipped", Script::PutUnlessNewer),
            ("owner", Script::SetOwner),
            ("unpack(ARGV)", Script::SetIfThere),
            ("HEXISTS", Script::Begin),
        ];
        let script = words.into_iter().find(|(word, _)| code.contains(word));
        let (_, script) = script.unwrap_or_else(|| panic!("an unknown script: {code}"));
        self.0.insert(id.clone(), script);
        text(id)
    }

    /// Executes `EVALSHA id 1 key argument …`.
    pub fn call(&self, keys: &mut Keyspace, args: &[String]) -> Value {
        let Some(script) = self.0.get(&args[1]) else {
            return error("NOSCRIPT No matching script. Please use EVAL.");
        };
        let (key, args) = (&args[3], &args[4..]);
        let done = keys.change(key, |hash: &mut Hash| script.run(hash, args));
        done.unwrap_or_else(|_| {
            error("WRONGTYPE Operation against a key holding the wrong kind of value")
        })
    }
}

// === impl Script ===

impl Script {
    fn run(self, hash: &mut Hash, args: &[String]) -> Value {
        match self {
            Self::PutUnlessNewer => put_unless_newer(hash, args),
            Self::Begin => {
                let field = hash.entry(args[0].clone());
                text(&**field.or_insert_with(|| args[1].clone()))
            }
            Self::SetOwner => {
                let owner = hash.get(&args[0]).filter(|owner| **owner != args[2]);
                if let Some(owner) = owner {
                    return text(owner);
                }
                hash.insert(args[0].clone(), args[1].clone());
                text(&args[1])
            }
            Self::SetIfThere => {
                if hash.contains_key("passkey") {
                    let pairs = args.chunks_exact(2);
                    hash.extend(pairs.map(|it| (it[0].clone(), it[1].clone())));
                }
                Value::Nil
            }
        }
    }
}

/// Fields, each with text, number of announces, times of the first and the last one, and whether it is active.
fn put_unless_newer(hash: &mut Hash, args: &[String]) -> Value {
    let mut skipped = Vec::new();
    for member in args.chunks_exact(6) {
        let is_newer = match hash.get(&member[0]).and_then(|old| age_of(old)) {
            Some(old) => is_newer(&member[2..], &old),
            None => true,
        };
        if is_newer {
            hash.insert(member[0].clone(), member[1].clone());
        } else {
            skipped.push(text(&member[0]));
        }
    }
    Value::Array(skipped)
}

/// Announces, first, last, and whether it is active, of the text of a member.
fn age_of(text: &str) -> Option<[i64; 4]> {
    let fields: Vec<&str> = text.split(' ').collect();
    if fields.first() != Some(&"1") || fields.len() < 19 {
        return None;
    }
    let number = |index: usize| fields[index].parse().ok();
    Some([number(14)?, number(15)?, number(16)?, number(17)?])
}

fn is_newer(new: &[String], old: &[i64; 4]) -> bool {
    let number = |index: usize| new[index].parse().unwrap_or(0);
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
