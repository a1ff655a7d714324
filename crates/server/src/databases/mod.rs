//! Registered databases: the server's own connections, which finish what applications prepared.
//!
//! One task serves each database, whatever the number of transactions in it. Nothing is decided
//! here: the core says what is to be done and is told how it went; a database that does not answer,
//! may not be trusted, or belongs to another store is asked nothing and answers "unknown".

mod adoption;
mod auditor;
mod claims;
mod condition;
mod copied;
mod doubt;
mod places;
mod recheck;
mod rollback;
mod sweeper;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use handfast_core::branch::BranchId;
use handfast_core::command::{Act, Command};
use handfast_core::ids::{Lsn, Name, TransactionId};
use handfast_core::input::Input;
use handfast_core::output::Reply;
use handfast_core::owner::{Owner, SHARD};
use handfast_core::silence::Adopted;
use handfast_database::{Database, Fault, Identity, Kind, Options, connect};
use handfast_wire::Home;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::config::DatabaseConfig;
use crate::node::{DatabaseJob, DatabaseJobs, Node, NodeStopped};

use adoption::Adoption;
pub use adoption::restored_mark;
pub use auditor::{InDoubt, Label};
use claims::{Against, Claims};
pub use condition::{Condition, Status};
use places::Places;
use recheck::Had;

/// All registered databases. Cheap to clone.
#[derive(Clone)]
pub struct Databases(Arc<Inner>);

/// Transactions of which is remembered that something was told about them.
const TOLD: usize = 4_096;

struct Inner {
    node: Node,
    machine: String,
    adoption: Arc<Adoption>,
    places: Arc<Places>,
    against: Arc<Against>,
    claims: Arc<Claims>,
    entries: Mutex<BTreeMap<Name, Entry>>,
}

struct Entry {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<DatabaseJob>,
    task: JoinHandle<()>,
}

/// What the task of a database shares with those who look at it.
struct Shared {
    name: Name,
    config: DatabaseConfig,
    node: Node,
    machine: String,
    adoption: Arc<Adoption>,
    places: Arc<Places>,
    against: Arc<Against>,
    claims: Arc<Claims>,
    /// All databases, this one among them.
    all: Weak<Inner>,
    database: Arc<dyn Database>,
    /// When it was registered: log time, Unix time in milliseconds.
    registered_ms: u64,
    /// When a database of this name had been this store's before that.
    had: Had,
    status: Mutex<Status>,
    /// Transactions of which was told why a branch of them is left alone.
    told: Mutex<HashSet<TransactionId>>,
    /// Look again, now.
    again: Notify,
}

impl Shared {
    fn status(&self) -> MutexGuard<'_, Status> {
        // Whoever panicked while holding it has at most left a field of the past.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store remembers over its restarts what was adopted, and when.
    async fn note_adopted(&self) -> Result<(), String> {
        let (adoption, name) = (Arc::clone(&self.adoption), self.name.clone());
        let markers = self.database.new_markers(&self.any_branch(), 0).await;
        let markers = markers.map_err(|fault| fault.to_string())?;
        let before = self.node.new_transaction_id();
        let newest = markers.first().map(|marker| marker.transaction);
        let markers_to_ms = newest.max(Some(before)).map_or(0, TransactionId::unix_ms);
        let now = Adopted { epoch: self.node.info().epoch, before, markers_to_ms };
        let noted = tokio::task::spawn_blocking(move || adoption.adopt(&name, now)).await;
        let noted = noted.map_err(|error| error.to_string())?;
        noted.map_err(|error| format!("cannot note it in the data directory: {error}"))
    }

    /// The store remembers over its restarts that another database has this name now, in which there
    /// is nothing of this name. If it does not, recent commits may be called lost that are elsewhere.
    async fn note_new(&self) {
        let (adoption, name) = (Arc::clone(&self.adoption), self.name.clone());
        let since_ms = self.registered_ms;
        let noted = tokio::task::spawn_blocking(move || adoption.note_new(&name, since_ms)).await;
        let noted = noted.map_err(|error| error.to_string());
        if let Err(why) = noted.and_then(|noted| noted.map_err(|error| error.to_string())) {
            tracing::warn!(database = %self.name, "cannot note that it is new: {why}");
        }
    }

    /// The database was looked at: from now on whoever begins there is told where it is.
    fn found(&self, identity: &Identity) {
        self.node.homes().set(&self.name, home(identity));
    }

