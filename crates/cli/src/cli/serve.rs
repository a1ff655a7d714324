//! `handfast serve`: opens the store, serves until a signal comes, ends in order.
//!
//! The order matters: the address is taken before the store is touched, so that a server that
//! cannot serve changes nothing on disk; the node is stopped before the door is closed, so that
//! clients hear how what they asked has ended.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handfast_core::ids::Name;
use handfast_server::VERSION;
use handfast_server::config::{Config, DatabaseConfig, Flags};
use handfast_server::databases::{self, Databases};
use handfast_server::door::Door;
use handfast_server::health::Health;
use handfast_server::node::{Info, Node, NodeOptions, NodeStopped};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::progress::Bar;
use super::{Exit, Failure, store};

/// How long transactions that are deciding may take when the server is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long connections may take to end after that.
const CLOSING: Duration = Duration::from_secs(2);

/// Serve, on an embedded store. Nothing has to be configured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of the store; made if it does not exist [env: HANDFAST_DATA_DIR] [default: handfast-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address for gRPC and HTTP; port 0 takes a free one [env: HANDFAST_LISTEN] [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Configuration file (TOML) [env: HANDFAST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Wait no longer for this database, which is gone for good: nobody knows how its branches
    /// ended, and their transactions say so for ever. May be given more than once
    #[arg(long, value_name = "NAME", value_parser = name)]
    release_database: Vec<Name>,
    /// No banner and no progress
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Args { data_dir, listen, config, release_database: released, quiet } = args;
    let flags = Flags { config, data_dir, listen };
    let config = Config::load(flags.clone(), |name| std::env::var_os(name))
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    start_logging(&config.log)?;
    let listener = bind(&config.listen)?;
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("handfast-io")
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start threads: {error}")))?;
    runtime.block_on(serve(Start { config, flags, released, quiet }, listener))
}

/// Log lines go to stderr.
fn start_logging(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(Exit::Usage, format!("log filter {filter:?}: {error}")))?;
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !is_plain)
        .init();
    Ok(())
}

fn bind(listen: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(listen).map_err(|error| {
        let message = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "{listen} is in use: another handfast or another program listens there; stop it, \
                 or choose another address with --listen"
            ),
            ErrorKind::PermissionDenied => format!(
                "{listen} may not be used by this user; choose a port over 1023 with --listen"
            ),
            _ => format!("cannot listen on {listen}: {error}; choose an address with --listen"),
        };
        Failure::new(Exit::Failed, message)
    })
}

/// What [`serve`] was started with.
struct Start {
    config: Config,
    /// To read the configuration again by.
    flags: Flags,
    /// Databases that are not waited for any more.
    released: Vec<Name>,
    quiet: bool,
}

async fn serve(start: Start, listener: TcpListener) -> Result<(), Failure> {
    let Start { config, flags, released, quiet } = start;
    let files = raise_open_files();
    let mut connections = config.connections.clone();
    let pools = config.databases.iter().map(DatabaseConfig::connections).sum();
    connections.fit(files, pools);
    let failed = |error: io::Error| Failure::new(Exit::Failed, error);
    let mut signals = Signals::new().map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (limits, configured) = (config.limits.clone(), config.databases.clone());
    let node = open(config, quiet, &mut signals).await?;
    let databases = register(&node, &configured, &released).await?;

    let health = Health::serving().await;
    let routes = handfast_server::routes(&node, &databases, &health, &limits);
    let (close, closed) = oneshot::channel::<()>();
    let door = Door::new(connections);
    let mut door = tokio::spawn(async move {
        let closed = async {
            // Both ends of it mean the same.
            let _ = closed.await;
        };
        door.serve_tcp(routes, listener, closed).await
    });
    if !quiet {
        // If stdout is closed nobody wants to read it.
        let _ = banner(address, node.info());
    }

    loop {
        tokio::select! {
            told = signals.told() => match told {
                Told::Stop => break,
                Told::Reload => reload(&flags, &databases),
            },
            ended = node.stopped() => return Err(fault(ended)),
            ended = &mut door => {
                let problem = match ended {
                    Ok(Ok(())) => "it was closed".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                let message = format!("cannot serve {address} any longer: {problem}");
                return Err(Failure::new(Exit::Failed, message));
            }
        }
    }

    tracing::info!("told to stop");
    health.drain().await;
    tokio::select! {
        () = node.shutdown(GRACE) => {}
        () = signals.next() => exit_at_once(),
    }
    let ended = node.stopped().await;
    // The streams have ended with the node; what hangs on to its connection after that is cut off.
    let _ = close.send(());
    tokio::select! {
        _ = tokio::time::timeout(CLOSING, door) => {}
        () = signals.next() => exit_at_once(),
    }
    ended.map_err(|problem| fault(Err(problem)))
}

/// Each connection is an open file, and the limit that most systems begin with is 1,024 of them;
/// what a process may have is far more. Says how many it may have now; none: any number.
fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
    getrlimit(Resource::Nofile).current
}

