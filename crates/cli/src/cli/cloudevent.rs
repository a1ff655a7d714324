//! Events as CloudEvents JSON, for programs, and as text, for people.
//!
//! To the event's own attributes are added where it stands: `handfastoffset`, `handfasttime` and,
//! if a transaction published it, `handfasttransaction`.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handfast::{Attribute, Data, StoredEvent};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::output::{rfc3339, time, visible};

/// An event in CloudEvents' JSON format.
#[derive(Debug, Serialize)]
pub(crate) struct Json {
    #[serde(flatten)]
    attributes: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// A time of the server, in milliseconds.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An event as JSON. Data that is JSON by its content type stands there as it is; other text is a
/// string; everything else is `data_base64`.
pub(crate) fn json(stored: &StoredEvent) -> Result<Json, serde_json::Error> {
    let event = &stored.event;
    let mut attributes: BTreeMap<String, Value> =
        event.extensions.iter().map(|(name, value)| (name.clone(), attribute(value))).collect();
    let mut put = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            attributes.insert(name.to_owned(), Value::String(text));
        }
    };
    put("specversion", Some("1.0".to_owned()));
    put("id", Some(event.id.clone()));
    put("source", Some(event.source.clone()));
    put("type", Some(event.kind.clone()));
    put("subject", event.subject.clone());
    put("time", event.time.and_then(timestamp));
    put("datacontenttype", event.content_type.clone());
    put("partitionkey", event.key.clone());
    put("handfastoffset", Some(stored.offset.to_string()));
    put("handfasttime", rfc3339(unix_ms(stored.published)));
    put("handfasttransaction", stored.transaction.map(|id| id.to_string()));
    let schema = match &event.data {
        Data::Proto { type_url, .. } => event.schema.clone().or_else(|| Some(type_url.clone())),
        Data::None | Data::Binary(_) | Data::Text(_) => event.schema.clone(),
    };
    put("dataschema", schema);
    let (mut data, mut data_base64) = (None, None);
    match &event.data {
        Data::None => {}
        Data::Proto { value, .. } => data_base64 = Some(STANDARD.encode(value)),
        Data::Binary(_) | Data::Text(_) => match std::str::from_utf8(event.data.as_bytes()) {
            Ok(text) => data = Some(text_data(text, event.content_type.as_deref())?),
            Err(_) => data_base64 = Some(STANDARD.encode(event.data.as_bytes())),
        },
    }
    Ok(Json { attributes, data, data_base64 })
}

