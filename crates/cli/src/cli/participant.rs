//! `handfast participant list`: who takes part in transactions, and who of them is there.

use handfast::{InstanceView, ParticipantKind, ParticipantView};
use serde::Serialize;

use super::output::{Column, rfc3339, table, time, visible};
use super::{Failure, remote};

const LIST: &str = "Example:
  handfast participant list
  handfast participant list --json | jq '.participants[] | select(.instances == [])'";

/// Services and databases that take part
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: remote::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List services with their live instances, and databases
    #[command(after_help = LIST)]
    List,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Command::List = args.command;
    remote::run(&args.remote, async |server| {
        let asking = server.handfast.participants();
        let participants = server.ask("asking for participants", asking).await?;
        server.out.result(&document(&participants), || text(&participants))
    })
}

#[derive(Serialize)]
struct Document {
    participants: Vec<Participant>,
}

#[derive(Serialize)]
struct Participant {
    name: String,
    kind: &'static str,
    open_branches: u32,
    /// Null for databases, which have none.
    instances: Option<Vec<Instance>>,
}

#[derive(Serialize)]
struct Instance {
    instance: String,
    state_id: String,
    attached: Option<String>,
    attached_unix_ms: u64,
}

/// The word for a kind of participant.
pub(crate) fn kind(kind: ParticipantKind) -> &'static str {
    match kind {
        ParticipantKind::Service => "service",
        ParticipantKind::Database => "database",
    }
}

fn document(views: &[ParticipantView]) -> Document {
    let instance = |view: &InstanceView| Instance {
        instance: view.instance.to_string(),
        state_id: view.state_id.to_string(),
        attached: rfc3339(view.since_wall_ms),
        attached_unix_ms: view.since_wall_ms,
    };
    let participants = views.iter().map(|view| Participant {
        name: view.name.to_string(),
        kind: kind(view.kind),
        open_branches: view.open_branches,
        instances: match view.kind {
            ParticipantKind::Service => Some(view.instances.iter().map(instance).collect()),
            ParticipantKind::Database => None,
        },
    });
    Document { participants: participants.collect() }
}

fn text(views: &[ParticipantView]) -> String {
    let mut rows = Vec::new();
    for view in views {
        let row = |instance: String, attached: String| {
            let open = view.open_branches.to_string();
            vec![visible(view.name.as_str()), kind(view.kind).to_owned(), open, instance, attached]
        };
        match (view.kind, view.instances.as_slice()) {
            (ParticipantKind::Database, _) => rows.push(row("-".into(), "-".into())),
            (ParticipantKind::Service, []) => rows.push(row("none connected".into(), "-".into())),
            (ParticipantKind::Service, instances) => rows.extend(
                instances.iter().map(|i| row(visible(i.instance.as_str()), time(i.since_wall_ms))),
            ),
        }
    }
    let columns = [
        Column::Left("PARTICIPANT"),
        Column::Left("KIND"),
        Column::Right("OPEN"),
        Column::Left("INSTANCE"),
        Column::Left("ATTACHED"),
    ];
    table(&columns, rows, "No participants: no service is connected, no database registered.")
}

#[cfg(test)]
mod tests {
    use handfast::{Name, StateId};

    use super::*;

    fn views() -> Vec<ParticipantView> {
        let name = |text| Name::new(text).expect("a name");
        let instance = InstanceView {
            instance: name("p-1"),
            state_id: StateId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_e5f6),
            session: handfast_core::ids::SessionId(9),
            since_wall_ms: 1_795_370_400_000,
        };
        let service = ParticipantView {
            name: name("payments"),
            kind: ParticipantKind::Service,
            instances: vec![instance],
            open_branches: 2,
        };
        let gone = ParticipantView { name: name("stock"), instances: vec![], ..service.clone() };
        let database = ParticipantView {
            name: name("ledger"),
            kind: ParticipantKind::Database,
            ..gone.clone()
        };
        vec![service, gone, database]
    }

    #[test]
    fn a_database_has_no_instances_and_a_service_may_have_none() {
        let document = serde_json::to_value(document(&views())).expect("JSON");
        let all = &document["participants"];
        assert_eq!(all[0]["instances"][0]["state_id"], "0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6");
        assert_eq!(all[0]["instances"][0]["attached"], "2026-11-22T18:00:00.000Z");
        assert_eq!(all[1]["instances"], serde_json::json!([]));
        assert_eq!(all[2]["instances"], serde_json::Value::Null);
    }

    #[test]
    fn the_table_has_a_row_for_each_instance() {
        let expected = "\
PARTICIPANT  KIND      OPEN  INSTANCE        ATTACHED
payments     service      2  p-1             2026-11-22 18:00:00.000Z
stock        service      2  none connected  -
ledger       database     2  -               -";
        assert_eq!(text(&views()), expected);
    }
}
