//! The conductor: sets everything up, lets the transfers run, makes happen what the script says,
//! waits until nothing moves any more, and reads the evidence.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use handfast::{Handfast, TopicSettings};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::bank::Home;
use super::cast::Cast;
use super::evidence::{self, Evidence};
use super::ledger::{Ledger, TOPIC};
use super::plan::{Plan, Side};
use super::report::{Happened, Report};
use super::results::Ended;
use super::script::{Event, Target, What, script};
use super::show::{Progress, Show};
use super::watch::Open;
use super::{Options, parts};
use crate::harness::{Problem, Random};

/// Instances of each service at the start.
const INSTANCES: u32 = 2;
/// Transfers that the client runs at the same time; fewer when there are few, so that there is
/// something going on when a kill comes.
const IN_FLIGHT: (usize, usize) = (4, 64);
/// How often everybody is looked at.
const TICK: Duration = Duration::from_millis(50);
/// Nothing may stand still for longer.
const STANDSTILL: Duration = Duration::from_secs(90);
/// When all transfers have ended, what is under way may take this long.
const QUIET: Duration = Duration::from_secs(60);

/// Everything that changes while it runs.
#[derive(Debug)]
pub(super) struct Conductor {
    dir: PathBuf,
    /// Of the services, in the order of [`Side::BOTH`].
    homes: [Home; 2],
    cast: Cast,
    show: Show,
    random: Random,
    script: Vec<Event>,
    happened: Happened,
    ended: BTreeMap<u32, bool>,
    inbox: mpsc::UnboundedReceiver<Ended>,
    counting: Option<(watch::Receiver<Option<Open>>, JoinHandle<()>)>,
}

impl Conductor {
    pub(super) fn new(dir: &Path, options: &Options) -> Self {
        let Options { plan, kills, seed, urls, .. } = options;
        let homes = Side::BOTH.map(|side| Home::new(dir, side, urls.as_ref()));
        let transfers = plan.transfers.len();
        let (least, most) = IN_FLIGHT;
        let (tell, inbox) = mpsc::unbounded_channel();
        let transfers_u32 = u32::try_from(transfers).unwrap_or(u32::MAX);
        // Another sequence than that of the transfers.
        let mut random = Random::new(seed ^ 0x6b69_6c6c);
        let script = script(&mut random, transfers_u32, *kills);
        Self {
            dir: dir.to_owned(),
            cast: Cast::new(dir, homes.clone(), (transfers / 10).clamp(least, most), tell),
            homes,
            show: Show::new(transfers_u32),
            random,
            script,
            happened: Happened { seed: *seed, ..Happened::default() },
            ended: BTreeMap::new(),
            inbox,
            counting: None,
        }
    }

    /// From an empty directory to the report.
    pub(super) async fn conduct(&mut self, plan: &Plan) -> Result<Report, Problem> {
        self.header(plan);
        let money_before = self.prepare(plan).await?;
        let hf = self.start().await?;
        self.transfers(plan).await?;
        let open = self.quiet(&hf).await?;
        if let Some((_, task)) = self.counting.take() {
            task.abort();
        }
        drop(hf);
        self.cast.dismiss().await?;
        self.happened.seconds = self.show.seconds();
        self.happened.kills = self.cast.kills;
        self.happened.restarts = self.cast.restarts;
        let evidence = Evidence::gather(&self.dir, &self.homes, open).await?;
        Ok(Report::new(plan, money_before, &evidence, self.happened))
    }

    /// Whatever still runs is ended.
    pub(super) async fn end(&mut self, at_once: bool) {
        self.show.end();
        if let Some((_, task)) = self.counting.take() {
            task.abort();
        }
        if at_once {
            self.cast.end().await;
        }
    }

    fn header(&self, plan: &Plan) {
        let transfers = plan.transfers.len();
        let kills = self.script.iter().filter(|e| matches!(e.what, What::Kill(_))).count();
        let all = plan.money();
        let too_much = plan.transfers.iter().filter(|t| t.cents > all).count();
        let share = match self.homes {
            [Home::File(_), _] => "those of a service share one SQLite file",
            _ => "the east keeps its accounts in PostgreSQL, the west in MariaDB",
        };
        self.show.say(&format!(
            "handfast demo: {transfers} transfers between two services, {too_much} of them for more \
             money than there is,\nwhile {kills} times a process is killed with SIGKILL.\n\n\
             \x20 a server, two instances each of the services east and west ({share}),\n\
             \x20 a subscriber that writes every event down, a client. One transfer is one\n\
             \x20 transaction: both accounts and the event, or nothing. Seed {}.\n",
            self.happened.seed
        ));
    }

    /// Makes the files and tables. Says how much money there is.
    async fn prepare(&self, plan: &Plan) -> Result<i64, Problem> {
        for (side, home) in Side::BOTH.into_iter().zip(&self.homes) {
            home.create(side, plan).await?;
        }
        Ledger::create(&self.dir)?;
        let json = serde_json::to_vec(plan).map_err(io::Error::from)?;
        fs::write(parts::plan_path(&self.dir), json)?;
        evidence::money(&self.homes).await
    }

