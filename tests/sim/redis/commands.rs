//! The commands of Redis that Mika uses, on the keys of one server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::keyspace::{EntryId, Keyspace, Stream, WrongType};

type Hash = BTreeMap<String, String>;
type Sorted = BTreeMap<String, i64>;

/// An error reply: code and text.
pub struct ErrorReply(pub String);

type Reply = Result<Value, ErrorReply>;

/// One command on the keys of one server.
pub struct Command<'a> {
    pub keys: &'a mut Keyspace,
    pub args: &'a [String],
    /// The server's clock, in milliseconds.
    pub unix_millis: u64,
}

/// An error reply, as the redis crate parses it.
pub fn error(text: &str) -> Value {
    let parsed = redis::parse_redis_value(format!("-{text}\r\n").as_bytes());
    parsed.unwrap_or_else(|error| panic!("{text:?} is no error reply: {error}"))
}

pub fn text(text: impl Into<String>) -> Value {
    Value::BulkString(text.into().into_bytes())
}

fn optional(found: Option<&String>) -> Value {
    found.map_or(Value::Nil, text)
}

fn flag(is_set: bool) -> Value {
    Value::Int(is_set.into())
}

fn count(number: usize) -> Value {
    Value::Int(number as i64)
}

fn overflow() -> ErrorReply {
    ErrorReply("ERR increment or decrement would overflow".into())
}

/// An id of a stream's entry; the second number may be missing.
fn entry_id(text: &str) -> Option<EntryId> {
    let (millis, number) = text.split_once('-').unwrap_or((text, "0"));
    Some((millis.parse().ok()?, number.parse().ok()?))
}

fn entry((id, fields): (&EntryId, &Arc<Vec<(String, String)>>)) -> Value {
    let fields = fields.iter().flat_map(|(name, value)| [name, value]);
    Value::Array(vec![
        text(format!("{}-{}", id.0, id.1)),
        Value::Array(fields.map(text).collect()),
    ])
}

/// Whether a pattern of `SCAN` matches: a prefix, maybe `[0-9]`, and `*`.
fn matches(pattern: &str, key: &str) -> bool {
    let Some(prefix) = pattern.strip_suffix('*') else {
        return pattern == key;
    };
    match prefix.strip_suffix("[0-9]") {
        Some(prefix) => key
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())),
        None => key.starts_with(prefix),
    }
}

impl From<WrongType> for ErrorReply {
    fn from(_: WrongType) -> Self {
        Self("WRONGTYPE Operation against a key holding the wrong kind of value".into())
    }
}

// === impl Command ===

