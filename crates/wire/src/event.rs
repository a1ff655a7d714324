//! Events as bytes: checked once when they come in, carried as they are, given a few attributes
//! when they leave without a message around them.
//!
//! [`check`] promises that whatever it lets pass can be decoded by every reader of the contract:
//! one bad event in a frame of a thousand would otherwise spoil the frame for its subscriber. So it
//! is stricter than a decoder: unknown fields and fields given twice are refused, and so is what
//! a decoder would take and a converter to JSON would not, or what is no CloudEvent: the values of
//! attributes are checked as the specification says (`attributes`).

use bytes::Bytes;
use handfast_core::ids::KeyHash;
use handfast_core::limits::EVENT_BYTES;
use handfast_core::refusal::{Code, Refusal};
use prost::Message;

use crate::attributes::{self, Problem};
use crate::hash;
use crate::{Malformed, raw};

/// The only version of CloudEvents that there is.
pub const SPEC_VERSION: &str = "1.0";
/// The attribute with the ordering key (CloudEvents extension "partitioning").
pub const PARTITION_KEY: &str = "partitionkey";
/// Attributes that start so are the server's.
pub const RESERVED_PREFIX: &str = "handfast";
/// The attribute with the transaction that published the event, as UUID text.
pub const TRANSACTION: &str = "handfasttransaction";
/// The attribute with the event's offset in its topic, in decimal digits.
pub const OFFSET: &str = "handfastoffset";
/// The attribute with the time at which the event was published or its transaction decided.
pub const TIME: &str = "handfasttime";

/// Longest name of an attribute, in bytes.
const ATTRIBUTE_NAME_BYTES: usize = 20;
/// Attributes that have a field of their own, or that CloudEvents keeps for the data.
const FIELDS: [&str; 5] = ["id", "source", "specversion", "type", "data"];
/// Seconds of the years 1 to 9999, the range of google.protobuf.Timestamp.
const SECONDS: core::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// What the core has to know about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventFacts {
    /// The hash of the ordering key; see [`hash::key_hash`].
    pub key: Option<KeyHash>,
}

/// Checks an encoded event in one walk, without allocation.
///
/// # Errors
/// `too_large` over [`EVENT_BYTES`]; else `invalid_argument` with a sentence that names the field.
pub fn check(body: &[u8]) -> Result<EventFacts, Refusal> {
    if body.len() > EVENT_BYTES {
        let detail = format!("an event has at most {EVENT_BYTES} bytes, this has {}", body.len());
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    walk(body).map_err(|wrong| {
        let what = match wrong {
            Wrong::Form(what) => what.to_owned(),
            Wrong::Value(name, what) => format!("`{name}` {what}"),
        };
        Refusal::new(Code::InvalidArgument, format!("the event is not well-formed: {what}"))
    })
}

/// Decodes an event. Bytes of its data are shared with `body`.
///
/// # Errors
/// When it is not an event; what [`check`] let pass always is one.
pub fn decode(body: Bytes) -> Result<raw::Event, Malformed> {
    raw::Event::decode(body).map_err(|problem| Malformed::new("event", problem.to_string()))
}

/// Encodes an event, attributes in the order in which they are.
#[must_use]
pub fn encode(event: &raw::Event) -> Bytes {
    event.encode_to_vec().into()
}

/// A stable hash of an event's content that does not depend on the order of its attributes, which
/// encoders of several languages choose at random. Its `time` is left out: some CloudEvents SDKs
/// make one up for an event that has none, so that the same event relayed twice has two. Of bytes
/// that are no event: of the bytes.
#[must_use]
pub fn digest(body: &[u8]) -> u64 {
    let mut sum = 0u64;
    for field in Fields(body) {
        let hash = match field {
            Ok((ATTRIBUTES, Value::Bytes(entry))) if name_of(entry) == b"time" => continue,
            Ok((tag, Value::Bytes(bytes))) => hash::of_bytes(tag, bytes),
            Ok((tag, Value::Varint(number))) => hash::mix(u64::from(tag), number),
            Err(_) => return hash::of_bytes(0, body),
        };
        sum = sum.wrapping_add(hash);
    }
    sum
}

/// The field with the attributes.
const ATTRIBUTES: u32 = 5;

/// The name of an attribute, from its entry; nothing if it has none.
fn name_of(entry: &[u8]) -> &[u8] {
    let name = Fields(entry).find_map(|field| match field {
        Ok((1, Value::Bytes(name))) => Some(name),
        _ => None,
    });
    name.unwrap_or_default()
}

/// What is wrong, for people.
enum Wrong {
    /// With the encoding, or with what there has to be.
    Form(&'static str),
    /// With the value of this attribute.
    Value(String, Problem),
}

/// A field's value. Wire types for fixed numbers and groups do not occur in an event.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], Wrong> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) => Err(Wrong::Form("a field has another wire type than it should")),
        }
    }

    fn text(self) -> Result<&'a str, Wrong> {
        str::from_utf8(self.bytes()?).map_err(|_| Wrong::Form("a text is not UTF-8"))
    }

    fn varint(self) -> Result<u64, Wrong> {
        match self {
            Self::Varint(number) => Ok(number),
            Self::Bytes(_) => Err(Wrong::Form("a field has another wire type than it should")),
        }
    }
}

