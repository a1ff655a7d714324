//! Starts everybody, kills them at random instants, waits until all is settled, and collects the
//! evidence.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use handfast::{Handfast, ReadItem, Start, TopicSettings};
use handfast_database::{Options as DatabaseOptions, connect};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Options;
use super::bank::{self, TOPIC};
use super::part::{DEADLINE, End, Ended};
use super::proof::{Evidence, prove};
use super::report::{Kills, Markers, Report};
use super::victims::{Application, Private, Server};
use super::watch::{Seen, databases, doubts, prepared, sum, sums};
use crate::harness::{Problem, Random, Urls, log_dir};

/// From the last restart nothing may stay prepared for longer than the deadline and this.
const SETTLED: Duration = Duration::from_secs(10);
/// When nothing has ended for so long, the next kill comes all the same.
const STUCK: Duration = Duration::from_secs(3);
/// What is under way may take this long when everybody lives.
const PATIENCE: Duration = Duration::from_secs(60);
/// Numbers of transfers that one application process may use.
const NUMBERS: i64 = 10_000_000;

/// The victims of a kill.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Server,
    Postgres,
    MariaDb,
    Both,
    Application,
}

impl Victim {
    /// In a hundred kills, 60 of the server, 6 of the application, 8 of each database, 18 of both.
    fn drawn(random: &mut Random, databases: bool) -> Self {
        match random.below(100) {
            0..60 => Self::Server,
            60..66 => Self::Application,
            _ if !databases => Self::Server,
            66..74 => Self::Postgres,
            74..82 => Self::MariaDb,
            _ => Self::Both,
        }
    }
}

/// See the module.
pub(super) async fn conduct(options: Options, dir: &Path) -> Result<Report, Problem> {
    let started = Instant::now();
    let screen = Screen::new(&options);
    let (private, urls) = match options.urls.clone() {
        Some(urls) => (None, urls),
        None => {
            screen.say("starting a private PostgreSQL and a private MariaDB");
            let (private, urls) = Private::start(dir).await?;
            (Some(private), urls)
        }
    };
    for url in [&urls.postgres, &urls.mariadb] {
        let database = connect(url, DatabaseOptions::default());
        let database = database.map_err(|error| Problem::Part(error.to_string()))?;
        database.install(None).await.map_err(|fault| Problem::Part(fault.to_string()))?;
    }
    bank::create(&urls.postgres, &urls.mariadb).await?;
    let before = bank::markers(&urls.postgres, &urls.mariadb).await?;
    let server = Server::start(dir, &urls).await?;
    let hf = Handfast::builder(server.url())
        .with_time_limit(Duration::from_secs(30))
        .with_wait_for_server(Duration::from_secs(30))
        .connect()
        .await?;
    hf.create_topic(TOPIC, TopicSettings::new()).await?;
    until_up(&hf).await?;

    let seen = Arc::new(Seen::default());
    let (stop, stopped) = watch::channel(false);
    let watching = [
        tokio::spawn(sums(urls.clone(), Arc::clone(&seen), stopped.clone())),
        tokio::spawn(doubts(databases(&urls)?, Arc::clone(&seen), stopped)),
    ];
    let mut stage = Stage {
        options: &options,
        dir,
        urls: &urls,
        server,
        private,
        told: BTreeMap::new(),
        kills: Kills::default(),
        screen,
    };
    stage.play().await?;
    let (in_doubt, settled) = stage.settle(&hf).await?;
    stop.send_replace(true);
    for task in watching {
        // It has nothing to say.
        let _ = task.await;
    }

    let evidence = Evidence {
        events: events(&hf).await?,
        sum: sum(&urls).await?,
        wrong_sums: seen.wrong_sums.load(Ordering::Relaxed),
        in_doubt,
        settled_in_time: settled <= DEADLINE + SETTLED,
        ..stage.evidence(before).await?
    };
    let proofs = prove(&evidence);
    let told = |end| evidence.told.values().filter(|told| **told == end).count() as u64;
    let (committed, failed) = (evidence.events.len() as u64, told(End::Failed));
    Ok(Report {
        ok: proofs.values().all(|holds| *holds),
        transfers: committed + failed,
        committed,
        failed,
        unknown: told(End::Unknown),
        kills: stage.kills,
        markers: evidence.markers,
        money_before: 2 * bank::ACCOUNTS * bank::START,
        money_after: evidence.sum,
        duplicates: duplicates(&evidence.orders) + duplicates(&evidence.ledger),
        events: evidence.events.len() as u64,
        reads: seen.reads.load(Ordering::Relaxed),
        wrong_sums: evidence.wrong_sums,
        reads_blocked: seen.blocked.load(Ordering::Relaxed),
        in_doubt,
        longest_in_doubt_ms: seen.longest_in_doubt_ms.load(Ordering::Relaxed),
        settled_ms: u64::try_from(settled.as_millis()).unwrap_or(u64::MAX),
        seconds: started.elapsed().as_secs_f64(),
        seed: options.seed,
        proofs,
    })
}

