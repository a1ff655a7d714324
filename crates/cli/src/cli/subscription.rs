//! `handfast subscription list|show|seek|delete`.

use handfast::{Standing, Start, SubscriptionView};
use serde::Serialize;

use super::output::{Column, bold, counted, duration, table, visible};
use super::remote::{self, Server};
use super::{Failure, parse};

const LIST: &str = "Example:
  handfast subscription list
  handfast subscription list --topic transfers --json";
const SHOW: &str = "Example:
  handfast subscription show billing";
const SEEK: &str = "Deliveries under way become void; what is sought back to is delivered again.

Examples:
  handfast subscription seek billing --to earliest
  handfast subscription seek billing --to 42
  handfast subscription seek billing --to 2026-11-22T18:00:00Z
  handfast subscription seek billing --to 10m       what was published in the last ten minutes";
const DELETE: &str = "Its dead letters go with it. Asks on a terminal; elsewhere --yes is needed.

Example:
  handfast subscription delete billing --yes";

/// Subscriptions and how far they are
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: remote::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List subscriptions with their progress
    #[command(after_help = LIST)]
    List {
        /// Only those of this topic
        #[arg(long, value_name = "TOPIC", value_parser = parse::name)]
        topic: Option<String>,
    },
    /// Show one subscription
    #[command(after_help = SHOW)]
    Show {
        /// The subscription
        #[arg(value_name = "NAME", value_parser = parse::name)]
        name: String,
    },
    /// Go on at another place in the topic
    #[command(after_help = SEEK)]
    Seek {
        /// The subscription
        #[arg(value_name = "NAME", value_parser = parse::name)]
        name: String,
        /// earliest, latest, an offset, a time (RFC 3339) or how long ago
        #[arg(long, value_name = "PLACE", value_parser = parse::place)]
        to: Start,
    },
    /// Delete a subscription
    #[command(after_help = DELETE)]
    Delete {
        /// The subscription
        #[arg(value_name = "NAME", value_parser = parse::name)]
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    remote::run(&args.remote, async |server| match &args.command {
        Command::List { topic } => list(server, topic.as_deref()).await,
        Command::Show { name } => show(server, name).await,
        Command::Seek { name, to } => seek(server, name, *to).await,
        Command::Delete { name, yes } => delete(server, name, *yes).await,
    })
}

async fn list(server: &Server, topic: Option<&str>) -> Result<(), Failure> {
    if let Some(topic) = topic {
        // So that a topic that does not exist is not taken for one without subscriptions.
        super::topic::find(server, topic).await?;
    }
    let asking = server.handfast.subscriptions(topic);
    let views = server.ask("asking for subscriptions", asking).await?;
    let subscriptions: Vec<Subscription> = views.iter().map(Subscription::from).collect();
    let document = serde_json::json!({ "subscriptions": subscriptions });
    server.out.result(&document, || listed(&views))
}

async fn show(server: &Server, name: &str) -> Result<(), Failure> {
    let asking = server.handfast.subscription(name);
    let view = server.ask("asking for the subscription", asking).await?;
    server.out.result(&Subscription::from(&view), || shown(&view))
}

async fn seek(server: &Server, name: &str, to: Start) -> Result<(), Failure> {
    let offset = server.ask("moving the subscription", server.handfast.seek(name, to)).await?;
    let document = serde_json::json!({ "name": name, "next_offset": offset });
    server.out.result(&document, || format!("Subscription {name} goes on at offset {offset}."))
}

async fn delete(server: &Server, name: &str, yes: bool) -> Result<(), Failure> {
    let asking = server.handfast.subscription(name);
    let view = server.ask("asking for the subscription", asking).await?;
    let backlog = counted(view.backlog, "offset", "offsets");
    remote::confirm(
        yes,
        &format!("Delete subscription {name}, {backlog} behind its topic's end?"),
    )?;
    server.ask("deleting the subscription", server.handfast.delete_subscription(name)).await?;
    let document = serde_json::json!({ "name": name, "deleted": true });
    server.out.result(&document, || format!("Deleted subscription {name}."))
}

