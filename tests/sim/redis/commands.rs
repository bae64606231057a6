//! The commands of Redis that Mika uses, on the keys of one server.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::keyspace::{Bytes, EntryId, Fields, Hash, Keyspace, Set, Sorted, Stream, WrongType};

/// An error reply: code and text.
pub struct ErrorReply(pub String);

type Reply = Result<Value, ErrorReply>;

/// One command on the keys of one server.
pub struct Command<'a> {
    pub keys: &'a mut Keyspace,
    pub args: &'a [&'a [u8]],
    /// The server's clock, in milliseconds.
    pub unix_millis: u64,
}

/// An error reply, as the redis crate parses it.
pub fn error(text: &str) -> Value {
    let parsed = redis::parse_redis_value(format!("-{text}\r\n").as_bytes());
    parsed.unwrap_or_else(|error| panic!("{text:?} is no error reply: {error}"))
}

pub fn text(text: impl Into<Bytes>) -> Value {
    Value::BulkString(text.into())
}

/// A number in decimal form.
pub fn number<N: FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An argument that is a name, an option or a key. Those of the driver are text.
pub fn word<'a>(args: &[&'a [u8]], index: usize) -> &'a str {
    let arg = args.get(index).copied().unwrap_or_default();
    std::str::from_utf8(arg).unwrap_or_else(|_| panic!("argument {index} is not text: {args:?}"))
}

/// The place of an option.
pub fn place_of(args: &[&[u8]], option: &str) -> Option<usize> {
    args.iter().position(|arg| *arg == option.as_bytes())
}

/// The name of an entry of a stream.
pub fn entry_name((millis, number): EntryId) -> String {
    format!("{millis}-{number}")
}

