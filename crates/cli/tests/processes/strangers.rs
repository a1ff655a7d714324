//! Somebody whom nobody knows can make the server hold little, and cannot keep others out (I15).
//!
//! Each test measures the most that a real server ever had in memory. The bounds are generous: what
//! was held without them was ten times as much.

use std::future::poll_fn;
use std::io::Read;
use std::net::TcpStream as BlockingStream;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use handfast::{Event, Handfast, Item, ReadItem, Start, TopicSettings};
use handfast_wire::prost::Message;
use handfast_wire::{status, v1};
use http::Request;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::server::Server;

pub(crate) const MIB: u64 = 1 << 20;
/// What all strangers together may make the server hold.
pub(crate) const ALL_STRANGERS: u64 = 256 * MIB;
pub(crate) const MESSAGE: usize = 16 << 20;

/// A client that sends what it likes and reads nothing unless it is told to.
#[derive(Clone)]
pub(crate) struct Stranger(pub(crate) SendRequest<Bytes>);

impl Stranger {
    pub(crate) async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(&server.address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        // It ends with the server, or is cut off by it.
        tokio::spawn(connection);
        Self(requests)
    }

    /// Reads the topic `made`, and subscribes to it under a number, and takes nothing of either.
    pub(crate) async fn leave_unread(&self, number: usize) -> [RecvStream; 2] {
        let read = v1::ReadRequest { topic: "made".into(), ..Default::default() };
        let subscribe = v1::SubscribeRequest {
            subscription: format!("stranger-{number}"),
            credit: 10_000,
            create: Some(v1::CreateWith { topic: "made".into(), ..Default::default() }),
        };
        let message = Some(v1::from_subscriber::Message::Subscribe(subscribe));
        let message = v1::FromSubscriber { request: 1, message };
        let frame = v1::FromSubscriberFrame { messages: vec![message] };
        let read = self.ask("Events/Read", &read, true).await;
        [read, self.ask("Events/Subscribe", &frame, false).await]
    }

    pub(crate) async fn call(&self, method: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("http://server/handfast.v1.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut requests = self.0.clone().ready().await.unwrap();
        requests.send_request(request, false).unwrap()
    }

    /// One message, as a call; its answer is not read.
    pub(crate) async fn ask(
        &self,
        method: &str,
        message: &impl Message,
        is_all: bool,
    ) -> RecvStream {
        let (answer, mut body) = self.call(method).await;
        body.send_data(message_of(&message.encode_to_vec()), is_all).unwrap();
        let answer = answer.await.unwrap().into_body();
        // The stream stays open as long as the client does.
        tokio::spawn(async move {
            let _ = poll_fn(|cx| body.poll_reset(cx)).await;
        });
        answer
    }
}

fn message_of(bytes: &[u8]) -> Bytes {
    prefixed(bytes.len(), bytes)
}

/// A message that says it has so many bytes, and what is sent of it.
pub(crate) fn prefixed(len: usize, bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + bytes.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(len).unwrap());
    message.put_slice(bytes);
    message.freeze()
}

/// Sends as fast as the server lets it; what it does not let through is not sent.
async fn send(body: &mut SendStream<Bytes>, bytes: Bytes) -> Result<(), h2::Error> {
    send_in(bytes.len(), body, bytes).await
}

/// The same, in pieces of at most so many bytes.
pub(crate) async fn send_in(
    most: usize,
    body: &mut SendStream<Bytes>,
    mut bytes: Bytes,
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        body.reserve_capacity(bytes.len());
        let Some(capacity) = poll_fn(|cx| body.poll_capacity(cx)).await else { return Ok(()) };
        let mut part = bytes.split_to(capacity?.min(bytes.len()));
        while !part.is_empty() {
            body.send_data(part.split_to(most.min(part.len())), false)?;
        }
    }
    Ok(())
}

/// How the server has ended a stream.
pub(crate) async fn ended(answer: ResponseFuture) -> Status {
    let answer = answer.await.unwrap();
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let _ = body.flow_control().release_capacity(data.unwrap().len());
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    Status::from_header_map(&trailers).unwrap()
}

pub(crate) fn code(status: &Status) -> String {
    status::refusal(status).unwrap_or_else(|| panic!("it has no code: {status:?}")).code
}

pub(crate) fn event(bytes: usize) -> Event {
    Event::new("made", "/test").with_text("x".repeat(bytes))
}

fn check(server: &Server, before: u64, most: u64) {
    let peak = server.peak_bytes();
    assert!(peak < before + most, "from {} to {} MiB", before / MIB, peak / MIB);
}

/// One frame of 16 MiB with 8 million empty requests took 4.8 GiB and 17 seconds, and four at once
/// more than 9 GiB: what is in a frame was counted when it had been decoded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_nonsense_take_no_memory_and_are_refused() {
    const METHODS: [&str; 6] = [
        "Transactions/Session",
        "Participants/Attach",
        "Events/PublishStream",
        "Events/Subscribe",
        "Transactions/Run",
        "Events/DropDeadLetters",
    ];
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"));
    let before = server.peak_bytes();
    let mut frames = JoinSet::new();
    for method in METHODS {
        let stranger = Stranger::connect(&server).await;
        frames.spawn(async move {
            // Field 1, 2, 4 or 5 with nothing in it, again and again.
            let nonsense = match method {
                "Transactions/Run" => [0x22, 0],
                "Events/DropDeadLetters" => [0x10, 1],
                _ => [0x0a, 0],
            };
            let (answer, mut body) = stranger.call(method).await;
            send(&mut body, prefixed(MESSAGE, &nonsense.repeat(MESSAGE / 2))).await.unwrap();
            let _ = body.send_data(Bytes::new(), true);
            (method, ended(answer).await)
        });
    }
    while let Some(frame) = frames.join_next().await {
        let (method, status) = frame.unwrap();
        assert_eq!(
            (status.code(), &*code(&status)),
            (Code::InvalidArgument, "malformed"),
            "{method}"
        );
    }
    check(&server, before, 128 * MIB);
}

