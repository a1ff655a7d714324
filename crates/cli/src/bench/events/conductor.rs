//! Conducts `bench events`: for each number of callers new topics, new consumer groups and new
//! publishers on one server, and at the end a comparison of what was sent with what came.

use std::path::Path;
use std::time::Duration;

use handfast::{Handfast, TopicSettings};
use tokio::time::{Instant, sleep};

use super::args::Args;
use super::plan::{Consumed, ConsumerPlan, Published, PublisherPlan, subscription};
use super::report::{self, Run};
use crate::bench::part::{Part, Said};
use crate::bench::resources::Before;
use crate::bench::server::Server;
use crate::bench::show::Show;
use crate::bench::{Common, Report, conduct, directory};
use crate::harness::Problem;

/// What is published may take this long to be acknowledged by every group.
const CATCHING_UP: Duration = Duration::from_secs(120);

/// Runs it.
pub(crate) fn run(args: &Args, common: Common) -> Result<Report, Problem> {
    conduct(async {
        let show = Show::new(common);
        let dir = directory(args.dir.as_deref())?;
        show.doing("starting");
        let server = Server::start(dir.path(), "").await?;
        let hf = server.connect().await?;
        let stage = Stage { args, dir: dir.path(), show: &show, server: &server, hf };
        let (mut runs, mut problems) = (Vec::new(), Vec::new());
        for in_flight in &args.in_flight {
            let run = stage.run(*in_flight, &mut problems).await?;
            show.note(&run.line());
            runs.push(run);
        }
        server.end().await?;
        Report::new("events", args, &runs, problems, report::text(&runs))
    })
}

struct Stage<'a> {
    args: &'a Args,
    dir: &'a Path,
    show: &'a Show,
    server: &'a Server,
    hf: Handfast,
}

impl Stage<'_> {
    async fn run(&self, in_flight: u32, problems: &mut Vec<String>) -> Result<Run, Problem> {
        let name = |at| format!("events-{in_flight}-{at}");
        let topics: Vec<String> = (1..=self.args.topics()).map(name).collect();
        for topic in &topics {
            self.hf.create_topic(topic, TopicSettings::new()).await?;
        }
        let groups: Vec<String> = (1..=self.args.groups).map(|at| format!("group-{at}")).collect();
        let consumers = self.start_consumers(&topics, &groups).await?;
        let mut publisher = self.start_publisher(&topics, in_flight)?;
        self.show.doing(format!("{in_flight} in flight: warming up"));
        publisher.until(|said| matches!(said, Said::Measuring)).await?;
        let before = Before::look(self.server, &with(&consumers, &publisher)).await?;
        let mut events = 0;
        loop {
            match publisher.next().await? {
                Said::Measured => break,
                Said::Progress(so_far) => {
                    events = so_far;
                    self.show.doing(format!("{in_flight} in flight: {events} events"));
                }
                Said::Ready | Said::Measuring | Said::Found(_) => {}
            }
        }
        let resources = before.cost(self.server, &with(&consumers, &publisher), events).await?;
        self.show.doing(format!("{in_flight} in flight: the consumers catch up"));
        let published: Published = publisher.finish().await?;
        problems.extend(published.problems.iter().cloned());
        problems.extend(self.catch_up(&topics, &groups).await?);
        let mut consumed = Vec::new();
        for (consumer, group) in consumers.into_iter().zip(&groups) {
            let found: Consumed = consumer.leave().await?;
            let told = found.problems.iter().map(|problem| format!("{group}: {problem}"));
            problems.extend(told);
            problems.extend(compared(group, &published, &found));
            consumed.push(found);
        }
        for topic in &topics {
            self.hf.delete_topic(topic).await?;
        }
        Ok(Run::new(self.args, in_flight, &published, &consumed, resources))
    }

    async fn start_consumers(
        &self,
        topics: &[String],
        groups: &[String],
    ) -> Result<Vec<Part>, Problem> {
        let mut consumers = Vec::new();
        for group in groups {
            let plan = ConsumerPlan {
                server: self.server.url.clone(),
                topics: topics.to_vec(),
                group: group.clone(),
                credit: self.args.credit,
                threads: self.args.threads,
            };
            let name = format!("consumer {}", consumers.len() + 1);
            let mut consumer = Part::start(self.dir, name, "events-consumer", &plan)?;
            consumer.until(|said| matches!(said, Said::Ready)).await?;
            consumers.push(consumer);
        }
        Ok(consumers)
    }

    fn start_publisher(&self, topics: &[String], in_flight: u32) -> Result<Part, Problem> {
        let plan = PublisherPlan {
            server: self.server.url.clone(),
            topics: topics.to_vec(),
            publishers: self.args.publishers,
            keys: self.args.keys,
            in_flight,
            size: self.args.size,
            events: self.args.events(),
            in_tx: self.args.in_tx,
            seconds: self.args.seconds,
            threads: self.args.threads,
        };
        Part::start(self.dir, "publishers", "events-publisher", &plan)
    }

    /// Waits until every group has acknowledged everything; says what is left if that takes too
    /// long.
    async fn catch_up(&self, topics: &[String], groups: &[String]) -> Result<Vec<String>, Problem> {
        let give_up = Instant::now() + CATCHING_UP;
        let mut problems = Vec::new();
        for (group, topic) in groups.iter().flat_map(|g| topics.iter().map(move |t| (g, t))) {
            loop {
                let view = self.hf.subscription(subscription(group, topic)).await?;
                if view.backlog == 0 {
                    if view.dead > 0 {
                        problems.push(format!("{group}: {} dead letters of {topic}", view.dead));
                    }
                    break;
                }
                if Instant::now() > give_up {
                    let left = view.backlog;
                    problems
                        .push(format!("{group}: {left} events of {topic} are not acknowledged"));
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(problems)
    }
}

fn with<'a>(consumers: &'a [Part], publisher: &'a Part) -> Vec<&'a Part> {
    consumers.iter().chain([publisher]).collect()
}

/// What was published to each topic under each key has to have come to the group.
fn compared(group: &str, published: &Published, consumed: &Consumed) -> Vec<String> {
    let topics = published.by_topic.iter().zip(&consumed.by_topic).enumerate();
    let mut problems = Vec::new();
    for (topic, (sent, came)) in topics {
        for (key, sent) in sent.iter().enumerate() {
            let came = came.get(key).copied().unwrap_or(0);
            if came != *sent && problems.len() < 10 {
                problems.push(format!(
                    "{group}, topic {}: {sent} events of key {key} were published and {came} came",
                    topic + 1
                ));
            }
        }
    }
    problems
}