#[derive(Serialize)]
struct Subscription {
    name: String,
    topic: String,
    subscription_id: u32,
    acknowledged_below: u64,
    end: u64,
    backlog: u64,
    leased: u32,
    staged: u32,
    waiting: u32,
    dead_letters: u32,
    subscribers: u32,
    silent_subscribers: u32,
    /// Since the server started, as the next three.
    rejected: u64,
    lease_over: u64,
    stream_ended: u64,
    died: u64,
    gap: Option<Gap>,
    deleting: bool,
    /// Whether it delivers, and if not, why: one word; null: one that this version does not know.
    standing: Option<&'static str>,
    /// The same in a sentence; null: there is nothing to say.
    note: Option<String>,
    settings: Settings,
}

#[derive(Serialize)]
struct Gap {
    from: u64,
    to: u64,
}

#[derive(Serialize)]
struct Settings {
    lease_ms: u64,
    /// Null: without end.
    max_attempts: Option<u32>,
    backoff_ms: u64,
    backoff_max_ms: u64,
}

impl From<&SubscriptionView> for Subscription {
    fn from(view: &SubscriptionView) -> Self {
        Self {
            name: view.name.to_string(),
            topic: view.topic.to_string(),
            subscription_id: view.subscription.0,
            acknowledged_below: view.acknowledged_below.0,
            end: view.end.0,
            backlog: view.backlog,
            leased: view.leased,
            staged: view.staged,
            waiting: view.waiting,
            dead_letters: view.dead,
            subscribers: view.subscribers,
            silent_subscribers: view.silent,
            rejected: view.rejected,
            lease_over: view.expired,
            stream_ended: view.lost,
            died: view.died,
            gap: view.gap.map(|gap| Gap { from: gap.from.0, to: gap.to.0 }),
            deleting: view.deleting,
            standing: view.standing.map(Standing::as_str),
            note: (!view.note.is_empty()).then(|| view.note.clone()),
            settings: Settings {
                lease_ms: view.settings.lease_ms,
                max_attempts: view.settings.max_attempts,
                backoff_ms: view.settings.backoff_ms,
                backoff_max_ms: view.settings.backoff_max_ms,
            },
        }
    }
}

fn listed(views: &[SubscriptionView]) -> String {
    let columns = [
        Column::Left("SUBSCRIPTION"),
        Column::Left("TOPIC"),
        Column::Right("BACKLOG"),
        Column::Right("LEASED"),
        Column::Right("DEAD"),
        Column::Right("SUBSCRIBERS"),
        Column::Left("NOTE"),
    ];
    let rows = views.iter().map(|view| {
        vec![
            view.name.to_string(),
            view.topic.to_string(),
            view.backlog.to_string(),
            view.leased.to_string(),
            view.dead.to_string(),
            view.subscribers.to_string(),
            note(view),
        ]
    });
    table(&columns, rows.collect(), "No subscriptions.")
}

fn note(view: &SubscriptionView) -> String {
    match (view.deleting, view.gap) {
        (true, _) => "is being deleted".to_owned(),
        (false, Some(gap)) => format!("gap {} to {}", gap.from, gap.to),
        (false, None) if view.silent > 0 => silent(view),
        (false, None) => visible(&view.note),
    }
}

fn silent(view: &SubscriptionView) -> String {
    let verb = if view.silent == 1 { "does" } else { "do" };
    format!("{} {verb} not answer", counted(view.silent.into(), "subscriber", "subscribers"))
}

