//! The task of one database: carries out what the core wants there, in parallel over the pool's
//! connections, and watches how the database is.
//!
//! While the database is not up every job is answered "unknown" at once: the core asks again by its
//! own pauses, and at once when it hears that the database is back.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use handfast_core::branch::BranchId;
use handfast_core::ids::{Name, TransactionId};
use handfast_core::input::{BranchReport, Found, Input, Resolution};
use handfast_database::doctor::{Grade, Report};
use handfast_database::{End, Fault, Finished, Identity, Outcome};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::condition::Condition;
use super::recheck::Had;
use super::{Shared, auditor, claims, recheck, rollback, sweeper};
use crate::node::DatabaseJob;

/// Jobs that are under way at once; more connections than that are never of use.
const UNDER_WAY: usize = 64;
/// Look-ups that go into one query.
const TOGETHER: usize = 256;
/// Pauses before a database that is down is tried again: the first, doubling to the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often the database is checked again, and claimed at the least.
const CLAIM: Duration = Duration::from_secs(60);
/// How often old markers are swept.
const SWEEP: Duration = Duration::from_secs(600);
/// How often the auditor looks.
const AUDIT: Duration = Duration::from_secs(2);
/// So long after a start what had committed before it has ended in the log, too.
const ENDS: Duration = Duration::from_secs(1);

type Running = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What came of a piece of work.
enum Done {
    /// Answers for the core, and whether the database seems to be in trouble.
    Said { inputs: Vec<Input>, keys: Vec<Key>, trouble: bool },
    /// The database was looked at.
    Looked { condition: Condition, report: Option<Report>, identity: Option<Identity> },
    /// The auditor has been there.
    Audited(Result<(), String>),
    /// Old markers were swept; there may be more.
    Swept(Result<bool, Fault>),
    /// Recent commits were looked up, or have to be again.
    Rechecked(Recheck, Result<(), String>),
}

/// Recent commits are to be looked up.
struct Recheck {
    at: Instant,
    had: Had,
    /// The first time since it was registered.
    is_first: bool,
}

/// What must not be under way twice at once.
type Key = (TransactionId, bool);

