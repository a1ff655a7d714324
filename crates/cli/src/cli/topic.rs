//! `handfast topic create|alter|list|delete|publish|tail`. Publishing and tailing have files of
//! their own.

use std::time::Duration;

use handfast::{Topic, TopicSettings, TopicSettingsView, TopicView};
use serde::Serialize;

use super::output::{Column, counted, duration, size, table};
use super::parse::OrNone;
use super::reach::Reach;
use super::remote::{self, Server};
use super::{Exit, Failure, parse, publish, tail};

const CREATE: &str = "Without a limit a topic keeps every event. Whatever limit is met first ends \
an event.
Creating a topic again with the same settings is no error.

Examples:
  handfast topic create transfers
  handfast topic create clicks --retain-age 7d --retain-bytes 10GiB
  handfast topic create orders --retain-bytes 1GiB --retain-unacknowledged";
const ALTER: &str = "What is not named stays as it is. With a lower limit, events go that were \
kept until now.

Examples:
  handfast topic alter clicks --retain-age 30d
  handfast topic alter clicks --retain-bytes none
  handfast topic alter orders --retain-unacknowledged=false";
const LIST: &str = "START is the first offset that is still there, END the one after the last \
event. Offsets may have
holes, so their difference is not the number of events.

Example:
  handfast topic list --json | jq -r '.topics[].name'";
const DELETE: &str =
    "Its subscriptions and dead letters go with it. Asks on a terminal; elsewhere \
--yes is needed.

Example:
  handfast topic delete clicks --yes";

/// Topics: create them, publish to them, read them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: remote::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a topic
    #[command(after_help = CREATE)]
    Create {
        /// Its name
        #[arg(value_name = "NAME", value_parser = parse::name)]
        name: String,
        /// Events older than this may go, such as 7d
        #[arg(long, value_name = "AGE", value_parser = parse::duration)]
        retain_age: Option<Duration>,
        /// The oldest events may go while there are more bytes than this, such as 10GiB
        #[arg(long, value_name = "SIZE", value_parser = parse::size)]
        retain_bytes: Option<u64>,
        /// Nothing goes before every subscription has acknowledged it; at --retain-bytes,
        /// publishing is refused instead
        #[arg(long)]
        retain_unacknowledged: bool,
    },
    /// Change how long a topic keeps its events
    #[command(after_help = ALTER)]
    Alter(Alter),
    /// List topics
    #[command(after_help = LIST)]
    List,
    /// Delete a topic with its events and subscriptions
    #[command(after_help = DELETE)]
    Delete {
        /// The topic
        #[arg(value_name = "NAME", value_parser = parse::name)]
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    Publish(publish::Args),
    Tail(tail::Args),
}

#[derive(Debug, clap::Args)]
#[group(id = "changes", required = true, multiple = true)]
struct Changes {
    /// Events older than this may go, such as 7d; or none
    #[arg(long, value_name = "AGE", value_parser = parse::age_or_none)]
    retain_age: Option<OrNone<Duration>>,
    /// The oldest events may go while there are more bytes than this, such as 10GiB; or none
    #[arg(long, value_name = "SIZE", value_parser = parse::size_or_none)]
    retain_bytes: Option<OrNone<u64>>,
    /// Whether nothing goes before every subscription has acknowledged it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    retain_unacknowledged: Option<bool>,
}

#[derive(Debug, clap::Args)]
struct Alter {
    /// The topic
    #[arg(value_name = "NAME", value_parser = parse::name)]
    name: String,
    #[command(flatten)]
    changes: Changes,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    remote::run(&args.remote, async |server| match &args.command {
        Command::Create { name, retain_age, retain_bytes, retain_unacknowledged } => {
            let settings = settings(*retain_age, *retain_bytes, *retain_unacknowledged);
            create(server, name, settings).await
        }
        Command::Alter(Alter { name, changes }) => alter(server, name, changes).await,
        Command::List => list(server).await,
        Command::Delete { name, yes } => delete(server, name, *yes).await,
        Command::Publish(args) => publish::run(server, args).await,
        Command::Tail(args) => tail::run(server, args).await,
    })
}

