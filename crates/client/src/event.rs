//! Events: CloudEvents 1.0, as values to build and to read.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use handfast_core::ids::TransactionId;
use handfast_wire::raw::event::{AttributesEntry, Data as WireData};
use handfast_wire::v1::event_attribute::Attr;
use handfast_wire::{Malformed, event as wire, prost_types, raw, v1};
use uuid::Uuid;

/// A message of yours: CloudEvents 1.0 attributes and data. At most 1 MiB encoded.
///
/// ```
/// let event = handfast::Event::new("transfer.made", "/bank")
///     .with_key("account-7")
///     .with_json(r#"{"amount":100}"#);
/// assert_eq!(event.kind, "transfer.made");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// With `source` it names the event. [`Event::new`] gives it a fresh UUIDv7.
    pub id: String,
    /// Where it comes from: a URI reference.
    pub source: String,
    /// CloudEvents `type`: what happened.
    pub kind: String,
    /// What it is about.
    pub subject: Option<String>,
    /// When it happened. When it was published is known without it.
    pub time: Option<SystemTime>,
    /// CloudEvents `datacontenttype`: what the data is.
    pub content_type: Option<String>,
    /// CloudEvents `dataschema`: a URI.
    pub schema: Option<String>,
    /// CloudEvents `partitionkey`: events of one topic with the same key are delivered in order;
    /// without it no order is promised. Not empty.
    pub key: Option<String>,
    /// All other attributes. Names are 1 to 20 characters out of `a-z 0-9`, and do not start with
    /// `handfast`.
    pub extensions: BTreeMap<String, Attribute>,
    /// The data.
    pub data: Data,
}

/// The data of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Data {
    /// None.
    #[default]
    None,
    /// Bytes.
    Binary(Bytes),
    /// Text.
    Text(String),
    /// A protobuf message, encoded, with the URL of its type.
    Proto {
        /// Such as `type.googleapis.com/bank.Transfer`.
        type_url: String,
        /// The message.
        value: Bytes,
    },
}

impl Data {
    /// The bytes, whatever kind they are of; empty if there are none.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Binary(bytes) | Self::Proto { value: bytes, .. } => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }
}

/// The value of an attribute, in the types of CloudEvents.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// Boolean.
    Boolean(bool),
    /// Integer of 32 bits.
    Integer(i32),
    /// String.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// Absolute URI.
    Uri(String),
    /// URI reference.
    UriReference(String),
    /// Timestamp.
    Time(SystemTime),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i32> for Attribute {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Attribute {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl Event {
    /// An event of this type from this source, with a fresh id and no data.
    #[must_use]
    pub fn new(kind: impl Into<String>, source: impl Into<String>) -> Self {
        Self::named(Uuid::now_v7().to_string(), source.into(), kind.into())
    }

    /// An event with nothing but what each has.
    fn named(id: String, source: String, kind: String) -> Self {
        Self {
            id,
            source,
            kind,
            subject: None,
            time: None,
            content_type: None,
            schema: None,
            key: None,
            extensions: BTreeMap::new(),
            data: Data::None,
        }
    }

    /// Another id than the one it was given.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// What it is about.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// When it happened.
    #[must_use]
    pub fn with_time(mut self, time: SystemTime) -> Self {
        self.time = Some(time);
        self
    }

    /// What the data is.
    #[must_use]
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Which schema the data has.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Its ordering key; see [`Event::key`].
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// An attribute of your own; see [`Event::extensions`].
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<Attribute>) -> Self {
        self.extensions.insert(name.into(), value.into());
        self
    }

    /// Bytes as data.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = Data::Binary(data.into());
        self
    }

    /// Text as data.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.data = Data::Text(text.into());
        self
    }

    /// A JSON document as data, with its content type.
    #[must_use]
    pub fn with_json(self, json: impl Into<String>) -> Self {
        self.with_text(json).with_content_type("application/json")
    }

    /// A protobuf message as data.
    #[must_use]
    pub fn with_proto(mut self, type_url: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.data = Data::Proto { type_url: type_url.into(), value: value.into() };
        self
    }

    /// The event with what the server knows about it as extensions, for whoever passes it on as a
    /// CloudEvent: `handfastoffset`, `handfasttime` and, if a transaction published it,
    /// `handfasttransaction`. Such an event cannot be published again: those names are the
    /// server's.
    pub(crate) fn stamped(
        mut self,
        offset: u64,
        published: SystemTime,
        transaction: Option<TransactionId>,
    ) -> Self {
        let mut put = |name: &str, value| self.extensions.insert(name.to_owned(), value);
        put(wire::OFFSET, Attribute::Text(offset.to_string()));
        put(wire::TIME, Attribute::Time(published));
        if let Some(id) = transaction {
            put(wire::TRANSACTION, Attribute::Text(id.to_string()));
        }
        self
    }

    pub(crate) fn encode(self) -> Bytes {
        wire::encode(&self.into())
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, Malformed> {
        wire::decode(body).map(Into::into)
    }
}

