//! Frames of requests that were encoded before: one piece of memory instead of many, which may be
//! sent again and is not copied for that.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{
    DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len, skip_field,
    uint64,
};
use prost::{DecodeError, Message};
use tonic::body::Body as TonicBody;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::{Body, StdError};
use tonic::{IntoStreamingRequest, Response, Status, Streaming};

use crate::raw::transaction_request::Call;
use crate::{MESSAGE_BYTES, v1};

/// The method that takes these frames.
const SESSION: &str = "/handfast.v1.Transactions/Session";
/// Of `TransactionFrame`: the list of requests.
const REQUESTS: u32 = 1;
/// Of `TransactionRequest`: its number.
const REQUEST: u32 = 1;

/// A request without its number, which it gets when it is sent.
#[must_use]
pub fn call(call: &Call) -> Bytes {
    let mut bytes = BytesMut::with_capacity(call.encoded_len());
    call.encode(&mut bytes);
    bytes.freeze()
}

/// `TransactionFrame` as it is sent: requests that were encoded by [`call`], with their numbers.
/// Read it as [`crate::raw::TransactionFrame`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionFrame(pub Vec<(u64, Bytes)>);

/// Fields of a message may stand in any order, so the number stands before what was encoded first.
impl Message for TransactionFrame {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for (request, call) in &self.0 {
            encode_key(REQUESTS, WireType::LengthDelimited, buf);
            encode_varint(len(*request, call) as u64, buf);
            uint64::encode(REQUEST, request, buf);
            buf.put_slice(call);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        // It is only written.
        skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        let one = |(request, call): &(u64, Bytes)| {
            let len = len(*request, call);
            key_len(REQUESTS) + encoded_len_varint(len as u64) + len
        };
        self.0.iter().map(one).sum()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn len(request: u64, call: &Bytes) -> usize {
    uint64::encoded_len(REQUEST, &request) + call.len()
}

/// Opens `Transactions.Session` for frames of encoded requests.
///
/// # Errors
/// As of the generated stub: the service is not there, or has refused the stream.
pub async fn session<T>(
    service: T,
    frames: impl IntoStreamingRequest<Message = TransactionFrame>,
) -> Result<Response<Streaming<v1::TransactionReplyFrame>>, Status>
where
    T: GrpcService<TonicBody>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    let mut grpc = Grpc::new(service)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    grpc.ready()
        .await
        .map_err(|error| Status::unknown(format!("Service was not ready: {}", error.into())))?;
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(SESSION);
    let codec = tonic_prost::ProstCodec::default();
    grpc.streaming(frames.into_streaming_request(), path, codec).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw;

    #[test]
    fn an_encoded_frame_is_what_the_contract_says() {
        let run = raw::RunRequest {
            // Lengths of one, two and three bytes.
            idempotency_key: "k".repeat(20_000),
            deadline_ms: 1_000,
            events: vec![raw::NewEvent::default(), raw::NewEvent::default()],
            ..Default::default()
        };
        let abort = |detail: String| v1::AbortRequest { detail, ..Default::default() };
        let calls = [
            (0, Call::Run(run)),
            (1, Call::Abort(abort("why".to_owned()))),
            (300, Call::Abort(abort("y".repeat(300)))),
        ];
        let encoded = calls.iter().map(|(request, one)| (*request, call(one))).collect();
        let frame = TransactionFrame(encoded);
        let bytes = frame.encode_to_vec();
        assert_eq!(bytes.len(), frame.encoded_len());
        let requests = calls
            .into_iter()
            .map(|(request, call)| raw::TransactionRequest { request, call: Some(call) })
            .collect();
        assert_eq!(raw::TransactionFrame::decode(&*bytes), Ok(raw::TransactionFrame { requests }));
    }

    /// What is written here by hand is what the contract has.
    #[test]
    fn numbers_and_path_are_those_of_the_contract() {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let file = set.file.iter().find(|f| f.name().ends_with("transactions.proto")).unwrap();
        let number = |message: &str, field: &str| {
            let message = file.message_type.iter().find(|m| m.name() == message).unwrap();
            message.field.iter().find(|f| f.name() == field).unwrap().number().unsigned_abs()
        };
        assert_eq!(number("TransactionFrame", "requests"), REQUESTS);
        assert_eq!(number("TransactionRequest", "request"), REQUEST);
        let service = &file.service[0];
        let method = service.method.iter().find(|m| m.input_type().ends_with(".TransactionFrame"));
        let path = format!("/{}.{}/{}", file.package(), service.name(), method.unwrap().name());
        assert_eq!(path, SESSION);
    }
}