/// The fields of an encoded message, in order. Ends after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), Wrong> {
        let key = u32::try_from(self.varint()?)
            .map_err(|_| Wrong::Form("a field's number is too high"))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            2 => {
                let cut = Wrong::Form("it ends in the middle of a field");
                let Ok(length) = usize::try_from(self.varint()?) else { return Err(cut) };
                let Some((bytes, rest)) = self.0.split_at_checked(length) else { return Err(cut) };
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return Err(Wrong::Form("a field has a wire type that no event has")),
        };
        Ok((key >> 3, value))
    }

    fn varint(&mut self) -> Result<u64, Wrong> {
        let mut value = 0u64;
        for i in 0..10 {
            let Some((byte, rest)) = self.0.split_first() else {
                return Err(Wrong::Form("it ends in the middle of a number"));
            };
            self.0 = rest;
            if i == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Wrong::Form("a number is longer than 64 bits"))
    }
}

/// Marks a field as seen; a second time is wrong.
fn once(seen: &mut u32, field: u32) -> Result<(), Wrong> {
    if *seen & (1 << field) != 0 {
        return Err(Wrong::Form("a field is given twice"));
    }
    *seen |= 1 << field;
    Ok(())
}

fn walk(body: &[u8]) -> Result<EventFacts, Wrong> {
    let mut seen = 0;
    let mut key = None;
    for field in Fields(body) {
        let (number, value) = field?;
        match number {
            1 => required(&mut seen, 1, value, "id", attributes::string)?,
            2 => required(&mut seen, 2, value, "source", attributes::uri_reference)?,
            3 => {
                once(&mut seen, 3)?;
                let version = value.text()?;
                if !version.is_empty() && version != SPEC_VERSION {
                    return Err(Wrong::Form("`spec_version` is not 1.0"));
                }
            }
            4 => required(&mut seen, 4, value, "type", attributes::string)?,
            5 => {
                if let Some(text) = attribute(value.bytes()?)? {
                    once(&mut seen, 5)?;
                    key = Some(hash::key_hash(text));
                }
            }
            // One of three: a second one counts as a second one of the same.
            6..=8 => {
                once(&mut seen, 6)?;
                match number {
                    6 => drop(value.bytes()?),
                    7 => drop(value.text()?),
                    _ => any(value.bytes()?)?,
                }
            }
            _ => return Err(Wrong::Form("it has a field that events do not have")),
        }
    }
    for (field, wrong) in [(1, "`id` is empty"), (2, "`source` is empty"), (4, "`type` is empty")] {
        if seen & (1 << field) == 0 {
            return Err(Wrong::Form(wrong));
        }
    }
    Ok(EventFacts { key })
}

fn required(
    seen: &mut u32,
    field: u32,
    value: Value<'_>,
    name: &str,
    check: fn(&str) -> Result<(), Problem>,
) -> Result<(), Wrong> {
    once(seen, field)?;
    let text = value.text()?;
    let checked = if text.is_empty() { Err("is empty") } else { check(text) };
    checked.map_err(|problem| Wrong::Value(name.to_owned(), problem))
}

