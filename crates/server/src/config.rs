//! The configuration of `handfast serve`: flag over environment over file over default.
//!
//! A [`File`] has everything optional; [`Config::load`] merges it with the rest, checks the values
//! and makes a [`Config`] of them, once. Nothing reads the environment or the file after that.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use handfast_core::ids::Name;
use handfast_core::limits::{DEADLINE_MS, Limits};
use handfast_journal::Options as JournalOptions;
use handfast_wire::MESSAGE_BYTES;
use serde::Deserialize;

use crate::door::Options as DoorOptions;
use crate::node::Queues;
use crate::text::{self, Problem};

/// A configuration file with every key, its documentation and its default.
pub const EXAMPLE: &str = include_str!("../handfast.example.toml");

/// Where the store is if nothing else is said.
pub const DATA_DIR: &str = "handfast-data";
/// Where the server listens if nothing else is said.
pub const LISTEN: &str = "127.0.0.1:7400";
/// Connections to a database, if its table says nothing else, and besides them: for tombstones, and a
/// person's.
const POOL: u32 = 8;
const BESIDE_POOL: u64 = 4;
/// What is logged if nothing else is said.
pub const LOG: &str = "warn";

/// What the server runs with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The directory of the store; relative to the working directory.
    pub data_dir: PathBuf,
    /// Host and port.
    pub listen: String,
    /// The filter of log lines.
    pub log: String,
    /// Bounds of the core.
    pub limits: Limits,
    /// Bounds of what waits in memory between clients and the core.
    pub queues: Queues,
    /// Bounds of connections, and of what is under way on them.
    pub connections: DoorOptions,
    /// The journal's options.
    pub journal: JournalOptions,
    /// Databases that take part in transactions, by name.
    pub databases: Vec<DatabaseConfig>,
}

/// A registered database.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// The name by which transactions call it.
    pub name: Name,
    /// Where it is, and with which role the server finishes what was prepared there.
    pub url: String,
    /// Connections at most; none: the default.
    pub pool: Option<u32>,
}

impl DatabaseConfig {
    /// How many connections it may take, with those besides its pool.
    #[must_use]
    pub fn connections(&self) -> u64 {
        u64::from(self.pool.unwrap_or(POOL)) + BESIDE_POOL
    }

    /// The URL without its password.
    #[must_use]
    pub fn shown_url(&self) -> String {
        shown_url(&self.url)
    }
}

/// A database's URL without its password.
#[must_use]
pub fn shown_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    // What follows `?` may hold a password too.
    let bare = rest.split('?').next().unwrap_or_default();
    match bare.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}")
        }
        // A password with a `?` that is not escaped: nobody knows where it ends.
        None if rest.contains('@') => format!("{scheme}://..."),
        None => format!("{scheme}://{bare}"),
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.shown_url())
    }
}

/// What was given on the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
}

/// The configuration file; see [`EXAMPLE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The directory of the store.
    pub data_dir: Option<PathBuf>,
    /// Host and port.
    pub listen: Option<String>,
    /// The filter of log lines.
    pub log: Option<String>,
    /// Bounds of the core.
    #[serde(default)]
    pub limits: LimitsFile,
    /// Bounds of connections, and of what is under way on them.
    #[serde(default)]
    pub connections: ConnectionsFile,
    /// The journal's options.
    #[serde(default)]
    pub journal: JournalFile,
    /// Databases that take part in transactions, by name.
    #[serde(default)]
    pub databases: BTreeMap<String, DatabaseFile>,
}

/// A table `databases.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseFile {
    /// `postgres://` or `mariadb://`, with user, password, host, port and database.
    pub url: Option<String>,
    /// An environment variable that holds the URL, so that no password is in the file.
    pub url_env: Option<String>,
    /// Connections at most.
    pub pool: Option<u32>,
}

