//! Reading a request's body.

use serde_json::{Value, json};

use crate::model::failure::Failure;

/// A string, absent when null or empty; anything else can't be deserialized.
pub(crate) fn text<'a>(body: &'a Value, key: &str) -> Result<Option<&'a str>, Failure> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(malformed(key, "a string")),
    }
}

/// A string that must be there; `what` begins the complaint, as in `Service cannot be blank.`
pub(crate) fn required<'a>(body: &'a Value, key: &str, what: &str) -> Result<&'a str, Failure> {
    text(body, key)?.ok_or_else(|| Failure::invalid(format!("{what} cannot be blank.")))
}

/// The cluster that a request means: `default` when it names none.
pub(crate) fn cluster(body: &Value) -> Result<&str, Failure> {
    Ok(text(body, "cluster")?.unwrap_or("default"))
}

/// A list of strings, empty when absent.
pub(crate) fn list<'a>(body: &'a Value, key: &str) -> Result<Vec<&'a str>, Failure> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().ok_or_else(|| malformed(key, "a list of strings"))).collect()
        }
        Some(_) => Err(malformed(key, "a list of strings")),
    }
}

/// A list of values, empty when absent.
pub(crate) fn values(body: &Value, key: &str) -> Result<Vec<Value>, Failure> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items.clone()),
        Some(_) => Err(malformed(key, "a list")),
    }
}

/// A number that is not negative.
pub(crate) fn number(body: &Value, key: &str) -> Result<Option<u32>, Failure> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            let small = number.as_u64().and_then(|number| u32::try_from(number).ok());
            small.map(Some).ok_or_else(|| Failure::invalid(format!("{key} must be a positive number.")))
        }
        Some(_) => Err(malformed(key, "a number")),
    }
}

/// A truth value, false when absent.
pub(crate) fn flag(body: &Value, key: &str) -> Result<bool, Failure> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(malformed(key, "a truth value")),
    }
}

/// Whether a list of this name holds this word, as `include` does.
pub(crate) fn includes(body: &Value, word: &str) -> Result<bool, Failure> {
    Ok(list(body, "include")?.contains(&word))
}

/// A point in time, in seconds since the epoch.
pub(crate) fn time(body: &Value, key: &str) -> Result<Option<f64>, Failure> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| malformed(key, "a time")),
    }
}

/// One page of a list, with a `nextToken` while there is more; a page is as long as it may be unless told otherwise.
pub(crate) fn page(body: &Value, key: &str, items: &[Value], most: u32) -> Result<Value, Failure> {
    page_of(body, key, items, most, most)
}

/// The same, of a list whose pages have a usual length that is shorter than the longest.
pub(crate) fn page_of(body: &Value, key: &str, items: &[Value], usual: u32, most: u32) -> Result<Value, Failure> {
    let size = number(body, "maxResults")?.unwrap_or(usual);
    if size == 0 || size > most {
        return Err(Failure::invalid(format!("maxResults must be between 1 and {most}.")));
    }
    let start = match text(body, "nextToken")? {
        None => 0,
        Some(token) => {
            let offset = token.strip_prefix("from-").and_then(|offset| offset.parse::<usize>().ok());
            offset.filter(|offset| *offset <= items.len()).ok_or_else(|| Failure::invalid("Invalid token."))?
        }
    };
    let end = items.len().min(start + size as usize);
    let mut answer = json!({ key: items[start..end] });
    if end < items.len() {
        answer["nextToken"] = json!(format!("from-{end}"));
    }
    Ok(answer)
}

fn malformed(key: &str, expected: &str) -> Failure {
    Failure::new("SerializationException", format!("Expected {expected} for `{key}`."))
}