/// 150 unfinished messages of 16 MiB took 2.4 GiB: memory was taken for a message when its length
/// was known, and there was no bound for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_messages_take_room_that_is_bounded_and_end() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[connections]\nmessage_ms = 500\n";
    let server = Server::start_with(&directory.path().join("store"), config);
    let hf = Handfast::connect(server.url()).await.unwrap();
    hf.create_topic("made", TopicSettings::new()).await.unwrap();
    let before = server.peak_bytes();
    let mut unfinished = JoinSet::new();
    for number in 0..150 {
        let stranger = Stranger::connect(&server).await;
        unfinished.spawn(async move {
            let method = ["Transactions/Session", "Events/Publish"][number % 2];
            let (answer, mut body) = stranger.call(method).await;
            let all_but_one = vec![0; MESSAGE - 1];
            let sending = async {
                // It fails when the server ends the stream.
                let _ = send(&mut body, prefixed(MESSAGE, &all_but_one)).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = sending => unreachable!("it stays"),
                status = ended(answer) => code(&status),
            }
        });
    }
    // Small messages wait for nobody.
    for _ in 0..100 {
        hf.publish("made", event(1_000)).await.unwrap();
    }
    let mut codes = Vec::new();
    while let Some(code) = unfinished.join_next().await {
        codes.push(code.unwrap());
    }
    let known = |code: &String| code == "unfinished" || code == "arriving_bytes_full";
    assert!(codes.iter().all(known), "{codes:?}");
    // There is room again.
    hf.publish("made", event(1_000_000)).await.unwrap();
    check(&server, before, ALL_STRANGERS);
}

pub(crate) async fn read_all(hf: &Handfast, count: usize) {
    let mut events = hf.read("made", Start::Earliest).open().await.unwrap();
    for _ in 0..count {
        assert!(matches!(events.next().await.unwrap(), Some(ReadItem::Event(_))));
    }
}

/// 300 streams that nobody read took 3 GiB: each had a bound, and all together had none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_not_read_hold_little_and_delay_nobody() {
    const EVENTS: usize = 40;
    const STREAMS: usize = 150;
    let directory = tempfile::tempdir().unwrap();
    let config = "[connections]\nstalled_ms = 1000\n";
    let server = Server::start_with(&directory.path().join("store"), config);
    let hf = Handfast::connect(server.url()).await.unwrap();
    hf.create_topic("made", TopicSettings::new()).await.unwrap();
    for _ in 0..EVENTS {
        hf.publish("made", event(500_000)).await.unwrap();
    }
    // Whoever has read before is not taken for a stranger.
    read_all(&hf, EVENTS).await;
    let before = server.peak_bytes();
    let mut unread = Vec::new();
    for number in 0..STREAMS {
        let stranger = Stranger::connect(&server).await;
        unread.extend(stranger.leave_unread(number).await);
    }
    // Somebody who reads gets everything, of both.
    read_all(&hf, EVENTS).await;
    let group = hf.subscribe("group").on("made").with_start(Start::Earliest);
    let mut group = group.open().await.unwrap();
    for _ in 0..EVENTS {
        let Some(Item::Event(delivery)) = group.next().await.unwrap() else { panic!("no event") };
        delivery.acknowledge().await.unwrap();
    }
    check(&server, before, ALL_STRANGERS);
    drop(unread);
}

/// Idle connections of any stranger ended a server that could not open a file any more, and kept
/// newcomers out as long as they liked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_make_room_for_newcomers_and_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[connections]\nmost = 8\nfirst_request_ms = 1000\n";
    let server = Server::start_with(&directory.path().join("store"), config);
    let before = Handfast::connect(server.url()).await.unwrap();
    before.create_topic("made", TopicSettings::new()).await.unwrap();
    // Nothing, half a preface, half a request line.
    let silent: Vec<_> = (0..40)
        .map(|number| {
            let mut stream = BlockingStream::connect(&server.address).unwrap();
            let said: &[u8] = [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nho"][number % 3];
            std::io::Write::write_all(&mut stream, said).unwrap();
            stream
        })
        .collect();
    before.publish("made", event(1)).await.unwrap();
    let newcomer = Handfast::connect(server.url()).await.unwrap();
    newcomer.publish("made", event(1)).await.unwrap();
    // Each of them is closed, sooner or later.
    let all_closed = tokio::task::spawn_blocking(move || {
        silent.into_iter().all(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let mut all = Vec::new();
            // An end, or a reset; not a time-out.
            stream
                .read_to_end(&mut all)
                .map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |_| true)
        })
    });
    assert!(all_closed.await.unwrap(), "somebody silent is still there");
    newcomer.publish("made", event(1)).await.unwrap();
}