    /// What the store says about itself in the database, this time.
    fn owner(&self) -> Owner {
        let info = self.node.info();
        let opening = info.openings.current().map(|current| current.opening);
        Owner {
            store: info.store,
            shard: SHARD,
            epoch: u64::from(info.epoch),
            node: self.machine.clone(),
            opening: opening.unwrap_or_default(),
            durable_lsn: Lsn(*self.node.durable_changed().borrow()),
            claim: self.node.new_claim(),
        }
    }

    /// Stands for every branch of this store in this database.
    fn any_branch(&self) -> BranchId {
        BranchId::new(TransactionId(0), self.node.info().store, &self.name)
    }

    /// The other databases that are registered.
    fn peers(&self) -> Vec<Arc<Self>> {
        let Some(all) = self.all.upgrade() else { return Vec::new() };
        let entries = all.entries();
        let others = entries.values().filter(|entry| entry.shared.name != self.name);
        others.map(|entry| Arc::clone(&entry.shared)).collect()
    }

    /// Says, once, why a prepared branch is not rolled back although the log has no decision.
    fn say_left(&self, id: TransactionId, why: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD {
            told.clear();
        }
        if told.insert(id) {
            let database = &self.name;
            tracing::warn!(%database, transaction = %id, "leaves a prepared branch alone: {why}");
        }
    }
}

/// One database as people see it.
#[derive(Clone, Debug)]
pub struct View {
    /// The name under which it is registered.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Its URL without the password.
    pub url: String,
    /// How it is.
    pub status: Status,
}

/// Why a database could not be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is none of this name.
    #[error("no database {0} is registered")]
    Unknown(Name),
    /// The database did not do it.
    #[error("{0}")]
    Fault(String),
}

/// Why nobody can say where a database is.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// There is none of this name.
    #[error("no database {0} is registered")]
    Unknown(Name),
    /// It does not answer.
    #[error("the database {0} does not say where it is: {1}")]
    Fault(Name, Fault),
}