    /// Starts everybody, the client last.
    async fn start(&mut self) -> Result<Handfast, Problem> {
        self.cast.start_server().await?;
        let hf = super::watch::connect(self.cast.url()).await?;
        hf.create_topic(TOPIC, TopicSettings::new()).await?;
        for side in Side::BOTH {
            for number in 1..=INSTANCES {
                self.cast.start_instance(side, number)?;
            }
        }
        self.cast.start_subscriber()?;
        tokio::select! {
            everybody = super::watch::everybody(&hf, INSTANCES as usize) => everybody?,
            problem = somebody_ended(&mut self.cast) => return Err(problem),
        }
        self.show
            .happened(&format!("the server listens at {}; everybody is there", self.cast.url()));
        self.counting = Some(super::watch::keep_counting(hf.clone()));
        self.cast.start_client()?;
        Ok(hf)
    }

    /// Until every transfer has ended and everything in the script has happened.
    async fn transfers(&mut self, plan: &Plan) -> Result<(), Problem> {
        let all = plan.transfers.len();
        let ledger = Ledger::open(&self.dir)?;
        let mut script = std::mem::take(&mut self.script).into_iter().peekable();
        let mut moved = Instant::now();
        loop {
            let before = self.ended.len();
            // The end of the channel cannot come, as the cast holds its other end.
            if let Ok(Some(ended)) = timeout(TICK, self.inbox.recv()).await {
                self.ended.insert(ended.transfer, ended.committed);
            }
            while let Ok(ended) = self.inbox.try_recv() {
                self.ended.insert(ended.transfer, ended.committed);
                if script.peek().is_some_and(|event| event.after as usize <= self.ended.len()) {
                    break;
                }
            }
            if self.ended.len() > before {
                moved = Instant::now();
            } else if moved.elapsed() > STANDSTILL {
                let problem = format!("no transfer has ended for {STANDSTILL:?}");
                return Err(Problem::Part(problem));
            }
            while let Some(event) = script.next_if(|event| event.after as usize <= self.ended.len())
            {
                self.happen(event.what).await?;
                moved = Instant::now();
            }
            self.progress(&ledger)?;
            self.cast.check()?;
            if self.cast.client_is_done()? && self.ended.len() >= all {
                break;
            }
        }
        for event in script {
            self.happen(event.what).await?;
        }
        self.show.happened(&format!("all {all} transfers have ended"));
        Ok(())
    }

    async fn happen(&mut self, what: What) -> Result<(), Problem> {
        let done = self.ended.len();
        match what {
            What::Kill(target) => {
                let since = Instant::now();
                let mut struck = self.cast.strike(target, &mut self.random).await?;
                if struck.is_none() {
                    // The client has finished, so somebody else is killed.
                    struck = self.cast.strike(Target::Server, &mut self.random).await?;
                }
                let Some(name) = struck else { return Ok(()) };
                let ms = since.elapsed().as_millis();
                self.show.happened(&format!(
                    "SIGKILL for {name} after {done} transfers; started again, {ms} ms later"
                ));
            }
            What::Join(side) => {
                let name = self.cast.join(side)?;
                self.happened.joined += 1;
                self.show.happened(&format!("{name} joins {side} after {done} transfers"));
            }
            What::Leave(side) => {
                if let Some(name) = self.cast.leave(side).await? {
                    self.happened.left += 1;
                    self.show.happened(&format!("{name} leaves {side} after {done} transfers"));
                }
            }
        }
        Ok(())
    }

    fn progress(&mut self, ledger: &Ledger) -> Result<(), Problem> {
        let committed = self.ended.values().filter(|committed| **committed).count();
        let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let progress = Progress {
            committed: count(committed),
            failed: count(self.ended.len() - committed),
            events: ledger.count()?.unsigned_abs(),
            open: self.counting.as_ref().and_then(|(open, _)| *open.borrow()),
        };
        self.show.progress(&progress);
        Ok(())
    }

    /// Waits until nothing is under way anywhere, for a bounded time: what is still there then is
    /// what the proofs find. Says how many transactions the server has open.
    async fn quiet(&mut self, hf: &Handfast) -> Result<Option<usize>, Problem> {
        let ledger = Ledger::open(&self.dir)?;
        let committed = self.ended.values().filter(|committed| **committed).count() as u64;
        let give_up = Instant::now() + QUIET;
        loop {
            let open = super::watch::open(hf).await.map(Open::all);
            let backlog = super::watch::backlog(hf).await;
            let prepared = evidence::prepared(&self.homes).await?;
            let missing = committed.saturating_sub(ledger.count()?.unsigned_abs());
            if open == Some(0) && backlog == Some(0) && prepared == 0 && missing == 0 {
                self.show.happened("nothing is under way any more");
                return Ok(open);
            }
            if Instant::now() > give_up {
                self.show.happened(&format!(
                    "still under way after {QUIET:?}: {open:?} transactions at the server, \
                     {prepared} prepared branches, {missing} events, backlog {backlog:?}"
                ));
                return Ok(open);
            }
            self.progress(&ledger)?;
            self.cast.check()?;
            sleep(TICK).await;
        }
    }
}

/// Waits for somebody to end who should not.
async fn somebody_ended(cast: &mut Cast) -> Problem {
    loop {
        if let Err(problem) = cast.check() {
            return problem;
        }
        sleep(TICK).await;
    }
}
