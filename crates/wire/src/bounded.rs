//! The codec of a server: what arrives is looked through before it is decoded.
//!
//! An empty message in a list is two bytes on the wire and some hundred in memory, so that a frame
//! of 16 MiB could be made to take gigabytes. Here tags and lengths of a message are read once, by
//! the shapes that the build wrote from the contract, without taking memory; what it would take
//! when decoded is added up, and a message that would take far more than its bytes is refused as
//! `malformed`, like one that does not decode. Lists of numbers and messages count, and text; the bytes
//! of an event are not looked into, and are shared with the buffer they came in.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use handfast_core::refusal::{Code, Refusal};
use prost::Message;
use tonic::Status;
use tonic::codec::{self, BufferSettings, DecodeBuf};
use tonic_prost::ProstEncoder;

use crate::status::status;

/// What a message may take in memory, when decoded, besides its bytes: so many times its bytes and
/// [`FREE_BYTES`], but at most [`MOST_BYTES`]. A request to commit has 27 bytes and takes some nine
/// times as much.
const FACTOR: usize = 12;
/// See [`FACTOR`].
const FREE_BYTES: usize = 256 << 10;
/// See [`FACTOR`]. A list grows by doubling, so at worst twice as much is taken for a moment.
const MOST_BYTES: usize = 16 << 20;
/// What a piece of text takes besides its letters, about.
const TEXT_BYTES: usize = 16;
/// Messages in messages: the contract has five.
const DEPTH: usize = 16;

/// Fields of a message that make it larger in memory than on the wire, by their numbers.
#[derive(Debug)]
pub(crate) struct Shape(&'static [(u32, Field)]);

#[derive(Debug)]
enum Field {
    /// A message that is there once; it is part of the one it is in.
    One(&'static Shape),
    /// A list of messages, of which each takes so many bytes.
    Many(&'static Shape, usize),
    /// Text.
    Text,
    /// A list of numbers, packed or not.
    Numbers,
}

/// A message with a shape, if a server receives it.
pub(crate) trait Shaped {
    const SHAPE: Option<&'static Shape>;
}

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Says whether a message may be decoded: `Err` has what is wrong with it, for people.
fn look_through(shape: &Shape, bytes: &[u8]) -> Result<(), &'static str> {
    let most = bytes.len().saturating_mul(FACTOR).saturating_add(FREE_BYTES).min(MOST_BYTES);
    let mut left = most;
    walk(shape, bytes, DEPTH, &mut left)
}

const TORN: &str = "it does not decode";

fn walk(
    shape: &Shape,
    mut bytes: &[u8],
    depth: usize,
    left: &mut usize,
) -> Result<(), &'static str> {
    let depth = depth.checked_sub(1).ok_or("its messages are nested too deep")?;
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).map_err(|_| TORN)?;
        let len = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                // Of a list that is not packed, or nothing that grows.
                take_if(shape, number, size_of::<u64>(), left)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).map_err(|_| TORN)?,
            5 => 4,
            _ => return Err(TORN),
        };
        let inside = bytes.split_off(..len).ok_or(TORN)?;
        let Some((_, field)) = shape.0.iter().find(|(known, _)| *known == number) else { continue };
        match field {
            Field::One(shape) => walk(shape, inside, depth, left)?,
            Field::Many(shape, size) => {
                take(*size, left)?;
                // What cannot grow is left to the decoder.
                if !shape.0.is_empty() {
                    walk(shape, inside, depth, left)?;
                }
            }
            Field::Text => take(len + TEXT_BYTES, left)?,
            Field::Numbers => take(len.saturating_mul(size_of::<u64>()), left)?,
        }
    }
    Ok(())
}

fn take_if(shape: &Shape, number: u32, bytes: usize, left: &mut usize) -> Result<(), &'static str> {
    match shape.0.iter().find(|(known, _)| *known == number) {
        Some((_, Field::Numbers)) => take(bytes, left),
        _ => Ok(()),
    }
}