fn text_data(text: &str, content_type: Option<&str>) -> Result<Box<RawValue>, serde_json::Error> {
    if content_type.is_some_and(is_json) {
        // Line ends are only between a document's tokens: it has to stay on one line here.
        let line = text.replace(['\n', '\r'], " ");
        if let Ok(document) = RawValue::from_string(line) {
            return Ok(document);
        }
    }
    serde_json::value::to_raw_value(text)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

fn attribute(value: &Attribute) -> Value {
    match value {
        Attribute::Boolean(value) => Value::Bool(*value),
        Attribute::Integer(value) => Value::from(*value),
        Attribute::Text(text) | Attribute::Uri(text) | Attribute::UriReference(text) => {
            Value::String(text.clone())
        }
        Attribute::Binary(bytes) => Value::String(STANDARD.encode(bytes)),
        Attribute::Time(time) => timestamp(*time).map_or(Value::Null, Value::String),
    }
}

fn timestamp(time: SystemTime) -> Option<String> {
    Timestamp::try_from(time).ok().map(|time| time.to_string())
}

/// An event on one line, for people.
pub(crate) fn line(stored: &StoredEvent) -> String {
    let event = &stored.event;
    let mut line = format!("{:>6}  {}", stored.offset, time(unix_ms(stored.published)));
    line.push_str(&format!("  {}", visible(&event.kind)));
    if let Some(key) = &event.key {
        line.push_str(&format!("  key={}", visible(key)));
    }
    if let Some(subject) = &event.subject {
        line.push_str(&format!("  subject={}", visible(subject)));
    }
    match data(&event.data) {
        None => line,
        Some(data) => format!("{line}  {data}"),
    }
}

/// An event with all its attributes, for people.
pub(crate) fn lines(stored: &StoredEvent) -> Vec<String> {
    let event = &stored.event;
    let mut lines = Vec::new();
    let mut put = |name: &str, text: Option<String>| {
        lines.extend(text.map(|text| format!("{name:<11} {text}")));
    };
    put("offset", Some(stored.offset.to_string()));
    put("published", Some(time(unix_ms(stored.published))));
    put("transaction", stored.transaction.map(|id| id.to_string()));
    put("type", Some(visible(&event.kind)));
    put("source", Some(visible(&event.source)));
    put("id", Some(visible(&event.id)));
    put("subject", event.subject.as_deref().map(visible));
    put("time", event.time.and_then(timestamp));
    put("key", event.key.as_deref().map(visible));
    put("content", event.content_type.as_deref().map(visible));
    put("schema", event.schema.as_deref().map(visible));
    for (name, value) in &event.extensions {
        let value = attribute(value);
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        put(name, Some(visible(&text)));
    }
    put("data", data(&event.data));
    lines
}

/// Text if it is text, else base64.
fn data(data: &Data) -> Option<String> {
    match data {
        Data::None => None,
        Data::Proto { type_url, value } => {
            Some(format!("{} base64:{}", visible(type_url), STANDARD.encode(value)))
        }
        Data::Binary(_) | Data::Text(_) => Some(match std::str::from_utf8(data.as_bytes()) {
            Ok(text) => visible(text),
            Err(_) => format!("base64:{}", STANDARD.encode(data.as_bytes())),
        }),
    }
}

#[cfg(test)]
mod tests {
    use handfast::Event;
    use handfast_wire::raw;

    use super::*;

    /// As it comes from a server.
    fn stored(event: Event) -> StoredEvent {
        let message = raw::Event::from(event);
        raw::StoredEvent {
            offset: 7,
            transaction_id: handfast_wire::ids::transaction_bytes(handfast::TransactionId(9)),
            published_unix_ms: 1_795_370_400_500,
            event: handfast_wire::event::encode(&message),
        }
        .try_into()
        .expect("well-formed")
    }

    fn event() -> Event {
        let mut event = Event::new("transfer.made", "/bank").with_key("7");
        event.id = "e-1".to_owned();
        event
    }

    fn check(event: Event, expected: &str) {
        let text = serde_json::to_string(&json(&stored(event)).expect("JSON")).expect("JSON");
        let rest = text
            .replace(
                "\"handfastoffset\":\"7\",\"handfasttime\":\"2026-11-22T18:00:00.500Z\",\
                 \"handfasttransaction\":\"00000000-0000-0000-0000-000000000009\",",
                "",
            )
            .replace("\"id\":\"e-1\",\"partitionkey\":\"7\",", "")
            .replace("\"source\":\"/bank\",\"specversion\":\"1.0\",", "");
        assert_eq!(rest, expected, "{text}");
    }

    #[test]
    fn data_is_json_text_or_base64() {
        check(event(), r#"{"type":"transfer.made"}"#);
        check(event().with_text("ä\n"), r#"{"type":"transfer.made","data":"ä\n"}"#);
        check(event().with_data("text"), r#"{"type":"transfer.made","data":"text"}"#);
        check(event().with_data(vec![0xff, 0]), r#"{"type":"transfer.made","data_base64":"/wA="}"#);
        // Numbers stay as they were written, and everything stays on one line.
        check(
            event().with_json("{\"amount\":\n 1e400}"),
            r#"{"datacontenttype":"application/json","type":"transfer.made","data":{"amount":  1e400}}"#,
        );
        check(
            event().with_json("not JSON"),
            r#"{"datacontenttype":"application/json","type":"transfer.made","data":"not JSON"}"#,
        );
    }

    #[test]
    fn attributes_keep_their_types() {
        let event = event()
            .with_extension("tries", 3)
            .with_extension("final", true)
            .with_extension("raw", Attribute::Binary(vec![1_u8].into()));
        check(event, r#"{"final":true,"raw":"AQ==","tries":3,"type":"transfer.made"}"#);
    }

    #[test]
    fn people_get_one_line() {
        let text = line(&stored(event().with_text("a\x1b[1m\nb")));
        assert_eq!(text, "     7  2026-11-22 18:00:00.500Z  transfer.made  key=7  a\\u{1b}[1m\\nb");
    }
}
