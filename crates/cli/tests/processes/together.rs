//! All strangers at once, with the settings that a server has by itself: together they make it hold
//! no more than docs/limits.md says (I15).
//!
//! Each kind has a test of its own in `strangers`. Here they share the connections, as many as may
//! be open, and each has what it can get. The figure in docs/limits.md is what this measured.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream as BlockingStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use handfast::{Handfast, TopicSettings};
use http::Request;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::strangers::{
    ALL_STRANGERS, MESSAGE, MIB, Stranger, code, ended, event, prefixed, send_in,
};
use crate::server::Server;

/// Connections of each kind; with a client's own they are those that may be open.
const UNFINISHED: usize = 50;
const UNREAD: usize = 75;
const HEADERS: usize = 90;
const HALVES: usize = 24;
const NONSENSE: usize = 6;
const FLOODS: usize = 10;

/// Those that say nothing at all, besides.
const SILENT: usize = 100;
/// Streams of a connection with many headers: its own, and of those that all have.
const STREAMS: usize = 8;
/// Frames in which a message is sent: the smallest that HTTP/2 takes any number of.
const PIECE: usize = 256;

/// A message of 16 MiB of which all is sent that the server lets through, in small frames.
async fn unfinished(stranger: Stranger, number: usize, message: Bytes) -> String {
    let method = ["Transactions/Session", "Events/Publish"][number % 2];
    let (answer, mut body) = stranger.call(method).await;
    let sending = async {
        // It fails when the server ends the stream.
        let _ = send_in(PIECE, &mut body, message).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = sending => unreachable!("it stays"),
        status = ended(answer) => code(&status),
    }
}

/// Four streams, of events of 500 KB, that nobody reads.
async fn unread(stranger: Stranger, number: usize) -> Vec<h2::RecvStream> {
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.extend(stranger.leave_unread(number).await);
    }
    streams
}

/// Streams with as many headers as they may have and an unfinished message that is small enough to
/// need no room.
async fn headers(stranger: Stranger) -> Vec<(h2::client::ResponseFuture, h2::SendStream<Bytes>)> {
    let small = 16 << 10;
    let message = prefixed(small, &vec![0; small - 1]);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let request = Request::post("http://server/handfast.v1.Events/Publish")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-much", "x".repeat(7_500))
            .body(())
            .unwrap();
        let mut requests = stranger.0.clone().ready().await.unwrap();
        let (answer, mut body) = requests.send_request(request, false).unwrap();
        let _ = body.send_data(message.clone(), false);
        streams.push((answer, body));
    }
    streams
}

/// Frames of 16 MiB with 8 million empty requests each, one after the other.
async fn nonsense(stranger: Stranger, frame: Bytes) {
    loop {
        let (answer, mut body) = stranger.call("Transactions/Session").await;
        let _ = send_in(1 << 20, &mut body, frame.clone()).await;
        let _ = body.send_data(Bytes::new(), true);
        assert!(
            ["malformed", "arriving_bytes_full", "unfinished"]
                .contains(&&*code(&ended(answer).await))
        );
    }
}