/// Segments and indexes that may be open at a time: few where the process may open few files.
fn journal_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 8).unwrap_or(usize::MAX).clamp(4, 64)
}

/// Opens the store beside the runtime, so that a signal is heard meanwhile.
async fn open(config: Config, quiet: bool, signals: &mut Signals) -> Result<Node, Failure> {
    let opening = tokio::task::spawn_blocking(move || {
        let options = NodeOptions::default()
            .with_limits(config.limits)
            .with_queues(config.queues)
            .with_journal(config.journal.with_open_files(journal_files()));
        let mut bar = Bar::new("opening", quiet);
        Node::open(&config.data_dir, options, &mut |progress| bar.show(progress))
            .map_err(|error| store::not_opened(&config.data_dir, &error))
    });
    tokio::select! {
        opened = opening => opened.unwrap_or_else(|panic| {
            Err(Failure::new(Exit::Failed, format!("opening the store failed: {panic}")))
        }),
        // Whatever opening has done so far is done again, or finished, by the next opening.
        () = signals.next() => exit_at_once(),
    }
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|why| why.to_string())
}

/// Registers the configured databases. A store with unfinished branches in others does not start
/// (X5), unless it was told to release them.
async fn register(
    node: &Node,
    configured: &[DatabaseConfig],
    released: &[Name],
) -> Result<Databases, Failure> {
    let failed = |problem: String| Failure::new(Exit::Failed, problem);
    let stopped = |error: NodeStopped| failed(error.to_string());
    let missing = databases::missing(node, configured).await.map_err(stopped)?;
    let unexpected = missing.iter().filter(|(name, _)| !released.contains(name));
    let unexpected: Vec<String> = unexpected
        .map(|(name, branches)| format!("{name} ({branches} unfinished branches)"))
        .collect();
    if !unexpected.is_empty() {
        node.shutdown(GRACE).await;
        return Err(failed(format!(
            "the configuration does not name {}; add it, or start with --release-database NAME if \
             it is gone for good",
            unexpected.join(", ")
        )));
    }
    let registered =
        Databases::start(node, configured).map_err(|problem| Failure::new(Exit::Usage, problem))?;
    for (name, _) in &missing {
        databases::release(node, name).await.map_err(stopped)?;
    }
    Ok(registered)
}

/// SIGHUP: the databases of the configuration file are taken anew; the rest needs a new start.
fn reload(flags: &Flags, databases: &Databases) {
    let config = Config::load(flags.clone(), |name| std::env::var_os(name));
    let reloaded = config
        .map_err(|error| error.to_string())
        .and_then(|config| databases.reload(&config.databases));
    match reloaded {
        Ok(()) => tracing::info!("the databases of the configuration were taken anew"),
        Err(problem) => tracing::error!("nothing was changed: {problem}"),
    }
}

fn fault(ended: Result<(), String>) -> Failure {
    let problem = ended.err().unwrap_or_else(|| "it was stopped from inside".to_owned());
    let message = format!(
        "the server has ended: {problem}; what was acknowledged is on disk, look after the disk \
         and start again"
    );
    Failure::new(Exit::Fault, message)
}

fn exit_at_once() -> ! {
    // Not by way of the runtime: its end would wait for what is being given up.
    std::process::exit(Exit::Interrupted as i32)
}

fn banner(address: SocketAddr, info: &Info) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "handfast {VERSION}")?;
    writeln!(out, "  listens on  {address} (gRPC and HTTP)")?;
    if let Some(dir) = &info.data_dir {
        writeln!(out, "  stores in   {}", absolute(dir).display())?;
    }
    writeln!(out, "  synced      every commit is on disk before it is acknowledged")?;
    if info.dropped_bytes > 0 {
        writeln!(
            out,
            "  recovered   {} bytes at the end are no whole group and are dropped: a write was cut off",
            info.dropped_bytes
        )?;
    }
    for notice in info.clock_notices() {
        writeln!(out, "  clock       {notice}")?;
    }
    writeln!(out, "  try next    handfast demo, handfast tx list")?;
    out.flush()
}

fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf())
}

/// What a signal asks for.
enum Told {
    Stop,
    Reload,
}

/// SIGTERM and SIGINT, and SIGHUP.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())?, hangup })
    }

    async fn told(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
