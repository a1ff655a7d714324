//! `/metrics`: the node's figures as they stand at the moment of the scrape.
//!
//! Nothing is counted here. What is not known is absent, never zero.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use handfast_core::command::Command;
use handfast_core::output::Reply;
use handfast_core::view::{Standing, SubscriptionView};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::timeout;

use crate::VERSION;
use crate::databases::{Condition, Databases, View};
use crate::door::{Figures, Way};
use crate::node::{Node, NodeStats};

/// Subscriptions that have lines of their own, at most.
const SUBSCRIPTIONS: usize = 1_000;
/// The node may take so long to list them.
const ASKING: Duration = Duration::from_secs(1);

/// The type of what a scrape answers.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a scrape needs.
#[derive(Clone)]
pub(super) struct Metrics {
    node: Node,
    databases: Databases,
    started_seconds: f64,
}

impl Metrics {
    pub(super) fn new(node: &Node, databases: &Databases) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (node, databases) = (node.clone(), databases.clone());
        Self { node, databases, started_seconds: since.as_secs_f64() }
    }
}

/// Answers a scrape.
pub(super) async fn scrape(
    way: Option<Extension<Way>>,
    State(metrics): State<Metrics>,
) -> Response {
    let Ok(stats) = metrics.node.stats().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the node has stopped\n").into_response();
    };
    let durable_lsn = *metrics.node.durable_changed().borrow();
    let databases = metrics.databases.list();
    let subscriptions = subscriptions(&metrics.node).await;
    let door = way.and_then(|Extension(way)| way.figures());
    let started_seconds = metrics.started_seconds;
    match render(&stats, &databases, &subscriptions, door, durable_lsn, started_seconds) {
        Ok(body) => super::text(CONTENT_TYPE, body),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// None while the node does not answer in time.
async fn subscriptions(node: &Node) -> Vec<SubscriptionView> {
    match timeout(ASKING, node.call(Command::ListSubscriptions)).await {
        Ok(Ok(Reply::Subscriptions(views))) => views,
        Ok(_) | Err(_) => Vec::new(),
    }
}

fn render(
    stats: &NodeStats,
    databases: &[View],
    subscriptions: &[SubscriptionView],
    door: Option<Figures>,
    durable_lsn: u64,
    started_seconds: f64,
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_with_unit(
        "process_start_time",
        "When the process started, in Unix time",
        Unit::Seconds,
        ConstGauge::new(started_seconds),
    );
    let ours = registry.sub_registry_with_prefix("handfast");
    ours.register("build", "The version of the server", Info::new([("version", VERSION)]));
    transactions(ours, stats);
    journal(ours, stats, durable_lsn);
    of_databases(ours, databases);
    of_subscriptions(ours, subscriptions);
    if let Some(door) = door {
        connections(ours, door);
    }
    ours.register_with_unit(
        "unread",
        "Bytes that wait to be read by all streams, about",
        Unit::Bytes,
        ConstGauge::new(stats.unread_bytes),
    );
    of_clock(ours, stats);
    standings(ours, stats);
    gauge(ours, "sessions", "Open streams of clients", stats.sessions as u64);
    gauge(ours, "instances", "Attached instances of services", stats.core.instances as u64);
    let mut body = String::new();
    encode(&mut body, &registry)?;
    Ok(body)
}

fn connections(ours: &mut Registry, door: Figures) {
    let ours = ours.sub_registry_with_prefix("connections");
    gauge(ours, "open", "Connections of clients", door.open);
    gauge(ours, "most", "Connections that may be open", door.most);
    counter(ours, "refused", "Connections that found no place", door.refused);
    counter(ours, "silent", "Connections closed because they were silent", door.silent);
    counter(
        ours,
        "stalled",
        "Connections cut off because they did not read and others waited",
        door.stalled,
    );
    for (name, help, bytes) in [
        ("arriving", "Bytes of large messages that are not handled", door.arriving_bytes),
        ("leaving", "Bytes of frames that were made and are not read", door.leaving_bytes),
    ] {
        ours.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(bytes));
    }
}