/// A frame of HTTP/2.
fn http2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Small frames of HTTP/2, as many as the server takes; begins anew when it is cut off.
fn flood(address: &str, number: usize, stop: &AtomicBool) {
    const DATA: u8 = 0;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    // POST, http, a path, a content type: literals without an index.
    let mut call = vec![0x83, 0x86];
    for (name, value) in [
        (":path", "/handfast.v1.Transactions/Session"),
        (":authority", "server"),
        ("content-type", "application/grpc"),
    ] {
        call.push(0);
        for text in [name, value] {
            call.push(u8::try_from(text.len()).unwrap());
            call.extend(text.bytes());
        }
    }
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = BlockingStream::connect(address) else { return };
        let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        begin.extend(http2(SETTINGS, 0, 0, &[]));
        begin.extend(http2(1, 4, 1, &call));
        // A message of 16 MiB, which nothing is read of while it waits for room.
        begin.extend(http2(DATA, 0, 1, &[0, 1, 0, 0, 0]));
        let mut frames = Vec::new();
        for next in 0..1_000_u32 {
            frames.extend(match number % 5 {
                0 => http2(DATA, 0, 1, &[0]),
                1 => http2(PING, 0, 0, &[0; 8]),
                2 => http2(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
                3 => http2(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
                _ => {
                    let id = 3 + 2 * next;
                    [http2(1, 4, id, &call), http2(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
                }
            });
        }
        let mut sent = stream.write_all(&begin);
        stream.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        while sent.is_ok() && !stop.load(Ordering::Relaxed) {
            sent = stream.write_all(&frames);
        }
    }
}

/// Each kind of stranger had a bound, and nobody had seen all of them at once: together they made the
/// server hold 288 MiB with the bounds that there were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_strangers_together_hold_no_more_than_they_may() {
    const EVENTS: usize = 40;
    const WHO_WAIT: [&str; 2] = ["arriving_bytes_full", "unfinished"];
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"));
    let before = server.peak_bytes();
    let hf = Handfast::connect(server.url()).await.unwrap();
    hf.create_topic("made", TopicSettings::new()).await.unwrap();
    for _ in 0..EVENTS {
        hf.publish("made", event(500_000)).await.unwrap();
    }

    let stop = Arc::new(AtomicBool::new(false));
    let message = prefixed(MESSAGE, &vec![0; MESSAGE - 1]);
    let requests = prefixed(MESSAGE, &[0x0a, 0].repeat(MESSAGE / 2));
    let (end, mut ends) = mpsc::unbounded_channel();
    let mut at_work = JoinSet::new();
    // Those who come first have a wide window.
    for number in 0..UNFINISHED {
        let stranger = Stranger::connect(&server).await;
        let (end, message) = (end.clone(), message.clone());
        at_work.spawn(async move {
            let code = unfinished(stranger, number, message).await;
            let _ = end.send(code);
        });
    }
    let mut unread_streams = Vec::new();
    let mut header_streams = Vec::new();
    let mut halves = Vec::new();
    for number in 0..UNREAD {
        unread_streams.push(unread(Stranger::connect(&server).await, number).await);
    }
    for _ in 0..HEADERS {
        header_streams.push(headers(Stranger::connect(&server).await).await);
    }
    for _ in 0..NONSENSE {
        at_work.spawn(nonsense(Stranger::connect(&server).await, requests.clone()));
    }
    let floods: Vec<_> = (0..FLOODS)
        .map(|number| {
            let (address, stop) = (server.address.clone(), Arc::clone(&stop));
            std::thread::spawn(move || flood(&address, number, &stop))
        })
        .collect();
    for _ in 0..HALVES {
        let mut half = BlockingStream::connect(&server.address).unwrap();
        let _ = half.write_all(b"GET / HTTP/1.1\r\nx-much: ");
        let _ = half.write_all(&vec![b'x'; 60_000]);
        halves.push(half);
    }
    // And whoever says nothing at all, until one who is there waits for room no longer: what the
    // server lets through of all messages has arrived by then.
    let mut silent = VecDeque::new();
    let ended = loop {
        silent.push_back(BlockingStream::connect(&server.address).unwrap());
        if silent.len() > SILENT {
            silent.pop_front();
        }
        if let Ok(ended) = ends.try_recv() {
            break ended;
        }
        // Somebody who is known is served meanwhile.
        hf.publish("made", event(1_000)).await.unwrap();
    };
    assert!(WHO_WAIT.contains(&&*ended), "{ended}");

    let peak = server.peak_bytes();
    println!("from {} to {} MiB", before / MIB, peak / MIB);
    stop.store(true, Ordering::Relaxed);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    assert!(peak < before + ALL_STRANGERS, "from {} to {} MiB", before / MIB, peak / MIB);
    // When everybody has gone there is room again.
    at_work.shutdown().await;
    drop((unread_streams, header_streams, halves, silent));
    hf.publish("made", event(1_000_000)).await.unwrap();
}
