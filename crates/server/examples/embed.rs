//! A server inside another program: it opens a store, serves it on a port of this machine, commits
//! a transaction through it, reads the event that came of that, and stops.
//!
//! ```text
//! cargo run --release -p handfast-server --example embed -- some/directory
//! ```
//!
//! `handfast serve` is the same with a configuration file, signals and a banner around it. What it
//! does besides: it raises the limit of open files, and lets no more connections in than fit below
//! (`door::Options::fit`); it registers databases (`Databases::start` takes them, and
//! `databases::missing` says which are still needed); and it uses another allocator.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handfast::{Event, Handfast, Item, TopicSettings};
use handfast_core::limits::Limits;
use handfast_server::door::Door;
use handfast_server::health::Health;
use handfast_server::node::{Node, NodeOptions};
use handfast_server::{Databases, routes};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long transactions that are deciding may take when the server is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long connections may take to end after that.
const CLOSING: Duration = Duration::from_secs(2);

/// A server that runs in this process.
pub(crate) struct Embedded {
    node: Node,
    health: Health,
    address: SocketAddr,
    close: oneshot::Sender<()>,
    door: JoinHandle<io::Result<()>>,
}

impl Embedded {
    /// Opens the store in this directory, or makes one there, and serves gRPC and HTTP at the address;
    /// with port 0 on a free port. One process at a time can have the directory open.
    ///
    /// # Errors
    /// The address is in use, or the store cannot be opened; nothing was changed then.
    pub(crate) async fn start(data_dir: PathBuf, address: &str) -> Result<Self, Box<dyn Error>> {
        // The address first: a server that cannot serve does not touch its store.
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let limits = Limits::default();
        let options = NodeOptions::default().with_limits(limits.clone());
        // Opening blocks: it reads what was written since the last checkpoint.
        let opening = move || Node::open(&data_dir, options, &mut |_progress| {});
        let node = tokio::task::spawn_blocking(opening).await??;
        // No databases take part. The doors want to know them all the same.
        let databases = Databases::start(&node, &[])?;
        let health = Health::serving().await;
        let routes = routes(&node, &databases, &health, &limits);
        let (close, closed) = oneshot::channel::<()>();
        let door = tokio::spawn(async move {
            // Told to close, or dropped: both are the end.
            let closed = async { drop(closed.await) };
            Door::default().serve_tcp(routes, listener, closed).await
        });
        Ok(Self { node, health, address, close, door })
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Resolves when the server has ended by itself, with the fault. What was acknowledged is on
    /// disk, and opening the store again recovers: a program that goes on does that.
    pub(crate) async fn ended(&self) -> Result<(), String> {
        self.node.stopped().await
    }

    /// Begins nothing new, waits for what is deciding, makes everything durable and stops. The node
    /// stops before the door is closed, so that clients hear how what they asked has ended.
    ///
    /// # Errors
    /// It had ended by itself before, for this reason.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        self.health.drain().await;
        self.node.shutdown(GRACE).await;
        let ended = self.node.stopped().await;
        // The door may have ended already. A connection that still hangs on after a while is cut off.
        let _ = self.close.send(());
        if tokio::time::timeout(CLOSING, &mut self.door).await.is_err() {
            self.door.abort();
        }
        ended
    }
}

/// From an empty directory to an event that was read, with the server in this process.
///
/// # Errors
/// Whatever went wrong.
pub(crate) async fn embed(data_dir: &Path) -> Result<String, Box<dyn Error>> {
    let server = Embedded::start(data_dir.to_path_buf(), "127.0.0.1:0").await?;
    let url = server.url();
    let used = tokio::select! {
        used = use_it(&url) => used,
        ended = server.ended() => Err(format!("the server has ended: {ended:?}").into()),
    };
    server.stop().await?;
    used
}

/// A client like any other: it could as well be in another process.
async fn use_it(url: &str) -> Result<String, Box<dyn Error>> {
    let hf = Handfast::connect(url).await?;
    hf.create_topic("greetings", TopicSettings::new()).await?;
    let greeting = Event::new("greeting.sent", "/example/embed").with_text("hello");
    hf.transaction(|tx| {
        tx.publish("greetings", greeting);
    })
    .await?;

    let mut events = hf.subscribe("readers").on("greetings").open().await?;
    while let Some(item) = events.next().await? {
        let Item::Event(delivery) = item else { continue };
        let text = String::from_utf8(delivery.event.data.as_bytes().to_vec())?;
        delivery.acknowledge().await?;
        return Ok(text);
    }
    Err("the subscription was closed".into())
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "its line is what it is for")]
async fn main() -> Result<(), Box<dyn Error>> {
    let data_dir = std::env::args_os().nth(1).ok_or("name a directory for the store")?;
    let text = embed(Path::new(&data_dir)).await?;
    println!("read {text:?}");
    Ok(())
}