fn transactions(ours: &mut Registry, stats: &NodeStats) {
    let (core, counters) = (&stats.core, &stats.core.counters);
    counter(ours, "transactions_begun", "Transactions begun", counters.begun);
    counter(ours, "transactions_committed", "Transactions decided to commit", counters.committed);
    counter(ours, "transactions_failed", "Transactions that failed", counters.failed);
    counter(
        ours,
        "transactions_attention_raised",
        "Transactions that asked for a person's attention",
        counters.attention,
    );
    counter(
        ours,
        "local_transactions_abandoned",
        "Local transactions whose stream ended or whose deadline passed before anybody said that \
         they committed, and whose database had no marker",
        counters.abandoned,
    );
    gauge(ours, "transactions_open", "Transactions that have not ended", core.open as u64);
    gauge(
        ours,
        "transactions_waiting",
        "Transactions that wait to be begun because as many are open as may be",
        core.waiting as u64,
    );
    gauge(
        ours,
        "transactions_deciding",
        "Open transactions that are decided and not finished",
        core.deciding as u64,
    );
    gauge(
        ours,
        "transactions_attention",
        "Open transactions that a person should look at",
        core.attention as u64,
    );
    gauge(
        ours,
        "transactions_unseen",
        "Transactions that ended otherwise than decided and that nobody has taken note of",
        core.unseen as u64,
    );
    gauge(ours, "idempotency_keys", "Idempotency keys that are kept", core.keys as u64);
    ours.register_with_unit(
        "staged",
        "Bytes of events staged by open transactions",
        Unit::Bytes,
        ConstGauge::new(core.staged_bytes as u64),
    );
    let refused = "Requests that were refused and may come again later";
    counter(ours, "requests_refused", refused, stats.refused);
    ours.register_with_unit(
        "work",
        "Bytes of work that wait for the votes of services",
        Unit::Bytes,
        ConstGauge::new(core.work_bytes as u64),
    );
}

fn journal(ours: &mut Registry, stats: &NodeStats, durable_lsn: u64) {
    let ours = ours.sub_registry_with_prefix("journal");
    counter(ours, "groups", "Commit groups made durable since the start", stats.groups);
    counter(ours, "records", "Records made durable since the start", stats.records);
    gauge(ours, "durable_lsn", "Last place of the log that is on stable storage", durable_lsn);
    if stats.groups > 0 {
        gauge(ours, "last_group_records", "Records in the last commit group", stats.last_group);
    }
    ours.register_with_unit(
        "write",
        "Time spent writing and syncing commit groups",
        Unit::Seconds,
        ConstCounter::new(stats.sync_nanos as f64 / 1e9),
    );
    ours.register_with_unit(
        "free",
        "Bytes that can be appended without a new allocation",
        Unit::Bytes,
        ConstGauge::new(stats.free_bytes),
    );
    gauge(ours, "segments", "Segments of the journal on disk", stats.segments as u64);
    counter(ours, "compactions", "Segments rewritten without what was dead", stats.compactions);
    let low = u64::from(stats.low_space);
    let damaged = stats.damaged as u64;
    gauge(ours, "damaged_places", "Places of sealed segments that cannot be read", damaged);
    gauge(ours, "low_space", "1: the store is so full that new work is refused", low);
}

fn of_clock(ours: &mut Registry, stats: &NodeStats) {
    ours.register_with_unit(
        "clock_offset",
        "How far the machine's clock is from the times in the store; negative: it is behind",
        Unit::Seconds,
        ConstGauge::new(stats.clock_offset_ms as f64 / 1e3),
    );
    ours.register_with_unit(
        "time_away",
        "Time in which no server ran and that does not count for ages yet",
        Unit::Seconds,
        ConstGauge::new(stats.core.uncounted_ms as f64 / 1e3),
    );
}