/// The table `limits`; see [`Limits`] and [`Queues`], whose field of the same name it sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsFile {
    /// Transactions that have not ended.
    pub open_transactions: Option<usize>,
    /// Bytes of events staged by all transactions together.
    pub staged_bytes: Option<usize>,
    /// Bytes of work that wait for votes.
    pub work_bytes: Option<usize>,
    /// Bytes of requests that have not been handled.
    pub request_bytes: Option<usize>,
    /// Calls outside a stream that are not answered.
    pub calls: Option<usize>,
    /// Bytes of deliveries that one stream may have to read.
    pub unread_bytes: Option<usize>,
    /// Bytes that all streams together may have to read.
    pub all_unread_bytes: Option<usize>,
    /// Deadline of a transaction that names none.
    pub default_deadline_ms: Option<u64>,
    /// How long a commit waits for the participants.
    pub finish_wait_ms: Option<u64>,
    /// First pause before something is sent again.
    pub retry_ms: Option<u64>,
    /// Longest pause before something is sent again.
    pub retry_max_ms: Option<u64>,
    /// Time after which a transaction asks for attention.
    pub attention_ms: Option<u64>,
    /// Idempotency keys that are kept.
    pub keys: Option<usize>,
    /// How long a key is kept after its transaction ended.
    pub key_age_ms: Option<u64>,
    /// Topics.
    pub topics: Option<usize>,
    /// Subscriptions.
    pub subscriptions: Option<usize>,
    /// Dead letters of one subscription.
    pub dead_letters: Option<usize>,
    /// Producers that are remembered.
    pub producers: Option<usize>,
    /// How long the number of a batch is remembered.
    pub dedup_ms: Option<u64>,
}

/// The table `connections`; see [`DoorOptions`], whose field of the same name it sets; `most` sets
/// its `connections`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsFile {
    /// Connections at a time.
    pub most: Option<usize>,
    /// Streams and calls of all connections.
    pub streams: Option<usize>,
    /// How long a connection may be there before it asks for something.
    pub first_request_ms: Option<u64>,
    /// How long it may be there without a stream or call.
    pub idle_ms: Option<u64>,
    /// How long a message may take to arrive.
    pub message_ms: Option<u64>,
    /// Bytes of messages that are arriving.
    pub arriving_bytes: Option<usize>,
    /// Bytes of frames that were made and are not read.
    pub leaving_bytes: Option<usize>,
    /// How long somebody may read nothing while others wait for it.
    pub stalled_ms: Option<u64>,
}

/// The table `journal`; see [`JournalOptions`], whose field of the same name it sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalFile {
    /// A segment is full at this many bytes.
    pub segment_bytes: Option<u64>,
    /// Room is taken in steps of this many bytes.
    pub preallocate_bytes: Option<u64>,
    /// The store may take this many bytes.
    pub max_store_bytes: Option<u64>,
    /// Bytes of the newest records that are kept in memory.
    pub recent_bytes: Option<usize>,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The file is not well-formed, has a key that is not known or a value of the wrong type.
    #[error("{} line {line}: {problem}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A value cannot be.
    #[error("{origin}: {problem}")]
    Value {
        /// Where it was given: a flag, an environment variable, or a key of the file.
        origin: String,
        /// What is wrong.
        problem: String,
    },
}

impl Config {
    /// Merges flags, environment (as `env` gives it) and file.
    ///
    /// # Errors
    /// [`Error`]; its text names the flag, the variable or the key at fault.
    pub fn load(flags: Flags, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let path = flags.config.or_else(|| env("HANDFAST_CONFIG").map(PathBuf::from));
        let file = path.as_deref().map_or_else(|| Ok(File::default()), read)?;
        let data_dir = flags.data_dir.or_else(|| env("HANDFAST_DATA_DIR").map(PathBuf::from));
        let listen = first([
            ("--listen", flags.listen),
            ("HANDFAST_LISTEN", text(&env, "HANDFAST_LISTEN")?),
            ("key `listen`", file.listen),
        ]);
        let log = text(&env, "HANDFAST_LOG")?.or(file.log);
        Ok(Self {
            data_dir: data_dir.or(file.data_dir).unwrap_or_else(|| DATA_DIR.into()),
            listen: listen.map_or_else(|| Ok(LISTEN.to_owned()), address)?,
            log: log.unwrap_or_else(|| LOG.to_owned()),
            limits: limits(&file.limits)?,
            queues: queues(&file.limits)?,
            connections: connections(&file.connections)?,
            journal: journal(&file.journal)?,
            databases: databases(file.databases, &env)?,
        })
    }
}

/// The first that was given, with where that was.
fn first<T, const N: usize>(given: [(&'static str, Option<T>); N]) -> Option<(&'static str, T)> {
    given.into_iter().find_map(|(origin, value)| Some((origin, value?)))
}

fn text(
    env: impl Fn(&str) -> Option<OsString>,
    name: &'static str,
) -> Result<Option<String>, Error> {
    let Some(value) = env(name) else { return Ok(None) };
    value.into_string().map(Some).map_err(|_| wrong(name, "is not UTF-8"))
}

fn read(path: &Path) -> Result<File, Error> {
    let file = path.to_path_buf();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(Error::Unreadable { file, source }),
    };
    match text::whole(&bytes) {
        Ok(text) => parse(file, text),
        Err(Problem { line, what }) => Err(Error::Malformed { file, line, problem: what }),
    }
}

fn parse(file: PathBuf, text: &str) -> Result<File, Error> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Error::Malformed { file, line, problem: error.message().to_owned() }
    })
}