impl Command<'_> {
    pub fn execute(mut self) -> Value {
        let reply = match self.arg(0) {
            "GET" => self.get(),
            "SET" => Ok(self.set()),
            "PEXPIRE" => Ok(self.expire()),
            "UNLINK" => Ok(flag(self.keys.remove(&self.args[1]))),
            "INCRBY" => self.increment(),
            "SCAN" => Ok(self.scan()),
            name if name.starts_with('H') => self.hash(),
            "SADD" | "SREM" => self.change_set(),
            name if name.starts_with('Z') => self.sorted(),
            name if name.starts_with('X') => self.stream(),
            name => Err(ErrorReply(format!("ERR unknown command '{name}'"))),
        };
        reply.unwrap_or_else(|ErrorReply(text)| error(&text))
    }

    fn arg(&self, index: usize) -> &'_ str {
        self.args.get(index).map_or("", String::as_str)
    }

    fn has(&self, word: &str) -> bool {
        self.args.iter().any(|arg| arg == word)
    }

    /// The argument that follows a word.
    fn after(&self, word: &str) -> Option<&str> {
        let at = self.args.iter().position(|arg| arg == word)?;
        self.args.get(at + 1).map(String::as_str)
    }

    fn number_after(&self, word: &str) -> Option<u64> {
        self.after(word)?.parse().ok()
    }

    /// The arguments from an index on, in pairs.
    fn pairs(&self, from: usize) -> Vec<(String, String)> {
        let pairs = self.args[from..].chunks_exact(2);
        pairs.map(|it| (it[0].clone(), it[1].clone())).collect()
    }

    fn get(&self) -> Reply {
        Ok(optional(self.keys.get::<String>(self.arg(1))?))
    }

    fn set(&mut self) -> Value {
        if self.has("NX") && self.keys.has(self.arg(1)) {
            return Value::Nil;
        }
        let until = self
            .number_after("PX")
            .map(|millis| Instant::now() + Duration::from_millis(millis));
        self.keys.set(&self.args[1], &self.args[2], until);
        Value::Okay
    }

    fn expire(&mut self) -> Value {
        let millis = self.arg(2).parse().unwrap_or(0);
        let until = Instant::now() + Duration::from_millis(millis);
        flag(self.keys.expire(&self.args[1], until))
    }

    fn increment(&mut self) -> Reply {
        let more: i64 = self.arg(2).parse().unwrap_or(0);
        self.keys.change(&self.args[1], |text: &mut String| {
            let number: i64 = text.parse().unwrap_or(0);
            let sum = number.checked_add(more).ok_or_else(overflow)?;
            *text = sum.to_string();
            Ok(Value::Int(sum))
        })?
    }

    /// All keys of the pattern at once.
    fn scan(&self) -> Value {
        let pattern = self.after("MATCH").unwrap_or("*");
        let names = self.keys.names().filter(|name| matches(pattern, name));
        let names = names.map(|name| text(&**name)).collect();
        Value::Array(vec![text("0"), Value::Array(names)])
    }

    fn hash(&mut self) -> Reply {
        let (key, fields) = (&self.args[1], &self.args[2..]);
        let no_fields = Hash::new();
        let hash = self.keys.get::<Hash>(key)?.unwrap_or(&no_fields);
        match self.arg(0) {
            "HGET" => Ok(optional(hash.get(&fields[0]))),
            "HMGET" => {
                let values = fields.iter().map(|field| optional(hash.get(field)));
                Ok(Value::Array(values.collect()))
            }
            "HGETALL" => {
                let all = hash.iter().flat_map(|(field, value)| [field, value]);
                Ok(Value::Array(all.map(text).collect()))
            }
            "HKEYS" => Ok(Value::Array(hash.keys().map(text).collect())),
            "HEXISTS" => Ok(flag(hash.contains_key(&fields[0]))),
            "HSET" => {
                let pairs = self.pairs(2);
                let len = pairs.len();
                self.keys
                    .change(key, |hash: &mut Hash| hash.extend(pairs))?;
                Ok(count(len))
            }
            "HDEL" if hash.is_empty() => Ok(count(0)),
            "HDEL" => {
                let removed = self.keys.change(key, |hash: &mut Hash| {
                    let removed = fields.iter().filter(|it| hash.remove(*it).is_some());
                    removed.count()
                })?;
                Ok(count(removed))
            }
            "HINCRBY" => self.increment_field(),
            name => Err(ErrorReply(format!("ERR unknown command '{name}'"))),
        }
    }

    fn increment_field(&mut self) -> Reply {
        let (key, field) = (&self.args[1], &self.args[2]);
        let more: i64 = self.arg(3).parse().unwrap_or(0);
        self.keys.change(key, |hash: &mut Hash| {
            let number: i64 = match hash.get(field).map(|text| text.parse()) {
                None => 0,
                Some(Ok(number)) => number,
                Some(Err(_)) => return Err(ErrorReply("ERR hash value is not an integer".into())),
            };
            let sum = number.checked_add(more).ok_or_else(overflow)?;
            hash.insert(field.clone(), sum.to_string());
            Ok(Value::Int(sum))
        })?
    }

    fn change_set(&mut self) -> Reply {
        let (is_add, members) = (self.arg(0) == "SADD", &self.args[2..]);
        let change = |set: &mut BTreeSet<String>| {
            let changed = members.iter().filter(|member| {
                if is_add {
                    set.insert((*member).clone())
                } else {
                    set.remove(*member)
                }
            });
            changed.count()
        };
        Ok(count(self.keys.change(&self.args[1], change)?))
    }

    fn sorted(&mut self) -> Reply {
        let (name, key) = (self.arg(0).to_owned(), &self.args[1]);
        let change = |members: &mut Sorted| match name.as_str() {
            "ZADD" => {
                for pair in self.args[2..].chunks_exact(2) {
                    members.insert(pair[1].clone(), pair[0].parse().unwrap_or(0));
                }
                Ok(count(self.args.len() / 2 - 1))
            }
            "ZINCRBY" => {
                let score = members.entry(self.args[3].clone()).or_default();
                *score += self.args[2].parse().unwrap_or(0);
                Ok(text(score.to_string()))
            }
            "ZREM" => {
                let gone = self.args[2..].iter();
                Ok(count(
                    gone.filter(|it| members.remove(*it).is_some()).count(),
                ))
            }
            name => Err(ErrorReply(format!("ERR unknown command '{name}'"))),
        };
        self.keys.change(key, change)?
    }

    fn stream(&mut self) -> Reply {
        match self.arg(0) {
            "XADD" => self.add_entry(),
            "XTRIM" => {
                let Some(first) = entry_id(self.arg(4)) else {
                    return Err(ErrorReply("ERR Invalid stream ID".into()));
                };
                if !self.keys.has(self.arg(1)) {
                    return Ok(count(0));
                }
                let trimmed = self.keys.change(&self.args[1], |stream: &mut Stream| {
                    let kept = stream.entries.split_off(&first);
                    std::mem::replace(&mut stream.entries, kept).len()
                })?;
                Ok(count(trimmed))
            }
            "XRANGE" => {
                let first = entry_id(self.arg(2)).unwrap_or_default();
                let limit = self.number_after("COUNT").unwrap_or(u64::MAX);
                let stream = self.keys.get::<Stream>(self.arg(1))?;
                let entries = stream.into_iter().flat_map(|it| it.entries.range(first..));
                let entries = entries.take(limit as usize).map(entry);
                Ok(Value::Array(entries.collect()))
            }
            "XREAD" => self.read_entries(),
            "XINFO" => match self.keys.get::<Stream>(self.arg(2))? {
                None => Err(ErrorReply("ERR no such key".into())),
                Some(stream) => Ok(Value::Array(vec![
                    text("length"),
                    count(stream.entries.len()),
                    text("last-generated-id"),
                    text(format!("{}-{}", stream.last.0, stream.last.1)),
                    text("first-entry"),
                    stream.entries.first_key_value().map_or(Value::Nil, entry),
                ])),
            },
            name => Err(ErrorReply(format!("ERR unknown command '{name}'"))),
        }
    }

    fn add_entry(&mut self) -> Reply {
        if self.has("NOMKSTREAM") && !self.keys.has(self.arg(1)) {
            return Ok(Value::Nil);
        }
        let is_id = |arg: &String| arg == "*" || entry_id(arg).is_some();
        let at = match self.args.iter().position(|arg| arg == "MAXLEN") {
            Some(option) => option + 3,
            None => self.args.iter().position(is_id).unwrap_or(2),
        };
        let (given, fields) = (entry_id(self.arg(at)), self.pairs(at + 1));
        let now = self.unix_millis;
        self.keys.change(&self.args[1], |stream: &mut Stream| {
            let last = stream.last;
            let next = if now > last.0 {
                (now, 0)
            } else {
                (last.0, last.1 + 1)
            };
            let id = given.unwrap_or(next);
            if id <= last {
                let problem = "ERR The ID specified in XADD is equal or smaller than the target stream top item";
                return Err(ErrorReply(problem.into()));
            }
            stream.last = id;
            stream.entries.insert(id, Arc::new(fields));
            Ok(text(format!("{}-{}", id.0, id.1)))
        })?
    }

    /// As if it did not block.
    fn read_entries(&self) -> Reply {
        let at = self.args.iter().position(|arg| arg == "STREAMS");
        let at = at.ok_or_else(|| ErrorReply("ERR syntax error".into()))?;
        let (key, after) = (self.arg(at + 1), entry_id(self.arg(at + 2)));
        let (millis, number) = after.ok_or_else(|| ErrorReply("ERR Invalid stream ID".into()))?;
        let limit = self.number_after("COUNT").unwrap_or(u64::MAX);
        let stream = self.keys.get::<Stream>(key)?;
        let first = (millis, number.saturating_add(1));
        let entries = stream.into_iter().flat_map(|it| it.entries.range(first..));
        let entries: Vec<Value> = entries.take(limit as usize).map(entry).collect();
        if entries.is_empty() {
            return Ok(Value::Nil);
        }
        let stream = Value::Array(vec![text(key), Value::Array(entries)]);
        Ok(Value::Array(vec![stream]))
    }
}