fn shown(view: &SubscriptionView) -> String {
    let settings = &view.settings;
    let attempts = settings.max_attempts.map_or_else(
        || "without end".to_owned(),
        |most| format!("{most}, then it is a dead letter"),
    );
    let mut lines = vec![bold(&format!("Subscription {}", view.name))];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<13} {value}"));
    line("topic", view.topic.to_string());
    line("acknowledged", format!("below offset {} of {}", view.acknowledged_below, view.end));
    line("backlog", counted(view.backlog, "offset", "offsets"));
    line(
        "under way",
        format!(
            "{} leased, {} staged in transactions, {} waiting to be tried again",
            view.leased, view.staged, view.waiting
        ),
    );
    line("dead letters", view.dead.to_string());
    line("subscribers", view.subscribers.to_string());
    line("lease", duration(settings.lease_ms));
    line("attempts", attempts);
    let (first, longest) = (duration(settings.backoff_ms), duration(settings.backoff_max_ms));
    line("pauses", format!("{first}, doubling to {longest}"));
    if view.rejected + view.expired + view.lost > 0 {
        let (rejected, expired, lost) = (view.rejected, view.expired, view.lost);
        line(
            "failed",
            format!(
                "{rejected} rejected, {expired} not answered in time, {lost} ended with their stream"
            ),
        );
    }
    if view.silent > 0 {
        line("waits", format!("{}: sent nothing until they say a word", silent(view)));
    }
    if let Some(gap) = view.gap {
        let to = gap.to;
        line(
            "gap",
            format!("offsets {} up to {to} had gone; a subscriber has to note it", gap.from),
        );
    }
    if view.deleting {
        line("note", "is being deleted".to_owned());
    } else if !view.note.is_empty() {
        line("note", visible(&view.note));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use handfast::{Name, OffsetRange};
    use handfast_core::ids::{Offset, SubscriptionId};

    use super::*;

    fn view() -> SubscriptionView {
        SubscriptionView {
            subscription: SubscriptionId(3),
            name: Name::new("billing").expect("a name"),
            topic: Name::new("transfers").expect("a name"),
            settings: handfast_core::record::SubscriptionSettings::default(),
            acknowledged_below: Offset(40),
            end: Offset(42),
            leased: 1,
            staged: 0,
            waiting: 1,
            backlog: 2,
            dead: 0,
            gap: Some(OffsetRange { from: Offset(3), to: Offset(7) }),
            subscribers: 1,
            silent: 0,
            rejected: 0,
            expired: 0,
            lost: 0,
            died: 0,
            deleting: false,
            standing: Some(Standing::Gap),
            note: String::new(),
        }
    }

    #[test]
    fn it_reads_well() {
        let expected = "\
SUBSCRIPTION  TOPIC      BACKLOG  LEASED  DEAD  SUBSCRIBERS  NOTE
billing       transfers        2       1     0            1  gap 3 to 7";
        assert_eq!(listed(&[view()]), expected);
        let expected = "\
Subscription billing
  topic         transfers
  acknowledged  below offset 40 of 42
  backlog       2 offsets
  under way     1 leased, 0 staged in transactions, 1 waiting to be tried again
  dead letters  0
  subscribers   1
  lease         30s
  attempts      10, then it is a dead letter
  pauses        100ms, doubling to 30s
  gap           offsets 3 up to 7 had gone; a subscriber has to note it";
        let shown = anstream::adapter::strip_str(&shown(&view())).to_string();
        assert_eq!(shown, expected);
    }

    #[test]
    fn it_says_who_does_not_answer_and_what_has_failed() {
        let view = SubscriptionView { gap: None, silent: 1, rejected: 2, lost: 3, ..view() };
        let listed = listed(std::slice::from_ref(&view));
        assert!(listed.ends_with("1 subscriber does not answer"), "{listed}");
        let shown = anstream::adapter::strip_str(&shown(&view)).to_string();
        for line in [
            "  failed        2 rejected, 0 not answered in time, 3 ended with their stream",
            "  waits         1 subscriber does not answer: sent nothing until they say a word",
        ] {
            assert!(shown.lines().any(|l| l == line), "{shown}");
        }
    }

    #[test]
    fn tried_without_end_is_null() {
        let mut view = view();
        view.settings.max_attempts = None;
        let document = serde_json::to_value(Subscription::from(&view)).expect("JSON");
        assert_eq!(document["settings"]["max_attempts"], serde_json::Value::Null);
        assert_eq!(document["gap"], serde_json::json!({ "from": 3, "to": 7 }));
        assert_eq!(document["dead_letters"], 0);
    }
}