fn take(bytes: usize, left: &mut usize) -> Result<(), &'static str> {
    *left = left.checked_sub(bytes).ok_or("it has far more elements than its bytes can mean")?;
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    // One byte is what nearly all have.
    if let Some((&first, rest)) = bytes.split_first()
        && first < 0x80
    {
        *bytes = rest;
        return Ok(first.into());
    }
    prost::encoding::decode_varint(bytes).map_err(|_| TORN)
}

/// A message that has arrived in full, on its way from whoever has collected it to the decoder of
/// its stream.
///
/// tonic collects messages itself, in a buffer that it makes when it has seen a length and keeps as
/// long as the stream is there. A server that has to know what it holds does so before tonic, puts
/// the message here and gives tonic [`EMPTY`] in its place. The decoder takes it from here; it is
/// the one of the stream whose call began within [`Arrived::scope`].
#[derive(Clone, Debug, Default)]
pub struct Arrived(Arc<Mutex<Option<Bytes>>>);

/// The frame of an empty message, which stands for one that has arrived.
pub const EMPTY: &[u8] = &[0; 5];

thread_local! {
    static CALL: RefCell<Option<Arrived>> = const { RefCell::new(None) };
}

impl Arrived {
    /// The next message of the stream. The one before has been taken: tonic asks for more only then.
    pub fn put(&self, message: Bytes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }

    fn take(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Calls something that may make the decoder of this stream.
    pub fn scope<R>(&self, call: impl FnOnce() -> R) -> R {
        struct Restore(Option<Arrived>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CALL.set(self.0.take());
            }
        }
        let _restore = Restore(CALL.replace(Some(self.clone())));
        call()
    }
}

/// As [`tonic_prost::ProstCodec`], but looks through what it decodes.
#[derive(Debug)]
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Shaped + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        let arrived = CALL.with_borrow(Clone::clone);
        Decoder { arrived, message: PhantomData }
    }
}

/// The decoding half.
#[derive(Debug)]
pub(crate) struct Decoder<U> {
    arrived: Option<Arrived>,
    message: PhantomData<U>,
}

impl<U: Message + Default + Shaped> codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        match self.arrived.as_ref().and_then(Arrived::take) {
            Some(message) => decode(message),
            // Nobody collects messages for this stream.
            None => decode(bytes),
        }
        .map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

fn decode<U: Message + Default + Shaped>(bytes: impl Buf) -> Result<U, Status> {
    if let Some(shape) = U::SHAPE {
        let message = bytes.chunk();
        assert_eq!(message.len(), bytes.remaining(), "a message arrives in one piece");
        look_through(shape, message).map_err(malformed)?;
    }
    U::decode(bytes).map_err(malformed)
}