fn wrong(origin: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Value { origin: origin.into(), problem: problem.into() }
}

fn address((origin, value): (&'static str, String)) -> Result<String, Error> {
    let port = value.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_ok()) {
        return Ok(value);
    }
    Err(wrong(origin, format!("{value:?} is not an address such as {LISTEN}")))
}

/// Takes a value that was given, if it is at least 1.
fn set<T: Copy + PartialEq + From<u8>>(
    table: &str,
    key: &str,
    given: Option<T>,
    field: &mut T,
) -> Result<(), Error> {
    if given.is_some_and(|value| value == T::from(0)) {
        return Err(wrong(format!("key `{table}.{key}`"), "is at least 1"));
    }
    *field = given.unwrap_or(*field);
    Ok(())
}

macro_rules! set {
    ($table:literal, $file:ident => $target:ident: $($key:ident),* $(,)?) => {
        $(set($table, stringify!($key), $file.$key, &mut $target.$key)?;)*
    };
}

fn limits(file: &LimitsFile) -> Result<Limits, Error> {
    let mut limits = Limits::default();
    set!("limits", file => limits: open_transactions, staged_bytes, work_bytes, default_deadline_ms,
        finish_wait_ms, attention_ms, keys, key_age_ms, topics, subscriptions, dead_letters,
        producers, dedup_ms);
    set("limits", "retry_ms", file.retry_ms, &mut limits.retry_ms.0)?;
    set("limits", "retry_max_ms", file.retry_max_ms, &mut limits.retry_ms.1)?;
    if limits.default_deadline_ms > DEADLINE_MS {
        let problem = format!("is at most one hour, {DEADLINE_MS}");
        return Err(wrong("key `limits.default_deadline_ms`", problem));
    }
    let (retry_ms, retry_max_ms) = limits.retry_ms;
    if retry_ms > retry_max_ms {
        let problem = format!("{retry_max_ms} is less than `limits.retry_ms`, {retry_ms}");
        return Err(wrong("key `limits.retry_max_ms`", problem));
    }
    Ok(limits)
}

fn queues(file: &LimitsFile) -> Result<Queues, Error> {
    let mut queues = Queues::default();
    set!("limits", file => queues: request_bytes, calls, unread_bytes,
        all_unread_bytes);
    Ok(queues)
}

fn connections(file: &ConnectionsFile) -> Result<DoorOptions, Error> {
    let mut door = DoorOptions::default();
    set("connections", "most", file.most, &mut door.connections)?;
    set!("connections", file => door: streams, first_request_ms, idle_ms, message_ms,
        arriving_bytes, leaving_bytes, stalled_ms);
    for (key, bytes) in
        [("arriving_bytes", door.arriving_bytes), ("leaving_bytes", door.leaving_bytes)]
    {
        if bytes < MESSAGE_BYTES {
            let problem = format!("is at least one message, {MESSAGE_BYTES} bytes");
            return Err(wrong(format!("key `connections.{key}`"), problem));
        }
    }
    Ok(door)
}