fn home(identity: &Identity) -> Home {
    let home = &identity.home;
    Home { table: home.table().to_owned(), identity: home.identity().to_owned() }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Name, Entry>> {
        // A panic between two of its changes would have left whole entries.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Databases {
    /// Registers the databases of a configuration and serves them. Needs a tokio runtime.
    ///
    /// # Errors
    /// The first URL that cannot be one, with its database's name, or what cannot be read of where
    /// the store was opened last; nothing is registered then.
    pub fn start(node: &Node, configs: &[DatabaseConfig]) -> Result<Self, String> {
        let machine = machine();
        let adoption = match &node.info().data_dir {
            Some(data_dir) => Arc::new(settled(node, data_dir, &machine)?),
            None => Arc::default(),
        };
        let entries = Mutex::new(BTreeMap::new());
        let (places, against, claims) = (Arc::default(), Arc::default(), Arc::default());
        let inner =
            Inner { node: node.clone(), machine, adoption, places, against, claims, entries };
        let this = Self(Arc::new(inner));
        this.take(configs, &recheck::earlier_lives(node))?;
        if let Some(jobs) = node.database_jobs() {
            tokio::spawn(dispatch(Arc::clone(&this.0), jobs));
        }
        Ok(this)
    }

    /// Takes another configuration: new databases are added, changed ones are connected anew, and
    /// those that are gone are let go of unless a branch in them is not finished.
    ///
    /// # Errors
    /// As [`Databases::start`]. Says otherwise which databases it kept, and why.
    pub fn reload(&self, configs: &[DatabaseConfig]) -> Result<(), String> {
        self.take(configs, &[self.0.node.log_time_ms()])
    }

    fn take(&self, configs: &[DatabaseConfig], had: &[u64]) -> Result<(), String> {
        let mut made = Vec::new();
        for config in configs {
            let same = self.entries().get(&config.name).is_some_and(|e| e.shared.config == *config);
            if !same {
                made.push(self.shared(config, had)?);
            }
        }
        for shared in made {
            self.register(shared);
        }
        let wanted: BTreeSet<&Name> = configs.iter().map(|config| &config.name).collect();
        let gone: Vec<Name> =
            self.entries().keys().filter(|name| !wanted.contains(name)).cloned().collect();
        if !gone.is_empty() {
            tokio::spawn(let_go(Arc::clone(&self.0), gone));
        }
        Ok(())
    }

    fn shared(&self, config: &DatabaseConfig, had: &[u64]) -> Result<Shared, String> {
        let mut options = Options::default();
        if let Some(pool) = config.pool {
            options = options.with_pool(pool);
        }
        let database = connect(&config.url, options)
            .map_err(|error| format!("database {}: {error}", config.name))?;
        Ok(Shared {
            name: config.name.clone(),
            config: config.clone(),
            node: self.0.node.clone(),
            machine: self.0.machine.clone(),
            adoption: Arc::clone(&self.0.adoption),
            places: Arc::clone(&self.0.places),
            against: Arc::clone(&self.0.against),
            claims: Arc::clone(&self.0.claims),
            all: Arc::downgrade(&self.0),
            registered_ms: self.0.node.log_time_ms(),
            had: had.to_vec(),
            status: Mutex::new(Status::new()),
            told: Mutex::default(),
            database,
            again: Notify::new(),
        })
    }

    fn register(&self, shared: Shared) {
        let shared = Arc::new(shared);
        let name = shared.name.clone();
        let (jobs, inbox) = mpsc::unbounded_channel();
        // It is known from now on; whether it may be used is known when it has answered. What the one
        // under this name before it has said does not count.
        let gone = Input::DatabaseGone { name: name.clone() };
        let known = Input::Database { name: name.clone(), up: false };
        self.0.places.leave(&name);
        self.0.node.homes().remove(&name);
        self.0.claims.registered(&name);
        // A node that has stopped needs no databases.
        let _ = self.0.node.databases_said(vec![gone, known]);
        let task = tokio::spawn(worker::run(Arc::clone(&shared), inbox));
        if let Some(old) = self.entries().insert(name, Entry { shared, jobs, task }) {
            // What it was doing is asked again of the new one.
            old.task.abort();
        }
    }

    /// Every database, by name. What is prepared in one is as it was at its last audit.
    #[must_use]
    pub fn list(&self) -> Vec<View> {
        let view = |entry: &Entry| View {
            name: entry.shared.name.clone(),
            kind: entry.shared.database.kind(),
            url: entry.shared.config.shown_url(),
            status: entry.shared.status().clone(),
        };
        let mut views: Vec<View> = self.entries().values().map(view).collect();
        doubt::once(&mut views);
        views
    }

    /// Makes a database this store's, whatever its owner row says: an operator's decision.
    ///
    /// # Errors
    /// [`AdoptError`].
    pub async fn adopt(&self, name: &Name) -> Result<(), AdoptError> {
        let shared = self.entries().get(name).map(|entry| Arc::clone(&entry.shared));
        let shared = shared.ok_or_else(|| AdoptError::Unknown(name.clone()))?;
        // First: what is noted and not done is asked for again, and harmless.
        shared.note_adopted().await.map_err(AdoptError::Fault)?;
        // Whatever voted there before is looked up again, also if nobody had noticed yet that another
        // life was there.
        let why = Some("it is being adopted".to_owned());
        let refused =
            Input::DatabaseRefused { name: name.clone(), local: why.clone(), distributed: why };
        let said = shared.node.databases_said(vec![refused]);
        said.map_err(|stopped| AdoptError::Fault(stopped.to_string()))?;
        let ours = shared.owner();
        shared.claims.written(name, ours.claim);
        let adopted = shared.database.adopt(&ours).await;
        if adopted.is_ok() {
            shared.claims.stands(name, &ours);
            shared.against.settled(name);
            tracing::warn!(database = %name, "adopted by an operator");
        }
        // Adopted or not, it is found out how it is now.
        shared.again.notify_one();
        adopted.map_err(|fault| AdoptError::Fault(fault.to_string()))
    }

    /// Where a database is, asked of it now.
    ///
    /// # Errors
    /// [`LocateError`].
    pub async fn locate(&self, name: &Name) -> Result<Home, LocateError> {
        let shared = self.entries().get(name).map(|entry| Arc::clone(&entry.shared));
        let shared = shared.ok_or_else(|| LocateError::Unknown(name.clone()))?;
        let found = shared.database.identity().await;
        let found = found.map_err(|fault| LocateError::Fault(name.clone(), fault))?;
        // It may have been registered with another URL meanwhile; then that one is looked at soon.
        shared.again.notify_one();
        Ok(home(&found))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Name, Entry>> {
        self.0.entries()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hands each job to the task of its database. Ends with the node.
async fn dispatch(inner: Arc<Inner>, mut jobs: DatabaseJobs) {
    let mut batch = Vec::new();
    while jobs.recv_many(&mut batch, 1_024).await > 0 {
        let mut unknown = Vec::new();
        {
            let entries = inner.entries();
            for (name, job) in batch.drain(..) {
                let sent = entries.get(&name).map(|entry| entry.jobs.send(job));
                if !matches!(sent, Some(Ok(()))) {
                    unknown.push(worker::unknown(&name, job));
                }
            }
        }
        if !unknown.is_empty() && inner.node.databases_said(unknown).is_err() {
            return;
        }
    }
}

/// Lets go of databases that are configured no longer, unless something in them is open.
async fn let_go(inner: Arc<Inner>, names: Vec<Name>) {
    let Ok(open) = inner.node.open_databases().await else { return };
    for name in names {
        if let Some((_, branches)) = open.iter().find(|(open, _)| *open == name) {
            tracing::warn!(
                database = %name,
                "is configured no longer, but stays: {branches} branches in it are not finished"
            );
            continue;
        }
        // From now on nothing new begins in it.
        if inner.node.databases_said(vec![Input::DatabaseGone { name: name.clone() }]).is_err() {
            return;
        }
        inner.entries().remove(&name);
        inner.against.settled(&name);
        inner.places.leave(&name);
        inner.node.homes().remove(&name);
        tracing::info!(database = %name, "is configured no longer");
    }
}

/// Databases with unfinished branches that a configuration does not name (X5).
///
/// # Errors
/// [`NodeStopped`].
pub async fn missing(
    node: &Node,
    configs: &[DatabaseConfig],
) -> Result<Vec<(Name, usize)>, NodeStopped> {
    let mut open = node.open_databases().await?;
    open.retain(|(name, _)| configs.iter().all(|config| config.name != *name));
    Ok(open)
}

/// Waits no longer for the branches of a database that is gone for good (X6): an operator's step.
/// Local transactions in it stay, because only it could say how they ended.
///
/// # Errors
/// [`NodeStopped`].
pub async fn release(node: &Node, name: &Name) -> Result<(), NodeStopped> {
    let mut after = None;
    loop {
        let list = Command::ListTransactions { after, limit: 1_000, attention: false };
        let Reply::Transactions(views) = node.call(list).await? else { return Ok(()) };
        let Some(last) = views.last() else { return Ok(()) };
        after = Some(last.id);
        for view in views {
            if view.branches.iter().any(|branch| branch.participant == *name) {
                let detail = "told so when the server was started".to_owned();
                let act = Act::Release(name.clone());
                let operate = Command::Operate { id: view.id, act, detail };
                // Refused where that branch has finished.
                let reply = node.call(operate).await?;
                tracing::warn!(transaction = %view.id, database = %name, ?reply, "released");
            }
        }
    }
}

/// What was restored, copied and adopted, after a look whether the data directory is a copy.
fn settled(node: &Node, data_dir: &Path, machine: &str) -> Result<Adoption, String> {
    let adoption = Adoption::read(data_dir)?;
    let info = node.info();
    let shown = data_dir.display();
    let copied = copied::recognise(data_dir, &info.openings, machine);
    let copied = copied.map_err(|error| format!("{shown}: {error}"))?;
    // What was only just restored has no place yet, and is nobody's in any case.
    if let Some(how) = copied.filter(|_| !adoption.is_untouched()) {
        tracing::warn!("{shown} is a copy: {how}; its databases are left alone until adopted");
        if let Err(error) = adoption.note_copied(how) {
            // Found again at the next start, because the place is not noted either.
            tracing::warn!("{shown}: cannot note that it is a copy: {error}");
            return Ok(adoption);
        }
    }
    let opening = info.openings.current().map(|current| current.opening).unwrap_or_default();
    if let Err(error) = copied::note(data_dir, opening, machine) {
        tracing::warn!("{shown}: cannot note where the store was opened: {error}");
    }
    Ok(adoption)
}

/// What tells this machine from another one on which the store might be copied.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).ok();
    let name = read("/etc/machine-id").or_else(|| read("/proc/sys/kernel/hostname"));
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| {
        std::env::var("HOSTNAME").unwrap_or_else(|_| "a host without a name".to_owned())
    })
}