fn malformed(problem: impl std::fmt::Display) -> Status {
    status(Refusal::new(Code::Malformed, format!("a message is not well-formed: {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::from_participant::Message as From;
    use crate::{raw, v1};

    fn looked_through<T: Message + Shaped>(message: &T) -> Result<(), &'static str> {
        looked_through_bytes::<T>(&message.encode_to_vec())
    }

    fn looked_through_bytes<T: Shaped>(bytes: &[u8]) -> Result<(), &'static str> {
        look_through(T::SHAPE.expect("a server receives it"), bytes)
    }

    /// A list of that many empty messages, texts or numbers in field 1.
    fn nonsense(elements: usize) -> Vec<u8> {
        [0x0a, 0x00].repeat(elements)
    }

    /// 8 million empty requests in a frame took 4.8 GiB and 17 seconds (I15): what a frame has was
    /// counted when it had been decoded.
    #[test]
    fn a_frame_of_nonsense_is_refused_before_it_takes_memory() {
        const REQUESTS: usize = 8 << 20;
        let bytes = nonsense(REQUESTS);
        looked_through_bytes::<raw::TransactionFrame>(&bytes).expect_err("a frame of requests");
        looked_through_bytes::<raw::PublishFrame>(&bytes).expect_err("a frame of batches");
        looked_through_bytes::<v1::FromParticipantFrame>(&bytes).expect_err("of messages");
        looked_through_bytes::<v1::FromSubscriberFrame>(&bytes).expect_err("of messages");
        let outcomes = vec![v1::KeptOutcome::default(); REQUESTS / 8];
        let forget = From::MayForget(v1::MayForget { outcomes });
        let message = v1::FromParticipant { request: 1, message: Some(forget) };
        let frame = v1::FromParticipantFrame { messages: vec![message] };
        looked_through(&frame).expect_err("a list of outcomes");
        let offsets = vec![1; REQUESTS];
        let take = v1::TakeDeadLettersRequest { offsets, ..Default::default() };
        looked_through(&take).expect_err("a list of numbers");
    }

    /// The same a level deeper, and in a message that is there once but is sent again and again.
    #[test]
    fn lists_in_messages_count_too() {
        let inner = nonsense(1 << 20);
        let mut bytes = Vec::new();
        for _ in 0..4 {
            // TransactionRequest.begin, whose branches are field 4.
            let begin: Vec<u8> = inner.iter().map(|&b| if b == 0x0a { 0x22 } else { b }).collect();
            let mut request = Vec::new();
            prost::encoding::bytes::encode(2, &begin, &mut request);
            prost::encoding::bytes::encode(1, &request, &mut bytes);
        }
        looked_through_bytes::<raw::TransactionFrame>(&bytes).expect_err("lists of branches");
    }

    #[test]
    fn what_clients_send_passes() {
        let id = || vec![7; 16].into();
        let commit = v1::CommitRequest { transaction_id: id(), items: 1, ..Default::default() };
        let call = Some(raw::transaction_request::Call::Commit(commit));
        let request = raw::TransactionRequest { request: 4_000, call };
        for requests in [1, 4_096, 50_000] {
            let frame = raw::TransactionFrame { requests: vec![request.clone(); requests] };
            assert_eq!(looked_through(&frame), Ok(()), "{requests} requests");
        }

        let event = raw::NewEvent { topic: "t".into(), event: vec![1; 40].into() };
        let publish = raw::PublishRequest { events: vec![event; 1_000], ..Default::default() };
        let batch = raw::PublishBatch { request: 1, publish: Some(publish) };
        assert_eq!(looked_through(&raw::PublishFrame { batches: vec![batch; 100] }), Ok(()));

        let delivery = v1::DeliveryRef { subscription_id: 1, offset: 1, token: 9 };
        let acknowledge = v1::Acknowledge { deliveries: vec![delivery; crate::LIST_ITEMS] };
        let message = Some(v1::from_subscriber::Message::Acknowledge(acknowledge));
        let message = v1::FromSubscriber { request: 1, message };
        assert_eq!(
            looked_through(&v1::FromSubscriberFrame { messages: vec![message; 20] }),
            Ok(())
        );

        let offsets = (0..crate::LIST_ITEMS as u64).collect();
        let take = v1::TakeDeadLettersRequest { offsets, ..Default::default() };
        assert_eq!(looked_through(&take), Ok(()));
        let began = Some(v1::Began { store_id: id(), epoch: 7, lsn: 1 << 40 });
        let kept = v1::KeptOutcome { transaction_id: id(), began };
        let forget = v1::MayForget { outcomes: vec![kept; crate::LIST_ITEMS] };
        let message = Some(From::MayForget(forget));
        let message = v1::FromParticipant { request: 1, message };
        assert_eq!(looked_through(&v1::FromParticipantFrame { messages: vec![message] }), Ok(()));
    }

    #[test]
    fn what_is_torn_is_refused_and_what_is_not_known_is_skipped() {
        for torn in [&[0x0a_u8, 0x05, 1][..], &[0x80], &[0x0b], &[0x0d, 1], &[0x09, 1]] {
            looked_through_bytes::<raw::TransactionFrame>(torn).expect_err("torn");
        }
        // Fields 100 to 103, of a newer client: a number, text, eight and four bytes.
        let newer =
            [0xa0, 6, 1, 0xaa, 6, 1, b'x', 0xb1, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0xbd, 6, 1, 2, 3, 4];
        assert_eq!(looked_through_bytes::<raw::TransactionFrame>(&newer), Ok(()));
        assert!(raw::TransactionFrame::decode(&newer[..]).is_ok());
    }
}