fn optional(found: Option<&Bytes>) -> Value {
    found.map_or(Value::Nil, |it| text(&**it))
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
fn entry_id(text: &[u8]) -> Option<EntryId> {
    let text = std::str::from_utf8(text).ok()?;
    let (millis, number) = text.split_once('-').unwrap_or((text, "0"));
    Some((millis.parse().ok()?, number.parse().ok()?))
}

fn entry((id, fields): (&EntryId, &Arc<Fields>)) -> Value {
    let fields = fields.iter().flat_map(|(name, value)| [name, value]);
    Value::Array(vec![
        text(entry_name(*id)),
        Value::Array(fields.map(|it| text(&**it)).collect()),
    ])
}

/// Whether a pattern of `SCAN` matches: characters, sets of them such as `[ab0-9]`, and a `*` at its end.
fn matches(pattern: &str, key: &str) -> bool {
    let (mut pattern, mut key) = (pattern.chars(), key.chars());
    while let Some(wanted) = pattern.next() {
        let fits = match wanted {
            '*' => return pattern.as_str().is_empty(),
            '[' => {
                let set: Vec<char> = pattern.by_ref().take_while(|it| *it != ']').collect();
                key.next().is_some_and(|it| is_in_set(&set, it))
            }
            wanted => key.next() == Some(wanted),
        };
        if !fits {
            return false;
        }
    }
    key.as_str().is_empty()
}

fn is_in_set(set: &[char], it: char) -> bool {
    let mut ranges = set.windows(3).filter(|three| three[1] == '-');
    set.contains(&it) || ranges.any(|three| (three[0]..=three[2]).contains(&it))
}

impl From<WrongType> for ErrorReply {
    fn from(_: WrongType) -> Self {
        Self("WRONGTYPE Operation against a key holding the wrong kind of value".into())
    }
}

// === impl Command ===

impl<'a> Command<'a> {
    pub fn execute(mut self) -> Value {
        let reply = match self.name() {
            "GET" => self.get(),
            "SET" => Ok(self.set()),
            "PEXPIRE" => Ok(self.expire()),
            "UNLINK" => Ok(flag(self.keys.remove(self.key()))),
            "INCRBY" => self.increment(),
            "SCAN" => Ok(self.scan()),
            name if name.starts_with('H') => self.hash(),
            "SADD" | "SREM" => self.change_set(),
            name if name.starts_with('Z') => self.sorted(),
            name if name.starts_with('X') => self.stream(),
            _ => Err(self.unknown()),
        };
        reply.unwrap_or_else(|ErrorReply(text)| error(&text))
    }

    fn name(&self) -> &'a str {
        word(self.args, 0)
    }

    /// The key of most commands.
    fn key(&self) -> &'a str {
        word(self.args, 1)
    }

    fn unknown(&self) -> ErrorReply {
        ErrorReply(format!("ERR unknown command '{}'", self.name()))
    }

    fn arg(&self, index: usize) -> &'a [u8] {
        self.args.get(index).copied().unwrap_or_default()
    }

    fn has(&self, option: &str) -> bool {
        place_of(self.args, option).is_some()
    }

    /// The argument that follows an option, as a number.
    fn number_after(&self, option: &str) -> Option<u64> {
        number(self.arg(place_of(self.args, option)? + 1))
    }

    /// The arguments from an index on, in pairs.
    fn pairs(&self, from: usize) -> Fields {
        let pairs = self.args[from..].chunks_exact(2);
        pairs.map(|it| (it[0].to_vec(), it[1].to_vec())).collect()
    }

    fn get(&self) -> Reply {
        Ok(optional(self.keys.get::<Bytes>(self.key())?))
    }

    fn set(&mut self) -> Value {
        let key = self.key();
        if self.has("NX") && self.keys.has(key) {
            return Value::Nil;
        }
        let until = self
            .number_after("PX")
            .map(|millis| Instant::now() + Duration::from_millis(millis));
        self.keys.set(key, self.args[2].to_vec(), until);
        Value::Okay
    }

    fn expire(&mut self) -> Value {
        let millis = number(self.arg(2)).unwrap_or(0);
        let until = Instant::now() + Duration::from_millis(millis);
        flag(self.keys.expire(self.key(), until))
    }

    fn increment(&mut self) -> Reply {
        let more: i64 = number(self.arg(2)).unwrap_or(0);
        self.keys.change(self.key(), |text: &mut Bytes| {
            let before: i64 = number(text).unwrap_or(0);
            let sum = before.checked_add(more).ok_or_else(overflow)?;
            *text = sum.to_string().into_bytes();
            Ok(Value::Int(sum))
        })?
    }

    /// All keys of the pattern at once.
    fn scan(&self) -> Value {
        let pattern = place_of(self.args, "MATCH");
        let pattern = pattern.map_or("*", |at| word(self.args, at + 1));
        let names = self.keys.names().filter(|name| matches(pattern, name));
        let names = names.map(|name| text(&**name)).collect();
        Value::Array(vec![text("0"), Value::Array(names)])
    }

    fn hash(&mut self) -> Reply {
        let (key, fields) = (self.key(), &self.args[2..]);
        let no_fields = Hash::new();
        let hash = self.keys.get::<Hash>(key)?.unwrap_or(&no_fields);
        match self.name() {
            "HGET" => Ok(optional(hash.get(fields[0]))),
            "HMGET" => {
                let values = fields.iter().map(|field| optional(hash.get(*field)));
                Ok(Value::Array(values.collect()))
            }
            "HGETALL" => {
                let all = hash.iter().flat_map(|(field, value)| [field, value]);
                Ok(Value::Array(all.map(|it| text(&**it)).collect()))
            }
            "HKEYS" => Ok(Value::Array(hash.keys().map(|it| text(&**it)).collect())),
            "HEXISTS" => Ok(flag(hash.contains_key(fields[0]))),
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
                    let removed = fields.iter().filter(|it| hash.remove(**it).is_some());
                    removed.count()
                })?;
                Ok(count(removed))
            }
            "HINCRBY" => self.increment_field(),
            _ => Err(self.unknown()),
        }
    }

    fn increment_field(&mut self) -> Reply {
        let more: i64 = number(self.arg(3)).unwrap_or(0);
        let (key, field) = (self.key(), self.args[2]);
        self.keys.change(key, |hash: &mut Hash| {
            let before: i64 = match hash.get(field) {
                None => 0,
                Some(text) => number(text)
                    .ok_or_else(|| ErrorReply("ERR hash value is not an integer".into()))?,
            };
            let sum = before.checked_add(more).ok_or_else(overflow)?;
            hash.insert(field.to_vec(), sum.to_string().into_bytes());
            Ok(Value::Int(sum))
        })?
    }

    fn change_set(&mut self) -> Reply {
        let (is_add, members) = (self.name() == "SADD", &self.args[2..]);
        let change = |set: &mut Set| {
            let changed = members.iter().filter(|member| {
                if is_add {
                    set.insert(member.to_vec())
                } else {
                    set.remove(**member)
                }
            });
            changed.count()
        };
        Ok(count(self.keys.change(self.key(), change)?))
    }

    fn sorted(&mut self) -> Reply {
        let args = self.args;
        let change = |members: &mut Sorted| match word(args, 0) {
            "ZADD" => {
                for pair in args[2..].chunks_exact(2) {
                    members.insert(pair[1].to_vec(), number(pair[0]).unwrap_or(0));
                }
                Ok(count(args.len() / 2 - 1))
            }
            "ZINCRBY" => {
                let score = members.entry(args[3].to_vec()).or_default();
                *score += number(args[2]).unwrap_or(0);
                Ok(text(score.to_string()))
            }
            "ZREM" => {
                let gone = args[2..].iter();
                Ok(count(
                    gone.filter(|it| members.remove(**it).is_some()).count(),
                ))
            }
            name => Err(ErrorReply(format!("ERR unknown command '{name}'"))),
        };
        self.keys.change(word(args, 1), change)?
    }

    fn stream(&mut self) -> Reply {
        match self.name() {
            "XADD" => self.add_entry(),
            "XTRIM" => {
                let Some(first) = entry_id(self.arg(4)) else {
                    return Err(ErrorReply("ERR Invalid stream ID".into()));
                };
                if !self.keys.has(self.key()) {
                    return Ok(count(0));
                }
                let trimmed = self.keys.change(self.key(), |stream: &mut Stream| {
                    let kept = stream.entries.split_off(&first);
                    std::mem::replace(&mut stream.entries, kept).len()
                })?;
                Ok(count(trimmed))
            }
            "XRANGE" => {
                let first = entry_id(self.arg(2)).unwrap_or_default();
                let limit = self.number_after("COUNT").unwrap_or(u64::MAX);
                let stream = self.keys.get::<Stream>(self.key())?;
                let entries = stream.into_iter().flat_map(|it| it.entries.range(first..));
                let entries = entries.take(limit as usize).map(entry);
                Ok(Value::Array(entries.collect()))
            }
            "XREAD" => self.read_entries(),
            "XINFO" => match self.keys.get::<Stream>(word(self.args, 2))? {
                None => Err(ErrorReply("ERR no such key".into())),
                Some(stream) => Ok(Value::Array(vec![
                    text("length"),
                    count(stream.entries.len()),
                    text("last-generated-id"),
                    text(entry_name(stream.last)),
                    text("first-entry"),
                    stream.entries.first_key_value().map_or(Value::Nil, entry),
                ])),
            },
            _ => Err(self.unknown()),
        }
    }

    fn add_entry(&mut self) -> Reply {
        let key = self.key();
        if self.has("NOMKSTREAM") && !self.keys.has(key) {
            return Ok(Value::Nil);
        }
        let is_id = |arg: &&[u8]| *arg == b"*" || entry_id(arg).is_some();
        let at = match place_of(self.args, "MAXLEN") {
            Some(option) => option + 3,
            None => self.args.iter().position(is_id).unwrap_or(2),
        };
        let (given, fields) = (entry_id(self.arg(at)), self.pairs(at + 1));
        let now = self.unix_millis;
        self.keys.change(key, |stream: &mut Stream| {
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
            Ok(text(entry_name(id)))
        })?
    }

    /// As if it did not block.
    fn read_entries(&self) -> Reply {
        let at = place_of(self.args, "STREAMS");
        let at = at.ok_or_else(|| ErrorReply("ERR syntax error".into()))?;
        let (key, after) = (word(self.args, at + 1), entry_id(self.arg(at + 2)));
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
