//! A process that may open few files, with more strangers and more segments than that: the journal
//! always has the ones that it needs (I15).
//!
//! Both ended the server once. It accepted as many connections as there were descriptors, and had none
//! for the segment that it had to begin; and it kept two open for each segment that it had, so that a
//! store of half as many segments as files ended it (status 70) and then did not open (status 2).

use std::io::{ErrorKind, Read};
use std::net::TcpStream as BlockingStream;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use handfast::{Handfast, TopicSettings};
use http::Request;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::server::Server;
use crate::strangers::{event, read_all};

/// Files that the process may have open.
const FILES: u64 = 64;
/// Connections that it lets in then.
const CONNECTIONS: usize = 24;
/// A segment takes two of them.
const EVENT: usize = 600_000;
/// Nobody is closed for being silent too long: what is left is that there are too many.
const CONFIG: &str = "\
[journal]
segment_bytes = 1_048_576
preallocate_bytes = 262_144
[connections]
first_request_ms = 3_600_000
";

struct World {
    directory: TempDir,
    server: Server,
    hf: Handfast,
    published: usize,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start_with_files(&directory.path().join("store"), CONFIG, FILES);
        let hf = Handfast::connect(server.url()).await.unwrap();
        hf.create_topic("made", TopicSettings::new()).await.unwrap();
        Self { directory, server, hf, published: 0 }
    }

    fn segments(&self) -> u64 {
        let names = std::fs::read_dir(self.directory.path().join("store")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".log")).count() as u64
    }

    /// Publishes until there are so many segments more.
    async fn roll(&mut self, more: u64) {
        let wanted = self.segments() + more;
        while self.segments() < wanted {
            self.hf.publish("made", event(EVENT)).await.unwrap();
            self.published += 1;
            // There is always one left, or the next who needs one comes too late.
            assert!(self.server.open_files() < FILES, "{} files", self.server.open_files());
        }
    }
}

/// It is closed from the other side, and has said nothing.
fn is_closed(mut stream: BlockingStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_strangers_and_many_segments_take_no_file_that_the_journal_needs() {
    let mut world = World::start().await;
    let mut silent: Vec<_> = (0..2 * FILES).map(connect_to(&world.server)).collect();
    world.roll(FILES + 6).await;
    // The oldest of them made room for the others, and one of these for somebody who asks.
    let last = silent.split_off(silent.len() - CONNECTIONS);
    let closed = tokio::task::spawn_blocking(|| silent.into_iter().all(is_closed));
    assert!(closed.await.unwrap(), "somebody silent is still there");
    let newcomer = Handfast::connect(world.server.url()).await.unwrap();
    newcomer.publish("made", event(EVENT)).await.unwrap();
    world.published += 1;
    world.server.assert_runs();

    // It starts again with more segments than it may open, and reads all of them.
    world.server.kill();
    world.server.restart();
    let silent: Vec<_> = (0..2 * FILES).map(connect_to(&world.server)).collect();
    read_all(&newcomer, world.published).await;
    world.roll(4).await;
    world.server.assert_runs();
    drop((last, silent));
}

fn connect_to(server: &Server) -> impl Fn(u64) -> BlockingStream {
    let address = server.address.clone();
    move |_| BlockingStream::connect(&address).unwrap()
}

/// A stranger with a stream that is at work: as long as it is there, it has its place.
struct Busy {
    _requests: SendRequest<Bytes>,
    _answer: ResponseFuture,
    body: SendStream<Bytes>,
}

impl Busy {
    /// None if the server does not let it in.
    async fn begin(server: &Server) -> Option<Self> {
        let stream = TcpStream::connect(&server.address).await.ok()?;
        let (requests, connection) = h2::client::handshake(stream).await.ok()?;
        tokio::spawn(connection);
        let mut requests = requests.ready().await.ok()?;
        let request = Request::post("http://server/handfast.v1.Transactions/Session")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (mut answer, body) = requests.send_request(request, false).ok()?;
        let headers = (&mut answer).await.ok()?;
        assert!(headers.status().is_success());
        Some(Self { _requests: requests, _answer: answer, body })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_work_take_no_file_that_the_journal_needs() {
    let mut world = World::start().await;
    let mut busy = Vec::new();
    while let Some(stranger) = Busy::begin(&world.server).await {
        busy.push(stranger);
        assert!(busy.len() < CONNECTIONS, "more than may be");
    }
    // And those who are closed again at once.
    let refused: Vec<_> = (0..2 * FILES).map(connect_to(&world.server)).collect();
    world.roll(FILES / 2 + 4).await;
    let closed = tokio::task::spawn_blocking(|| refused.into_iter().all(is_closed));
    assert!(closed.await.unwrap(), "somebody was let in who should not be");
    world.server.assert_runs();

    // Somebody goes, and there is a place.
    let mut gone = busy.pop().unwrap();
    gone.body.send_reset(Reason::CANCEL);
    drop(gone);
    let newcomer = loop {
        match Handfast::connect(world.server.url()).await {
            Ok(newcomer) => break newcomer,
            // The server has not seen yet that somebody has gone.
            Err(_) => tokio::task::yield_now().await,
        }
    };
    newcomer.publish("made", event(EVENT)).await.unwrap();
    world.server.assert_runs();
    drop(busy);
}