fn databases(
    files: BTreeMap<String, DatabaseFile>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<DatabaseConfig>, Error> {
    let one = |(name, file): (String, DatabaseFile)| {
        let key = format!("key `databases.{name}");
        let name = Name::new(&name).map_err(|why| wrong(format!("{key}`"), why.to_string()))?;
        let url = match (file.url, file.url_env) {
            (Some(url), None) => url,
            (None, Some(variable)) => {
                let value = env(&variable).and_then(|value| value.into_string().ok());
                value.ok_or_else(|| {
                    wrong(format!("{key}.url_env`"), format!("{variable} is not set"))
                })?
            }
            (None, None) => return Err(wrong(format!("{key}`"), "needs `url` or `url_env`")),
            (Some(_), Some(_)) => {
                return Err(wrong(format!("{key}`"), "has both `url` and `url_env`"));
            }
        };
        if file.pool == Some(0) {
            return Err(wrong(format!("{key}.pool`"), "is at least 1"));
        }
        Ok(DatabaseConfig { name, url, pool: file.pool })
    };
    files.into_iter().map(one).collect()
}

fn journal(file: &JournalFile) -> Result<JournalOptions, Error> {
    let mut options = JournalOptions::default();
    set!("journal", file => options: segment_bytes, preallocate_bytes, recent_bytes);
    if let Some(most) = file.max_store_bytes {
        // One segment being written, and one being replaced.
        if most < 2 * options.segment_bytes {
            let problem = format!("is at least two segments, {} bytes", 2 * options.segment_bytes);
            return Err(wrong("key `journal.max_store_bytes`", problem));
        }
        options.max_store_bytes = Some(most);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: Flags, env: &[(&str, &str)], file: Option<&str>) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("handfast.toml");
        let mut flags = flags;
        if let Some(file) = file {
            fs::write(&path, file).expect("it is ours");
            flags.config = Some(path);
        }
        let find = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        Config::load(flags, find).map_err(|error| error.to_string())
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let flags = || Flags {
            data_dir: Some("flag".into()),
            listen: Some("flag:1".into()),
            ..Flags::default()
        };
        let env = [("HANDFAST_DATA_DIR", "env"), ("HANDFAST_LISTEN", "env:2")];
        let file = "data_dir = \"file\"\nlisten = \"file:3\"";
        for (flags, env, file, dir, listen) in [
            (Flags::default(), &env[..0], None, DATA_DIR, LISTEN),
            (Flags::default(), &env[..0], Some(file), "file", "file:3"),
            (Flags::default(), &env[..1], Some(file), "env", "file:3"),
            (Flags::default(), &env[..], Some(file), "env", "env:2"),
            (flags(), &env[..0], None, "flag", "flag:1"),
            (flags(), &env[..0], Some(file), "flag", "flag:1"),
            (flags(), &env[..], Some(file), "flag", "flag:1"),
        ] {
            let config = load(flags, env, file).expect("all of this can be");
            assert_eq!((config.data_dir.as_path(), config.listen.as_str()), (dir.as_ref(), listen));
        }
    }

    #[test]
    fn the_example_has_every_key_with_its_default() {
        let file = parse(PathBuf::new(), EXAMPLE).expect("it is a configuration");
        let max_store_bytes = JournalFile { max_store_bytes: None, ..file.journal.clone() };
        assert_eq!(file.journal, max_store_bytes, "its default is none");
        let shown = format!("{:?}", JournalFile { max_store_bytes: Some(1), ..file.journal });
        assert!(!shown.contains("None"), "{shown}");
        assert!(!format!("{:?}", file.limits).contains("None"), "{:?}", file.limits);
        assert!(!format!("{:?}", file.connections).contains("None"), "{:?}", file.connections);

        let config = load(Flags::default(), &[], Some(EXAMPLE)).expect("it is a configuration");
        let default = load(Flags::default(), &[], None).expect("nothing is needed");
        assert_eq!(format!("{config:?}"), format!("{default:?}"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (file, wanted) in [
            ("nonsense = 1", "line 1: unknown field `nonsense`"),
            ("\n[limits]\nopen = 1", "line 3: unknown field `open`"),
            ("[journal]\nfsync = false", "line 2: unknown field `fsync`"),
            ("listen = 7400", "line 1: invalid type: integer `7400`, expected a string"),
            ("listen = \"7400\"", "key `listen`: \"7400\" is not an address such as"),
            ("listen = \":7400\"", "key `listen`"),
            ("listen = \"here:70000\"", "key `listen`"),
            ("[limits]\ntopics = 0", "key `limits.topics`: is at least 1"),
            ("[limits]\ntopics = -1", "line 2: "),
            ("[limits]\ndefault_deadline_ms = 3600001", "key `limits.default_deadline_ms`"),
            ("[limits]\nretry_max_ms = 99", "key `limits.retry_max_ms`: 99 is less than"),
            ("[connections]\nmost = 0", "key `connections.most`: is at least 1"),
            ("[connections]\nleaving_bytes = 1", "key `connections.leaving_bytes`"),
            ("[journal]\nmax_store_bytes = 1", "key `journal.max_store_bytes`"),
            ("listen = ", "line 1: "),
        ] {
            let problem = load(Flags::default(), &[], Some(file)).expect_err(file);
            assert!(problem.contains(wanted), "{file}: {problem}");
        }
        let problem = load(Flags::default(), &[("HANDFAST_LISTEN", "x")], None).expect_err("x");
        assert!(problem.starts_with("HANDFAST_LISTEN: "), "{problem}");
        let missing = Flags { config: Some("/nonexistent.toml".into()), ..Flags::default() };
        let problem = load(missing, &[], None).expect_err("there is none");
        assert!(problem.contains("/nonexistent.toml"), "{problem}");
    }
}