fn attribute(name: impl Into<String>, attr: Attr) -> AttributesEntry {
    AttributesEntry { key: name.into(), value: Some(v1::EventAttribute { attr: Some(attr) }) }
}

impl From<Event> for raw::Event {
    fn from(event: Event) -> Self {
        let own = [
            ("subject", event.subject.map(Attr::CeString)),
            ("time", event.time.map(|time| Attr::CeTimestamp(time.into()))),
            ("datacontenttype", event.content_type.map(Attr::CeString)),
            ("dataschema", event.schema.map(Attr::CeUri)),
            (wire::PARTITION_KEY, event.key.map(Attr::CeString)),
        ];
        let mut attributes: Vec<AttributesEntry> =
            own.into_iter().filter_map(|(name, attr)| Some(attribute(name, attr?))).collect();
        // A name that is given twice stands for the field of its own.
        let others = event.extensions.into_iter().filter(|(name, _)| !has(&attributes, name));
        let others: Vec<_> = others.map(|(name, value)| attribute(name, value.into())).collect();
        attributes.extend(others);
        let data = match event.data {
            Data::None => None,
            Data::Binary(bytes) => Some(WireData::BinaryData(bytes)),
            Data::Text(text) => Some(WireData::TextData(text)),
            Data::Proto { type_url, value } => {
                let any = prost_types::Any { type_url, value: value.to_vec() };
                Some(WireData::ProtoData(any))
            }
        };
        Self {
            id: event.id,
            source: event.source,
            spec_version: wire::SPEC_VERSION.to_owned(),
            r#type: event.kind,
            attributes,
            data,
        }
    }
}

fn has(attributes: &[AttributesEntry], name: &str) -> bool {
    attributes.iter().any(|entry| entry.key == name)
}

