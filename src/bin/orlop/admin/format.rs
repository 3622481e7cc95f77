//! Fields of answers as people read them.

use jiff::Timestamp;
use serde_json::Value;

pub(super) use orlop::words::{bytes, counted, duration};

/// What stands where nothing is known or nothing applies.
pub(super) const NONE: &str = "-";

/// A size of an answer.
pub(super) fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| NONE.to_owned(), bytes)
}

/// A number of an answer.
pub(super) fn count(value: &Value) -> String {
    value.as_u64().map_or_else(|| NONE.to_owned(), |count| count.to_string())
}

/// A text of an answer.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| NONE.to_owned(), plain)
}

/// A text without what would change how a terminal behaves.
pub(super) fn plain(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// A time of an answer, to the second.
pub(super) fn time(value: &Value) -> String {
    match value.as_str().map(str::parse::<Timestamp>) {
        Some(Ok(time)) => Timestamp::from_second(time.as_second()).unwrap_or(time).to_string(),
        _ => text(value),
    }
}

/// A time, and how far it is from now.
pub(super) fn time_from(value: &Value, now: Timestamp) -> String {
    let Some(Ok(at)) = value.as_str().map(str::parse::<Timestamp>) else { return text(value) };
    let shown = time(value);
    if at <= now { shown } else { format!("{shown} (in {})", duration(at.duration_since(now))) }
}

/// The time between two times of an answer.
pub(super) fn between(from: &Value, to: &Value) -> Option<String> {
    let from: Timestamp = from.as_str()?.parse().ok()?;
    let to: Timestamp = to.as_str()?.parse().ok()?;
    Some(duration(to.duration_since(from)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_told_to_the_second_and_what_is_no_time_as_it_is() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(time(&json!("2026-11-21T12:00:00.789Z")), "2026-11-21T12:00:00Z");
        assert_eq!(time(&json!("soon\n")), "soon\\n");
        assert_eq!(time(&Value::Null), "-");
        assert_eq!(time_from(&json!("2026-12-05T12:00:00Z"), now), "2026-12-05T12:00:00Z (in 14d)");
        assert_eq!(time_from(&json!("2026-11-20T12:00:00Z"), now), "2026-11-20T12:00:00Z");
        assert_eq!(between(&json!("2026-11-21T12:00:00Z"), &json!("2026-11-21T12:00:01.5Z")).as_deref(), Some("1.5s"));
    }
}
