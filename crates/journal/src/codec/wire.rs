//! The small pieces of the encoding: numbers, strings, lists.
//!
//! Varints are little-endian base 128 and must be as short as possible, so that every value has
//! one encoding.

use std::sync::Arc;

use bytes::Bytes;

use super::Malformed;

/// A value with a fixed encoding.
pub(crate) trait Codec: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads the value.
    fn take(input: &mut Input) -> Result<Self, Malformed>;
}

/// Bytes that are read from the front.
pub(crate) struct Input {
    bytes: Bytes,
    at: usize,
}

impl Input {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.remaining() == 0 { Ok(()) } else { Err(Malformed("bytes behind the end")) }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or(Malformed("too short"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let rest = &self.bytes[self.at..];
        let array = *rest.first_chunk::<N>().ok_or(Malformed("too short"))?;
        self.at += N;
        Ok(array)
    }

    /// A slice that shares the buffer.
    pub(crate) fn slice(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.remaining() {
            return Err(Malformed("a length beyond the end"));
        }
        let slice = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(slice)
    }

    fn text(&mut self, length: usize) -> Result<&str, Malformed> {
        if length > self.remaining() {
            return Err(Malformed("a length beyond the end"));
        }
        let from = self.at;
        self.at += length;
        std::str::from_utf8(&self.bytes[from..self.at]).map_err(|_| Malformed("text is not UTF-8"))
    }

    /// A short text, looked at where it lies.
    pub(crate) fn short_text<T>(
        &mut self,
        parse: impl FnOnce(&str) -> Option<T>,
        complaint: &'static str,
    ) -> Result<T, Malformed> {
        let length = self.length()?;
        parse(self.text(length)?).ok_or(Malformed(complaint))
    }

    /// A number of bytes or items; each item takes at least one byte.
    pub(crate) fn length(&mut self) -> Result<usize, Malformed> {
        let length = u64::take(self)?;
        match usize::try_from(length) {
            Ok(length) if length <= self.remaining() => Ok(length),
            _ => Err(Malformed("a length beyond the end")),
        }
    }
}

impl Codec for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = input.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(Malformed("a number too large"));
            }
            value |= part << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 {
                    Err(Malformed("a number longer than it need be"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(Malformed("a number too large"))
    }
}

impl Codec for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        u64::from(*self).put(out);
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        u32::try_from(u64::take(input)?).map_err(|_| Malformed("a number too large"))
    }
}

impl Codec for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        match input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither yes nor no")),
        }
    }
}

impl Codec for String {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        let length = input.length()?;
        Ok(input.text(length)?.to_owned())
    }
}

impl Codec for Arc<str> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        let length = input.length()?;
        Ok(Arc::from(input.text(length)?))
    }
}

impl Codec for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self);
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        let length = input.length()?;
        input.slice(length)
    }
}

impl<T: Codec> Codec for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        T::put(self, out);
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        T::take(input).map(Self::new)
    }
}

impl<T: Codec> Codec for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        if bool::take(input)? { Ok(Some(T::take(input)?)) } else { Ok(None) }
    }
}

impl<T: Codec> Codec for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        for item in self {
            item.put(out);
        }
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        let count = input.length()?;
        // A lying count must not allocate: the list grows with what is really there.
        let mut items = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            items.push(T::take(input)?);
        }
        Ok(items)
    }
}

impl<A: Codec, B: Codec> Codec for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        Ok((A::take(input)?, B::take(input)?))
    }
}