/// See the module. Never ends by itself.
pub(super) async fn run(shared: Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<DatabaseJob>) {
    let mut paused = shared.node.paused();
    let mut worker = Worker {
        shared,
        running: FuturesUnordered::new(),
        waiting: VecDeque::new(),
        under_way: HashSet::new(),
        looking: false,
        look_again: false,
        auditing: false,
        has_answered: false,
        pause: PAUSE.0,
        next_look: Instant::now(),
        next_audit: Instant::now(),
        sweeping: false,
        next_sweep: Instant::now(),
        has_audited: false,
        has_been_up: false,
        seen_ms: None,
        rechecking: false,
        next_recheck: None,
        recheck_pause: PAUSE.1,
    };
    let mut batch = Vec::new();
    loop {
        worker.start_what_is_due();
        let next = worker.next_timer();
        tokio::select! {
            count = inbox.recv_many(&mut batch, 1_024) => {
                if count == 0 {
                    return;
                }
                worker.take(&mut batch);
            }
            Some(done) = worker.running.next(), if !worker.running.is_empty() => {
                worker.done(done);
            }
            () = sleep_until(next) => {}
            () = worker.shared.again.notified() => worker.next_look = Instant::now(),
            Ok(()) = paused.changed() => {
                worker.look_again = worker.looking;
                worker.next_look = Instant::now();
            }
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    running: FuturesUnordered<Running>,
    waiting: VecDeque<DatabaseJob>,
    under_way: HashSet<Key>,
    looking: bool,
    /// What the look under way finds may be from before a pause.
    look_again: bool,
    auditing: bool,
    /// It has answered since it was registered, whatever it said.
    has_answered: bool,
    pause: Duration,
    next_look: Instant,
    next_audit: Instant,
    sweeping: bool,
    next_sweep: Instant,
    /// What is prepared in it was looked at since it was registered.
    has_audited: bool,
    has_been_up: bool,
    /// When it was last seen to be up and the one that it is: log time, Unix time in milliseconds.
    seen_ms: Option<u64>,
    rechecking: bool,
    /// None: that was done, and it has answered as the same all the time since.
    next_recheck: Option<Recheck>,
    recheck_pause: Duration,
}

impl Worker {
    fn is_up(&self) -> bool {
        self.shared.status().condition == Condition::Up
    }

    fn take(&mut self, batch: &mut Vec<DatabaseJob>) {
        if self.is_up() {
            self.waiting.extend(batch.drain(..));
            return;
        }
        let name = &self.shared.name;
        let inputs = batch.drain(..).map(|job| unknown(name, job)).collect();
        self.say(inputs);
    }

    fn say(&self, inputs: Vec<Input>) {
        if !inputs.is_empty() {
            // The node has stopped: so will this.
            let _ = self.shared.node.databases_said(inputs);
        }
    }

    fn next_timer(&self) -> Instant {
        let look = if self.looking { None } else { Some(self.next_look) };
        let audit = if self.auditing || !self.is_up() { None } else { Some(self.next_audit) };
        let sweep = if self.sweeping || !self.is_up() { None } else { Some(self.next_sweep) };
        let recheck = self.next_recheck.as_ref().map(|recheck| recheck.at);
        let recheck = recheck.filter(|_| self.may_recheck());
        let far = Instant::now() + CLAIM;
        look.into_iter().chain(audit).chain(sweep).chain(recheck).min().unwrap_or(far)
    }

    fn start_what_is_due(&mut self) {
        let now = Instant::now();
        if !self.looking && self.next_look <= now {
            self.looking = true;
            self.running.push(look(Arc::clone(&self.shared)).boxed());
        }
        if !self.auditing && self.next_audit <= now && self.is_up() {
            self.auditing = true;
            let shared = Arc::clone(&self.shared);
            self.running.push(async move { Done::Audited(auditor::audit(&shared).await) }.boxed());
        }
        if !self.sweeping && self.next_sweep <= now && self.is_up() {
            self.sweeping = true;
            let shared = Arc::clone(&self.shared);
            self.running.push(async move { Done::Swept(sweeper::sweep(&shared).await) }.boxed());
        }
        if self.may_recheck()
            && let Some(due) = self.next_recheck.take_if(|due| due.at <= now)
        {
            self.rechecking = true;
            let shared = Arc::clone(&self.shared);
            let looked = async move {
                let result = recheck::recheck(&shared, &due.had, due.is_first).await;
                Done::Rechecked(due, result)
            };
            self.running.push(looked.boxed());
        }
        self.start_jobs();
    }

    /// One look at a time, and none before what is prepared there has been seen to.
    fn may_recheck(&self) -> bool {
        !self.rechecking && self.has_audited && self.is_up()
    }

    /// Recent commits are looked up then, also those for which that is due already.
    fn recheck_later(&mut self, mut recheck: Recheck) {
        if let Some(due) = self.next_recheck.take() {
            recheck.at = recheck.at.min(due.at);
            recheck.is_first |= due.is_first;
            recheck.had.extend(due.had);
            recheck.had.sort_unstable_by(|one, other| other.cmp(one));
            recheck.had.dedup();
        }
        self.next_recheck = Some(recheck);
    }

    fn start_jobs(&mut self) {
        let (mut prepared, mut markers) = (Vec::new(), Vec::new());
        while self.under_way.len() < UNDER_WAY {
            let Some(job) = self.waiting.pop_front() else { break };
            let shared = Arc::clone(&self.shared);
            let branch = |id| BranchId::new(id, shared.node.info().store, &shared.name);
            match job {
                DatabaseJob::Verify { id, local } => {
                    // Each is asked once, and answers are cheap: no key needed.
                    let list = if local { &mut markers } else { &mut prepared };
                    list.push((id, branch(id)));
                }
                DatabaseJob::Finish { id, commit, holder } => {
                    if !self.under_way.insert((id, true)) {
                        continue;
                    }
                    let branch = branch(id);
                    self.running.push(finish(shared, id, branch, commit, holder).boxed());
                }
                DatabaseJob::Resolve { id, abandoned } => {
                    if !self.under_way.insert((id, false)) {
                        continue;
                    }
                    let branch = branch(id);
                    self.running.push(resolve(shared, id, branch, abandoned).boxed());
                }
            }
            if prepared.len() + markers.len() >= TOGETHER {
                break;
            }
        }
        for (list, local) in [(prepared, false), (markers, true)] {
            if !list.is_empty() {
                self.running.push(verify(Arc::clone(&self.shared), list, local).boxed());
            }
        }
    }

    fn done(&mut self, first: Done) {
        let mut inputs = Vec::new();
        let mut next = Some(first);
        while let Some(done) = next {
            match done {
                Done::Said { inputs: said, keys, trouble } => {
                    inputs.extend(said);
                    for key in keys {
                        self.under_way.remove(&key);
                    }
                    if trouble {
                        self.next_look = Instant::now();
                    }
                }
                Done::Looked { condition, report, identity } => {
                    self.looking = false;
                    if let Some(identity) = identity {
                        inputs.extend(self.recognised(&identity));
                    }
                    inputs.extend(self.looked(condition, report));
                    if std::mem::take(&mut self.look_again) {
                        self.next_look = Instant::now();
                    }
                }
                Done::Swept(result) => {
                    self.sweeping = false;
                    let more = matches!(result, Ok(true));
                    self.next_sweep = Instant::now() + if more { PAUSE.0 } else { SWEEP };
                    if let Err(fault) = result {
                        tracing::info!(database = %self.shared.name, "no sweep: {fault}");
                    }
                }
                Done::Rechecked(recheck, result) => {
                    self.rechecking = false;
                    let pause = std::mem::replace(&mut self.recheck_pause, PAUSE.1);
                    if let Err(problem) = result {
                        tracing::warn!(
                            database = %self.shared.name,
                            "recent commits could not be looked up: {problem}"
                        );
                        self.recheck_pause = (pause * 2).min(SWEEP);
                        self.recheck_later(Recheck { at: Instant::now() + pause, ..recheck });
                    }
                }
                Done::Audited(result) => {
                    self.auditing = false;
                    self.next_audit = Instant::now() + AUDIT;
                    if result.is_ok() {
                        self.has_audited = true;
                        self.seen_ms = Some(self.shared.node.log_time_ms());
                    }
                    if let Err(problem) = result {
                        tracing::warn!(database = %self.shared.name, "the audit failed: {problem}");
                        self.next_look = Instant::now();
                    }
                }
            }
            next = self.running.next().now_or_never().flatten();
        }
        self.say(inputs);
    }

    /// PG10: another server, or another life of it, may have lost branches or brought them back: for
    /// the core it was away, so that every open branch is looked up again; and so is what had
    /// committed there in the hour before.
    fn recognised(&mut self, identity: &Identity) -> Option<Input> {
        let name = self.shared.name.clone();
        self.shared.found(identity);
        let before = self.shared.status().identity.replace(identity.clone())?;
        if !identity.is_other_than(&before) {
            return None;
        }
        tracing::warn!(
            database = %name,
            "another server answers, or another life of it: {}, not {}",
            identity.database, before.database
        );
        let had = self.seen_ms.map_or_else(|| self.shared.had.clone(), |seen_ms| vec![seen_ms]);
        self.recheck_later(Recheck { at: Instant::now(), had, is_first: false });
        Some(Input::Database { name, up: false })
    }

    /// The database was looked at: tells the core and whoever reads the log what has changed.
    fn looked(&mut self, condition: Condition, report: Option<Report>) -> Vec<Input> {
        let name = self.shared.name.clone();
        let up = condition == Condition::Up;
        let why = condition.why().map(ToOwned::to_owned);
        let word = condition.as_str();
        let (turned, before, lasted, distributed) = {
            let mut status = self.shared.status();
            if report.is_some() {
                status.report = report;
            }
            let distributed = status.report.as_ref().and_then(|report| why_not(report, false));
            let before = status.condition.as_str();
            let lasted = status.since.elapsed().unwrap_or_default();
            (status.turn(condition), before, lasted, distributed)
        };
        if up {
            if !std::mem::replace(&mut self.has_been_up, true) {
                let (at, had) = (Instant::now() + ENDS, self.shared.had.clone());
                self.recheck_later(Recheck { at, had, is_first: true });
            }
            self.seen_ms = Some(self.shared.node.log_time_ms());
        }
        let pause = if up { CLAIM } else { self.pause };
        self.next_look = Instant::now() + pause;
        self.shared.status().next_try = (!up).then(|| SystemTime::now() + pause);
        self.pause = if up { PAUSE.0 } else { (self.pause * 2).min(PAUSE.1) };
        if turned {
            match &why {
                None if before != "starting" => {
                    tracing::info!(database = %name, "{word} again, after {lasted:.1?}");
                }
                None => tracing::info!(database = %name, "{word}"),
                Some(why) => tracing::warn!(database = %name, "{word}: {why}"),
            }
            self.next_audit = Instant::now();
        }
        let mut inputs = Vec::new();
        let refused = match word {
            // It may be back before anybody notices; nothing is refused for that.
            "down" | "starting" if self.has_answered => None,
            // But until it has answered once, nobody knows whether it may be trusted.
            "down" | "starting" => {
                let why = why.as_deref().unwrap_or("it is being looked at");
                let why = format!("it has not answered since it was registered: {why}");
                Some((Some(why.clone()), Some(why)))
            }
            "up" => Some((None, distributed)),
            _ => Some((why.clone(), why)),
        };
        self.has_answered |= !matches!(word, "down" | "starting");
        if let Some((local, distributed)) = refused {
            let name = name.clone();
            inputs.push(Input::DatabaseRefused { name, local, distributed });
        }
        inputs.push(Input::Database { name: name.clone(), up });
        if !up {
            let waiting = std::mem::take(&mut self.waiting);
            inputs.extend(waiting.into_iter().map(|job| unknown(&name, job)));
        }
        inputs
    }
}

/// The answer to a job that cannot be carried out now.
pub(super) fn unknown(name: &Name, job: DatabaseJob) -> Input {
    let database = name.clone();
    match job {
        DatabaseJob::Finish { id, .. } => {
            Input::BranchFinished { id, database, report: BranchReport::Unknown }
        }
        DatabaseJob::Verify { id, .. } => Input::Verified { id, database, found: Found::Unknown },
        DatabaseJob::Resolve { id, .. } => Input::Resolved { id, resolution: Resolution::Unknown },
    }
}

async fn finish(
    shared: Arc<Shared>,
    id: TransactionId,
    branch: BranchId,
    commit: bool,
    holder: Option<handfast_core::ids::Holder>,
) -> Done {
    if !commit
        && rollback::is_of_earlier_life(&shared, id)
        && let Some(why) = rollback::against(&shared, id, true).await
    {
        shared.say_left(id, &why);
        let database = shared.name.clone();
        let input = Input::BranchFinished { id, database, report: BranchReport::Unknown };
        return Done::Said { inputs: vec![input], keys: vec![(id, true)], trouble: false };
    }
    let end = if commit { End::Commit } else { End::Abort };
    let finished = shared.database.finish(&branch, end, holder).await;
    let trouble = match &finished {
        Finished::Unknown(why) => {
            tracing::info!(database = %shared.name, transaction = %id, "not finished yet: {why}");
            true
        }
        Finished::Done | Finished::Held(_) | Finished::Heuristic(_) => false,
    };
    let database = shared.name.clone();
    let input = Input::BranchFinished { id, database, report: finished.into() };
    Done::Said { inputs: vec![input], keys: vec![(id, true)], trouble }
}

async fn resolve(
    shared: Arc<Shared>,
    id: TransactionId,
    branch: BranchId,
    abandoned: bool,
) -> Done {
    let resolution = shared.database.resolve(&branch).await;
    if abandoned && resolution == Resolution::Tombstone {
        tracing::warn!(
            database = %shared.name,
            transaction = %id,
            "a local transaction ends by a tombstone: nobody has said that it committed, and it has \
             no marker. If its rows are there all the same, they were written to another database \
             than the registered one (docs/errors/wrong_database.md)"
        );
    }
    let trouble = resolution == Resolution::Unknown;
    let holders = match trouble {
        true => shared.database.holders().await.unwrap_or_default().join("; or "),
        false => String::new(),
    };
    if shared.status().wait(id, &holders) {
        tracing::info!(
            database = %shared.name,
            transaction = %id,
            "its local transaction may still be open: {holders}"
        );
    }
    let input = Input::Resolved { id, resolution };
    Done::Said { inputs: vec![input], keys: vec![(id, false)], trouble }
}

/// One query for all of them.
async fn verify(shared: Arc<Shared>, asked: Vec<(TransactionId, BranchId)>, local: bool) -> Done {
    let branches: Vec<BranchId> = asked.iter().map(|(_, branch)| *branch).collect();
    let found: Result<Vec<bool>, _> = if local {
        let outcomes = shared.database.outcomes(&branches).await;
        outcomes.map(|all| all.into_iter().map(|o| o == Some(Outcome::Committed)).collect())
    } else {
        shared.database.prepared(&branches).await
    };
    let trouble = found.is_err();
    let found = match found {
        Ok(found) => found.into_iter().map(|f| if f { Found::Yes } else { Found::No }).collect(),
        Err(fault) => {
            tracing::info!(database = %shared.name, "votes are not verified yet: {fault}");
            vec![Found::Unknown; asked.len()]
        }
    };
    let input = |((id, _), found)| Input::Verified { id, database: shared.name.clone(), found };
    let inputs = asked.into_iter().zip(found).map(input).collect();
    Done::Said { inputs, keys: Vec::new(), trouble }
}

/// Whether the database answers, may be trusted, and is ours.
async fn look(shared: Arc<Shared>) -> Done {
    let report = shared.database.check().await;
    if let Some(silent) = report.finding("answers").filter(|f| f.grade == Grade::Fail) {
        let condition = Condition::Down(silent.what.clone());
        return Done::Looked { condition, report: None, identity: None };
    }
    if let Some(why) = why_not(&report, true) {
        let (condition, report) = (Condition::Refused(why), Some(report));
        return Done::Looked { condition, report, identity: None };
    }
    let (condition, identity) = match is_ours(&shared).await {
        Ok((condition, identity)) => (condition, Some(identity)),
        Err(fault) => (Condition::Down(fault.to_string()), None),
    };
    Done::Looked { condition, report: Some(report), identity }
}

async fn is_ours(shared: &Shared) -> Result<(Condition, Identity), Fault> {
    let identity = shared.database.identity().await?;
    if let Some(first) = shared.places.take(&identity.database, &shared.name) {
        return Ok((Condition::Refused(twice(&first, &shared.name)), identity));
    }
    Ok((claims::claim(shared).await?, identity))
}

/// MY9: two branches of one transaction in one database would wait for each other's locks, and none
/// of its deadlock detectors would see it.
fn twice(first: &Name, second: &Name) -> String {
    format!(
        "it is the very database that is registered as {first} already: let both share {first}, and \
         take {second} out of the configuration"
    )
}

/// Why local or distributed transactions are not allowed: the first finding that says so.
fn why_not(report: &Report, local: bool) -> Option<String> {
    let allowed = if local { report.allows_local() } else { report.allows_distributed() };
    if allowed {
        return None;
    }
    let worst = if local { Grade::Fail } else { Grade::FailDistributed };
    let finding = report.findings.iter().find(|f| f.grade >= worst)?;
    let remedy = if finding.remedy.is_empty() { "" } else { " " };
    Some(format!("{}{remedy}{}", finding.what, finding.remedy))
}