/// Checks one entry of `attributes`; the ordering key, if it is that.
fn attribute(entry: &[u8]) -> Result<Option<&str>, Wrong> {
    let mut seen = 0;
    let mut name = "";
    let mut typed = None;
    for field in Fields(entry) {
        let (number, value) = field?;
        match number {
            1 => {
                once(&mut seen, 1)?;
                name = value.text()?;
            }
            2 => {
                once(&mut seen, 2)?;
                typed = Some(attribute_value(value.bytes()?)?);
            }
            _ => return Err(Wrong::Form("an attribute has a field that attributes do not have")),
        }
    }
    let fits = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if name.is_empty() || name.len() > ATTRIBUTE_NAME_BYTES || !fits {
        return Err(Wrong::Form("an attribute's name is not 1 to 20 characters out of a-z 0-9"));
    }
    if FIELDS.contains(&name) {
        return Err(Wrong::Form(
            "`attributes` holds `id`, `source`, `specversion`, `type` or `data`",
        ));
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Wrong::Form("attributes that start with `handfast` are the server's"));
    }
    let Some(typed) = typed else {
        return Err(Wrong::Form("an attribute has no value"));
    };
    check_value(name, &typed).map_err(|problem| Wrong::Value(name.to_owned(), problem))?;
    match typed {
        Typed::Text(text) if name == PARTITION_KEY => Ok(Some(text)),
        _ => Ok(None),
    }
}

/// The value of an attribute, as far as it has to be looked at.
enum Typed<'a> {
    Text(&'a str),
    Uri(&'a str),
    UriReference(&'a str),
    Time,
    /// A boolean, an integer, or bytes.
    Plain,
    /// No value of its type.
    Not(Problem),
}

/// What CloudEvents says about the values of its own attributes, and of all others by their type.
fn check_value(name: &str, typed: &Typed<'_>) -> Result<(), Problem> {
    match (name, typed) {
        (_, Typed::Not(problem)) => Err(problem),
        // As text it stays the text that was received.
        ("time", Typed::Text(text)) => attributes::time(text),
        ("time", Typed::Time) => Ok(()),
        ("time", _) => Err("is not a timestamp"),
        ("dataschema", Typed::Uri(text) | Typed::Text(text)) => attributes::uri(text),
        ("dataschema", _) => Err("is not an absolute URI"),
        ("datacontenttype", Typed::Text(text)) => attributes::media_type(text),
        ("datacontenttype", _) => Err("is not a string"),
        ("subject" | PARTITION_KEY, Typed::Text(text)) if !text.is_empty() => {
            attributes::string(text)
        }
        ("subject" | PARTITION_KEY, _) => Err("is not a string, or empty"),
        (_, Typed::Text(text)) => attributes::string(text),
        (_, Typed::Uri(text)) => attributes::uri(text),
        (_, Typed::UriReference(text)) => attributes::uri_reference(text),
        (_, Typed::Time | Typed::Plain) => Ok(()),
    }
}

/// Reads the value of an attribute.
fn attribute_value(message: &[u8]) -> Result<Typed<'_>, Wrong> {
    let mut seen = 0;
    let mut typed = None;
    for field in Fields(message) {
        let (number, value) = field?;
        once(&mut seen, 1)?;
        typed = Some(match number {
            1 if value.varint()? <= 1 => Typed::Plain,
            1 => Typed::Not("is a boolean that is neither 0 nor 1"),
            // A negative number is its two's complement with 64 bits; what a decoder would cut off
            // was not meant.
            2 if i32::try_from(value.varint()? as i64).is_ok() => Typed::Plain,
            2 => Typed::Not("is an integer of more than 32 bits"),
            3 => Typed::Text(value.text()?),
            4 => {
                value.bytes()?;
                Typed::Plain
            }
            5 => Typed::Uri(value.text()?),
            6 => Typed::UriReference(value.text()?),
            7 => {
                timestamp(value.bytes()?)?;
                Typed::Time
            }
            _ => return Err(Wrong::Form("an attribute has a type that CloudEvents do not have")),
        });
    }
    typed.ok_or(Wrong::Form("an attribute has no value"))
}

fn timestamp(message: &[u8]) -> Result<(), Wrong> {
    let mut seen = 0;
    for field in Fields(message) {
        let (number, value) = field?;
        // A negative number is its two's complement with 64 bits.
        let number_value = value.varint()? as i64;
        match number {
            1 if SECONDS.contains(&number_value) => once(&mut seen, 1)?,
            2 if (0..1_000_000_000).contains(&number_value) => once(&mut seen, 2)?,
            _ => return Err(Wrong::Form("a timestamp is outside of the years 1 to 9999")),
        }
    }
    Ok(())
}

fn any(message: &[u8]) -> Result<(), Wrong> {
    let mut seen = 0;
    for field in Fields(message) {
        let (number, value) = field?;
        match number {
            1 => {
                once(&mut seen, 1)?;
                value.text()?;
            }
            2 => {
                once(&mut seen, 2)?;
                value.bytes()?;
            }
            _ => return Err(Wrong::Form("`proto_data` has a field that Any does not have")),
        }
    }
    Ok(())
}