/// The topic of this name, or the refusal that the server would give.
pub(super) async fn find(server: &Server, name: &str) -> Result<TopicView, Failure> {
    let topics = server.ask("asking for topics", server.handfast.topics()).await?;
    topics.into_iter().find(|topic| topic.name.as_str() == name).ok_or_else(|| {
        let code = handfast::Code::UnknownTopic;
        Failure::new(Exit::Failed, format!("there is no topic {name} ({code})"))
            .with_code(code.as_str())
            .with_hint("`handfast topic list` shows all topics")
    })
}

async fn create(server: &Server, name: &str, settings: TopicSettings) -> Result<(), Failure> {
    let asking = server.handfast.create_topic(name, settings);
    let topic = server.ask("creating the topic", asking).await?;
    server.out.result(&Settled::from(&topic), || {
        let keeps = keeps(&topic.settings);
        match topic.created {
            true => format!("Created topic {name}, which keeps {keeps}."),
            false => format!("Topic {name} was there already, and keeps {keeps}."),
        }
    })
}

async fn alter(server: &Server, name: &str, changes: &Changes) -> Result<(), Failure> {
    let had = find(server, name).await?.settings;
    let age = changes.retain_age.map_or(had.retain_ms.map(Duration::from_millis), |age| age.0);
    let bytes = changes.retain_bytes.map_or(had.retain_bytes, |bytes| bytes.0);
    let unacknowledged = changes.retain_unacknowledged.unwrap_or(had.retain_unacknowledged);
    let asking = server.handfast.alter_topic(name, settings(age, bytes, unacknowledged));
    let topic = server.ask("changing the topic", asking).await?;
    server.out.result(&Settled::from(&topic), || {
        format!("Topic {name} keeps {}.", keeps(&topic.settings))
    })
}

async fn list(server: &Server) -> Result<(), Failure> {
    let views = server.ask("asking for topics", server.handfast.topics()).await?;
    let topics: Vec<Listed> = views.iter().map(Listed::from).collect();
    server.out.result(&serde_json::json!({ "topics": topics }), || listed(&views, &server.reach))
}

async fn delete(server: &Server, name: &str, yes: bool) -> Result<(), Failure> {
    let topic = find(server, name).await?;
    let subscriptions = counted(topic.subscriptions.into(), "subscription", "subscriptions");
    let events = size(topic.bytes);
    let question = format!("Delete topic {name} with {events} of events and {subscriptions}?");
    remote::confirm(yes, &question)?;
    server.ask("deleting the topic", server.handfast.delete_topic(name)).await?;
    let document = serde_json::json!({ "name": name, "deleted": true });
    server.out.result(&document, || format!("Deleted topic {name}."))
}

fn settings(age: Option<Duration>, bytes: Option<u64>, unacknowledged: bool) -> TopicSettings {
    let mut settings = TopicSettings::new();
    if let Some(age) = age {
        settings = settings.with_age(age);
    }
    if let Some(bytes) = bytes {
        settings = settings.with_bytes(bytes);
    }
    if unacknowledged { settings.retain_unacknowledged() } else { settings }
}

/// A topic after a change.
#[derive(Serialize)]
struct Settled {
    name: String,
    created: bool,
    #[serde(flatten)]
    retention: Retention,
}

/// A topic in a list.
#[derive(Serialize)]
struct Listed {
    name: String,
    topic_id: u32,
    start: u64,
    end: u64,
    bytes: u64,
    #[serde(flatten)]
    retention: Retention,
    subscriptions: u32,
    deleting: bool,
}

/// Null: no such limit.
#[derive(Serialize)]
struct Retention {
    retain_ms: Option<u64>,
    retain_bytes: Option<u64>,
    retain_unacknowledged: bool,
}