/// Numbers that stand more than once in an ascending list.
fn duplicates(ascending: &[i64]) -> u64 {
    ascending.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64
}

async fn until_up(hf: &Handfast) -> Result<(), Problem> {
    let asking = async {
        loop {
            let all = hf.databases().await?;
            if let Some(refused) = all.iter().find(|d| d.condition == "refused") {
                let why = refused.why.clone().unwrap_or_default();
                return Err(Problem::Part(format!("database {}: {why}", refused.name)));
            }
            if all.iter().all(|database| database.condition == "up") {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let late = |_| Problem::Part("the databases are not up after a minute".to_owned());
    timeout(PATIENCE, asking).await.map_err(late)?
}

/// Everything that is in the topic: number and kind of each transfer.
async fn events(hf: &Handfast) -> Result<Vec<(i64, String)>, Problem> {
    let mut found = Vec::new();
    let mut events = hf.read(TOPIC, Start::Earliest).open().await?;
    while let Some(item) = events.next().await? {
        if let ReadItem::Event(stored) = item {
            let number = stored.event.id.parse();
            let number = number.map_err(|_| Problem::Part("an event of somebody else".into()))?;
            found.push((number, stored.event.kind));
        }
    }
    Ok(found)
}

struct Stage<'a> {
    options: &'a Options,
    dir: &'a Path,
    urls: &'a Urls,
    server: Server,
    private: Option<Private>,
    told: BTreeMap<i64, End>,
    kills: Kills,
    screen: Screen,
}

impl Stage<'_> {
    /// Transfers and kills, until there were enough of both.
    async fn play(&mut self) -> Result<(), Problem> {
        let mut random = Random::new(self.options.seed);
        let mut generation = 0;
        let mut application = self.application(generation)?;
        let spacing = (self.options.transfers / u64::from(self.options.kills + 1)).max(1);
        let mut next_kill = spacing;
        let mut moved = Instant::now();
        loop {
            let ended = self.told.len() as u64;
            let left = self.options.kills - self.kills.all();
            if ended >= self.options.transfers && left == 0 {
                break;
            }
            let stuck = moved.elapsed() >= STUCK;
            if left > 0 && (ended >= next_kill || stuck) {
                let victim = Victim::drawn(&mut random, self.private.is_some());
                // At a random instant of what is going on.
                sleep(Duration::from_millis(random.below(30))).await;
                if matches!(victim, Victim::Application) {
                    application.kill().await?;
                    self.drain(&mut application).await;
                    self.kills.application += 1;
                    self.screen.happened("SIGKILL for the application");
                    generation += 1;
                    application = self.application(generation)?;
                } else {
                    self.kill(victim).await?;
                }
                next_kill = next_kill.max(ended) + spacing / 2 + random.below(spacing);
                moved = Instant::now();
                continue;
            }
            match timeout(STUCK, application.lines.next_line()).await {
                Ok(Ok(Some(line))) => {
                    moved = Instant::now();
                    self.note(&line)?;
                }
                Ok(Ok(None)) => {
                    let log = log_dir(self.dir).join("application.log");
                    let problem = format!("the application has ended; see {}", log.display());
                    return Err(Problem::Part(problem));
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        application.leave();
        let leaving = self.drain(&mut application);
        if timeout(PATIENCE, leaving).await.is_err() {
            return Err(Problem::Part("the application does not come to an end".to_owned()));
        }
        Ok(())
    }

    fn application(&self, generation: i64) -> Result<Application, Problem> {
        let seed =
            self.options.seed.wrapping_mul(1_000_003).wrapping_add(generation.unsigned_abs());
        let after = generation * NUMBERS;
        let url = self.server.url();
        Ok(Application::start(self.dir, &url, self.urls, self.options.clients, seed, after)?)
    }

    /// What the application has said before it ended.
    async fn drain(&mut self, application: &mut Application) {
        while let Ok(Some(line)) = application.lines.next_line().await {
            // The last line of one that was killed may be half a line.
            let _ = self.note(&line);
        }
    }

    fn note(&mut self, line: &str) -> Result<(), Problem> {
        let ended: Ended = serde_json::from_str(line)
            .map_err(|error| Problem::Part(format!("the application says {line:?}: {error}")))?;
        self.told.insert(ended.transfer, ended.end);
        self.screen.progress(self.told.len() as u64, &self.kills);
        Ok(())
    }

    async fn kill(&mut self, victim: Victim) -> Result<(), Problem> {
        let text = match victim {
            Victim::Server | Victim::Application => {
                self.server.kill().await?;
                self.kills.server += 1;
                "SIGKILL for the server"
            }
            Victim::Postgres => {
                self.private_kill(true, false).await?;
                self.kills.postgres += 1;
                "SIGKILL for PostgreSQL"
            }
            Victim::MariaDb => {
                self.private_kill(false, true).await?;
                self.kills.mariadb += 1;
                "SIGKILL for MariaDB"
            }
            Victim::Both => {
                self.private_kill(true, true).await?;
                self.kills.both += 1;
                "SIGKILL for both databases"
            }
        };
        self.screen.happened(&format!("{text}; it is back"));
        Ok(())
    }

    async fn private_kill(&self, postgres: bool, mariadb: bool) -> Result<(), Problem> {
        match &self.private {
            Some(private) => private.kill(postgres, mariadb).await,
            None => Ok(()),
        }
    }

    /// Waits until nothing is prepared or open; what is left otherwise, and how long it took.
    async fn settle(&self, hf: &Handfast) -> Result<(u64, Duration), Problem> {
        let since = Instant::now();
        let databases = databases(self.urls)?;
        loop {
            let prepared = prepared(&databases).await.map(|all| all.len());
            let open = hf.transactions(None, 1_000).await.map(|all| all.len());
            if let (Some(0), Ok(0)) = (prepared, &open) {
                return Ok((0, since.elapsed()));
            }
            if since.elapsed() > PATIENCE {
                let left = prepared.unwrap_or(0) + open.unwrap_or(0);
                return Ok((left as u64, since.elapsed()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn evidence(&self, before: (i64, i64)) -> Result<Evidence, Problem> {
        let (orders, ledger) = bank::effects(&self.urls.postgres, &self.urls.mariadb).await?;
        let after = bank::markers(&self.urls.postgres, &self.urls.mariadb).await?;
        let markers = Markers { orders: after.0 - before.0, ledger: after.1 - before.1 };
        Ok(Evidence { told: self.told.clone(), orders, ledger, markers, ..Evidence::default() })
    }
}

/// What is shown while it runs, on standard error.
struct Screen {
    since: Instant,
    quiet: bool,
    /// None: not a terminal.
    bar: Option<ProgressBar>,
}

impl Screen {
    fn new(options: &Options) -> Self {
        let bar = (io::stderr().is_terminal() && !options.quiet).then(|| {
            let style = ProgressStyle::with_template("  {bar:30} {pos}/{len} transfers, {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(options.transfers).with_style(style)
        });
        Self { since: Instant::now(), quiet: options.quiet, bar }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.println(text),
            // If standard error is closed nobody wants to read it.
            None => drop(writeln!(io::stderr().lock(), "{text}")),
        }
    }

    fn happened(&self, text: &str) {
        self.say(&format!("  {:7.2} s  {text}", self.since.elapsed().as_secs_f64()));
    }

    fn progress(&self, ended: u64, kills: &Kills) {
        if let Some(bar) = &self.bar {
            bar.set_position(ended);
            bar.set_message(format!("{} kills", kills.all()));
        }
    }
}