impl From<raw::Event> for Event {
    /// An attribute that has a field of its own but another type than CloudEvents gives it stays
    /// in `extensions`, so that nothing is lost. Of a name that is given twice the last counts.
    fn from(message: raw::Event) -> Self {
        let mut event = Self::named(message.id, message.source, message.r#type);
        event.data = match message.data {
            None => Data::None,
            Some(WireData::BinaryData(bytes)) => Data::Binary(bytes),
            Some(WireData::TextData(text)) => Data::Text(text),
            Some(WireData::ProtoData(any)) => {
                Data::Proto { type_url: any.type_url, value: any.value.into() }
            }
        };
        for AttributesEntry { key, value } in message.attributes {
            if let Some(attr) = value.and_then(|value| value.attr) {
                event.read_attribute(key, attr);
            }
        }
        event
    }
}

impl Event {
    fn read_attribute(&mut self, name: String, attr: Attr) {
        let field = match name.as_str() {
            "subject" => Some(&mut self.subject),
            "datacontenttype" => Some(&mut self.content_type),
            "dataschema" => Some(&mut self.schema),
            wire::PARTITION_KEY => Some(&mut self.key),
            _ => None,
        };
        let other = match (field, attr) {
            (Some(field), Attr::CeString(text) | Attr::CeUri(text) | Attr::CeUriRef(text)) => {
                *field = Some(text);
                None
            }
            (Some(field), other) => {
                *field = None;
                Some(other)
            }
            (None, Attr::CeTimestamp(at)) if name == "time" => {
                self.time = SystemTime::try_from(at).ok();
                self.time.is_none().then_some(Attr::CeTimestamp(at))
            }
            (None, other) => {
                if name == "time" {
                    self.time = None;
                }
                Some(other)
            }
        };
        match other {
            Some(other) => drop(self.extensions.insert(name, Attribute::read(other))),
            None => drop(self.extensions.remove(&name)),
        }
    }
}

impl From<Attribute> for Attr {
    fn from(value: Attribute) -> Self {
        match value {
            Attribute::Boolean(value) => Self::CeBoolean(value),
            Attribute::Integer(value) => Self::CeInteger(value),
            Attribute::Text(text) => Self::CeString(text),
            Attribute::Binary(bytes) => Self::CeBytes(bytes),
            Attribute::Uri(uri) => Self::CeUri(uri),
            Attribute::UriReference(uri) => Self::CeUriRef(uri),
            Attribute::Time(time) => Self::CeTimestamp(time.into()),
        }
    }
}

impl Attribute {
    fn read(attr: Attr) -> Self {
        match attr {
            Attr::CeBoolean(value) => Self::Boolean(value),
            Attr::CeInteger(value) => Self::Integer(value),
            Attr::CeString(text) => Self::Text(text),
            Attr::CeBytes(bytes) => Self::Binary(bytes),
            Attr::CeUri(uri) => Self::Uri(uri),
            Attr::CeUriRef(uri) => Self::UriReference(uri),
            // A time outside of what this machine's clock can say: as text rather than not at all.
            Attr::CeTimestamp(time) => {
                SystemTime::try_from(time).map_or_else(|_| Self::Text(time.to_string()), Self::Time)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_survives_the_wire_and_passes_the_server_s_check() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        for data in [
            Data::None,
            Data::Binary(Bytes::from_static(b"\0\xff")),
            Data::Text("ä".into()),
            Data::Proto { type_url: "t/x.Y".into(), value: Bytes::from_static(b"\x08\x01") },
        ] {
            let mut event = Event::new("transfer.made", "/bank")
                .with_subject("account 7")
                .with_time(time)
                .with_content_type("application/json")
                .with_schema("https://example.org/s")
                .with_key("7")
                .with_extension("tries", 3)
                .with_extension("final", true)
                .with_extension("traceparent", "00-ab")
                .with_extension("at", Attribute::Time(time))
                .with_extension("raw", Attribute::Binary(Bytes::from_static(b"\x01")))
                .with_extension("uri", Attribute::Uri("https://example.org".into()))
                .with_extension("ref", Attribute::UriReference("/x".into()));
            event.data = data;
            let body = event.clone().encode();
            assert!(wire::check(&body).expect("well-formed").key.is_some());
            assert_eq!(Event::decode(body).expect("well-formed"), event);
        }
    }

    #[test]
    fn an_attribute_of_another_type_is_kept() {
        let mut message = raw::Event::from(Event::new("a", "/b"));
        message.attributes.push(attribute("time", Attr::CeString("noon".into())));
        message.attributes.push(attribute("subject", Attr::CeInteger(7)));
        let event = Event::from(message);
        assert_eq!(event.time, None);
        assert_eq!(event.extensions["time"], Attribute::Text("noon".into()));
        assert_eq!(event.extensions["subject"], Attribute::Integer(7));
    }

    #[test]
    fn of_an_attribute_that_is_given_twice_the_last_counts() {
        let mut message = raw::Event::from(Event::new("a", "/b").with_subject("one"));
        for attr in [Attr::CeInteger(7), Attr::CeString("two".into())] {
            message.attributes.push(attribute("subject", attr));
            message.attributes.push(attribute("x", Attr::CeBoolean(true)));
        }
        let event = Event::from(message.clone());
        assert_eq!(event.subject.as_deref(), Some("two"));
        assert_eq!(event.extensions.keys().collect::<Vec<_>>(), ["x"]);
        message.attributes.push(attribute("subject", Attr::CeInteger(8)));
        let event = Event::from(message);
        assert_eq!((event.subject, event.extensions.len()), (None, 2));
    }

    #[test]
    fn ids_are_fresh() {
        assert_ne!(Event::new("a", "/b").id, Event::new("a", "/b").id);
    }
}