impl From<&TopicSettingsView> for Retention {
    fn from(settings: &TopicSettingsView) -> Self {
        Self {
            retain_ms: settings.retain_ms,
            retain_bytes: settings.retain_bytes,
            retain_unacknowledged: settings.retain_unacknowledged,
        }
    }
}

impl From<&Topic> for Settled {
    fn from(topic: &Topic) -> Self {
        let retention = Retention::from(&topic.settings);
        Self { name: topic.name.clone(), created: topic.created, retention }
    }
}

impl From<&TopicView> for Listed {
    fn from(view: &TopicView) -> Self {
        Self {
            name: view.name.to_string(),
            topic_id: view.topic.0,
            start: view.start.0,
            end: view.end.0,
            bytes: view.bytes,
            retention: Retention::from(&view.settings),
            subscriptions: view.subscriptions,
            deleting: view.deleting,
        }
    }
}

fn listed(views: &[TopicView], reach: &Reach) -> String {
    let columns = [
        Column::Left("TOPIC"),
        Column::Right("START"),
        Column::Right("END"),
        Column::Right("SIZE"),
        Column::Right("SUBSCRIPTIONS"),
        Column::Left("KEEPS"),
    ];
    let rows = views.iter().map(|view| {
        let keeps =
            if view.deleting { "is being deleted".to_owned() } else { keeps(&view.settings) };
        vec![
            view.name.to_string(),
            view.start.to_string(),
            view.end.to_string(),
            size(view.bytes),
            view.subscriptions.to_string(),
            keeps,
        ]
    });
    let empty = reach.commands("No topics: `handfast topic create NAME` makes one.");
    table(&columns, rows.collect(), &empty)
}

/// What a topic keeps, for people.
fn keeps(settings: &TopicSettingsView) -> String {
    let mut limits = Vec::new();
    limits.extend(settings.retain_ms.map(duration));
    limits.extend(settings.retain_bytes.map(size));
    match (limits.is_empty(), settings.retain_unacknowledged) {
        (true, _) => "everything".to_owned(),
        (false, false) => limits.join(", "),
        (false, true) => format!("{}, and what is not acknowledged", limits.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use handfast::Name;
    use handfast_core::ids::{Offset, TopicId};

    use super::*;
    use crate::cli::Cli;

    fn view() -> TopicView {
        TopicView {
            topic: TopicId(1),
            name: Name::new("transfers").expect("a name"),
            settings: TopicSettingsView {
                retain_ms: Some(604_800_000),
                retain_bytes: None,
                retain_unacknowledged: true,
            },
            start: Offset(3),
            end: Offset(120),
            bytes: 1_536,
            deleting: false,
            subscriptions: 2,
        }
    }

    #[test]
    fn it_reads_well() {
        let expected = "\
TOPIC      START  END     SIZE  SUBSCRIPTIONS  KEEPS
transfers      3  120  1.5 KiB              2  7d, and what is not acknowledged";
        assert_eq!(listed(&[view()], &Reach::default()), expected);
        assert_eq!(keeps(&TopicSettingsView::default()), "everything");
    }

    #[test]
    fn no_limit_is_null() {
        let document = serde_json::to_value(Listed::from(&view())).expect("JSON");
        assert_eq!(
            document,
            serde_json::json!({
                "name": "transfers", "topic_id": 1, "start": 3, "end": 120, "bytes": 1536,
                "retain_ms": 604_800_000, "retain_bytes": null, "retain_unacknowledged": true,
                "subscriptions": 2, "deleting": false
            })
        );
    }

    #[test]
    fn altering_needs_a_change() {
        for (line, fits) in [
            ("handfast topic alter t", false),
            ("handfast topic alter t --retain-age none", true),
            ("handfast topic alter t --retain-unacknowledged", true),
            ("handfast topic alter t --retain-unacknowledged=false", true),
            ("handfast topic alter t --retain-bytes 10", false),
            ("handfast topic create t --retain-bytes 10GiB", true),
            ("handfast topic create t --retain-age none", false),
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).is_ok(), fits, "{line}");
        }
    }
}
