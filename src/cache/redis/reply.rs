//! Replies as Rust values; none for a reply of another form.

use redis::{FromRedisValue, Value};

/// Bytes of a string reply.
pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

/// A string reply; invalid UTF-8 is replaced.
pub(super) fn text(value: Value) -> Option<String> {
    let bytes = bytes(value)?;
    Some(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

pub(super) fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) | Value::Set(values) => Some(values),
        _ => None,
    }
}

/// A flat list of alternating names and values.
pub(super) fn pairs(value: Value) -> Option<Vec<(String, Value)>> {
    let mut values = list(value)?.into_iter();
    let mut pairs = Vec::with_capacity(values.len() / 2);
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        pairs.push((text(name)?, value));
    }
    Some(pairs)
}

pub(super) fn integer(value: &Value) -> Option<i64> {
    i64::from_redis_value_ref(value).ok()
}