/// Labels are the names in the configuration and the auditor's few words, so both are bounded.
type Labels = Vec<(&'static str, String)>;

fn of_databases(ours: &mut Registry, databases: &[View]) {
    if databases.is_empty() {
        return;
    }
    let (up, in_doubt) = (Family::<Labels, Gauge>::default(), Family::<Labels, Gauge>::default());
    for View { name, status, .. } in databases {
        let database = ("database", name.to_string());
        let is_up = i64::from(status.condition == Condition::Up);
        up.get_or_create(&vec![database.clone()]).set(is_up);
        for row in &status.in_doubt {
            let label = ("label", row.label.as_str().to_owned());
            in_doubt.get_or_create(&vec![database.clone(), label]).inc();
        }
    }
    ours.register("database_up", "1: the database answers, is trusted and is ours", up);
    ours.register("in_doubt", "Prepared transactions in databases, at the last audit", in_doubt);
}

/// Only what has happened has a line, and of so many subscriptions at most: the first by name.
fn of_subscriptions(ours: &mut Registry, views: &[SubscriptionView]) {
    let (failed, dead) =
        (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
    let silent = Family::<Labels, Gauge>::default();
    let has_any = |view: &&SubscriptionView| {
        view.rejected + view.expired + view.lost + view.died + u64::from(view.silent) > 0
    };
    for view in views.iter().filter(has_any).take(SUBSCRIPTIONS) {
        let subscription = ("subscription", view.name.to_string());
        for (cause, count) in
            [("rejected", view.rejected), ("lease", view.expired), ("stream", view.lost)]
        {
            let labels = vec![subscription.clone(), ("cause", cause.to_owned())];
            failed.get_or_create(&labels).inc_by(count);
        }
        let labels = vec![subscription];
        dead.get_or_create(&labels).inc_by(view.died);
        silent.get_or_create(&labels).set(i64::from(view.silent));
    }
    ours.register("attempts_failed", "Attempts to deliver that counted and failed", failed);
    ours.register("dead_letters", "Events that have become dead letters", dead);
    ours.register(
        "silent_subscribers",
        "Streams that are sent nothing: they do not answer",
        silent,
    );
}

/// One line for each way in which a subscription can stand, whatever their number.
fn standings(ours: &mut Registry, stats: &NodeStats) {
    let subscriptions = Family::<Labels, Gauge>::default();
    for (standing, count) in Standing::ALL.iter().zip(stats.core.standings) {
        let label = vec![("standing", standing.as_str().to_owned())];
        subscriptions.get_or_create(&label).set(i64::from(count));
    }
    let help = "Subscriptions by whether they deliver at this moment, and if not, why";
    ours.register("subscriptions", help, subscriptions);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstGauge::new(value));
}

#[cfg(test)]
mod tests {
    use handfast_core::ids::{Name, Offset, SubscriptionId};
    use handfast_core::record::SubscriptionSettings;
    use handfast_database::{Kind, Prepared};

    use super::*;
    use crate::databases::{InDoubt, Label, Status};

    #[test]
    fn what_is_not_known_is_absent() {
        let body = render(&NodeStats::default(), &[], &[], None, 7, 1.5)
            .expect("a string takes everything");
        for line in [
            "handfast_transactions_begun_total 0",
            "handfast_journal_durable_lsn 7",
            "handfast_journal_write_seconds_total 0.0",
            "handfast_staged_bytes 0",
            "handfast_work_bytes 0",
            "handfast_clock_offset_seconds 0.0",
            "handfast_time_away_seconds 0.0",
            "process_start_time_seconds 1.5",
            "# EOF",
        ] {
            assert!(body.lines().any(|l| l == line), "{line:?} is not in\n{body}");
        }
        assert!(!body.contains("last_group"), "there was no group yet:\n{body}");
    }

    #[test]
    fn databases_have_a_line_each_and_one_for_what_is_in_doubt() {
        let row = |label| InDoubt {
            prepared: Prepared {
                branch: None,
                foreign: None,
                age: None,
                user: None,
                waiting: None,
                belongs_to: None,
            },
            label,
            age: None,
            why_left: None,
        };
        let status = Status {
            condition: Condition::Up,
            since: UNIX_EPOCH,
            waits: std::collections::BTreeMap::new(),
            next_try: None,
            report: None,
            identity: None,
            in_doubt: vec![row(Label::Foreign), row(Label::Undecided), row(Label::Foreign)],
            audited: Some(UNIX_EPOCH),
        };
        let name = Name::new("orders").expect("a name");
        let view = View { name, kind: Kind::Postgres, url: String::new(), status };
        let body = render(&NodeStats::default(), &[view], &[], None, 7, 1.5)
            .expect("a string takes it all");
        for line in [
            r#"handfast_database_up{database="orders"} 1"#,
            r#"handfast_in_doubt{database="orders",label="foreign"} 2"#,
            r#"handfast_in_doubt{database="orders",label="undecided"} 1"#,
        ] {
            assert!(body.lines().any(|l| l == line), "{line}: {body}");
        }
    }
    #[test]
    fn a_subscription_has_lines_for_what_has_failed() {
        let view = |name: &str, rejected, died| SubscriptionView {
            subscription: SubscriptionId(3),
            name: Name::new(name).expect("a name"),
            topic: Name::new("transfers").expect("a name"),
            settings: SubscriptionSettings::default(),
            acknowledged_below: Offset(40),
            end: Offset(42),
            leased: 1,
            staged: 0,
            waiting: 1,
            backlog: 2,
            dead: 0,
            gap: None,
            subscribers: 1,
            silent: 0,
            rejected,
            expired: 0,
            lost: 0,
            died,
            deleting: false,
            standing: Some(Standing::Leased),
            note: String::new(),
        };
        let views = [view("billing", 5, 1), view("quiet", 0, 0)];
        let body = render(&NodeStats::default(), &[], &views, None, 7, 1.5).expect("a string");
        for line in [
            r#"handfast_attempts_failed_total{subscription="billing",cause="rejected"} 5"#,
            r#"handfast_attempts_failed_total{subscription="billing",cause="lease"} 0"#,
            r#"handfast_dead_letters_total{subscription="billing"} 1"#,
        ] {
            assert!(body.lines().any(|l| l == line), "{line}: {body}");
        }
        assert!(!body.contains("quiet"), "nothing has happened there:\n{body}");
        let many: Vec<_> = (0..2_000).map(|n| view(&format!("s{n}"), 1, 0)).collect();
        let body = render(&NodeStats::default(), &[], &many, None, 7, 1.5).expect("a string");
        assert_eq!(body.matches("handfast_dead_letters_total{").count(), SUBSCRIPTIONS);
    }
}
