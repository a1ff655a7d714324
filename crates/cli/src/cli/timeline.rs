//! A transaction for people: its header, a line for each moment in order, a line for each branch.
//!
//! Says what is known and nothing else: a moment that the log does not keep has no line.

use clap::builder::styling::AnsiColor;
use handfast::{BranchView, ReasonView, State, TransactionView, VoteKind};

use super::output::{Column, bold, counted, duration, painted, table, time, visible, wrapped};
use super::participant::kind;
use super::reach::Reach;

/// Where the values of the header start, and how wide they may be.
const INDENT: usize = 16;
const WIDTH: usize = 80 - INDENT;

/// The word for a state.
pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Preparing => "Preparing",
        State::Committing => "Committing",
        State::Committed => "Committed",
        State::Failed => "Failed",
    }
}

/// How often something was sent to a branch; none where only the log knows the branch, because it
/// does not keep that.
pub(crate) fn sends(branch: &BranchView) -> Option<u32> {
    let has_history = branch.vote.is_some() || branch.decision_sent_ms.is_some();
    let is_from_log = branch.voted_ms.is_none() && branch.prepare_sent_ms.is_none() && has_history;
    (branch.sends > 0 || !is_from_log).then_some(branch.sends)
}

/// The whole.
pub(crate) fn shown(view: &TransactionView, reach: &Reach) -> String {
    let mut lines = header(view, reach);
    lines.push(String::new());
    lines.push(bold("Timeline"));
    let moments = moments(view);
    let widest = moments.iter().map(|moment| moment.ms.to_string().len()).max().unwrap_or(1);
    for Moment { ms, text, .. } in moments {
        let ms = format!("+{ms}");
        lines.push(format!("  {ms:>width$} ms  {text}", width = widest + 1));
    }
    if !view.branches.is_empty() {
        lines.push(String::new());
        lines.push(bold("Branches"));
        lines.extend(branches(view).lines().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}

fn header(view: &TransactionView, reach: &Reach) -> Vec<String> {
    let color = match view.state {
        State::Preparing => AnsiColor::Yellow,
        State::Committing => AnsiColor::Cyan,
        State::Committed => AnsiColor::Green,
        State::Failed => AnsiColor::Red,
    };
    let mut header = Header(vec![bold(&format!("Transaction {}", view.id))]);
    header.line("state", &painted(color, state(view.state)));
    if let Some(database) = &view.local {
        header.line("local to", &format!("database {database}"));
    }
    header.line("begun", &time(view.begun_wall_ms));
    if let Some(remaining_ms) = view.remaining_ms {
        header.line("deadline", &format!("in {}", duration(remaining_ms)));
    }
    if view.state == State::Preparing {
        header.line(
            "commit",
            match (&view.local, view.commit_asked) {
                (None, true) => "asked",
                (None, false) => "not asked yet",
                (Some(_), true) => "reported, and looked up in the database",
                (Some(_), false) => "not reported yet",
            },
        );
    }
    if view.events > 0 {
        header.line("publishes", &counted(view.events.into(), "event", "events"));
    }
    if view.acknowledgements > 0 {
        let count = counted(view.acknowledgements.into(), "delivery", "deliveries");
        header.line("acknowledges", &count);
    }
    if let Some(reason) = &view.reason {
        header.words("reason", &visible(&why_failed(reason)));
        header.line("again", if reason.retryable { "may succeed" } else { "would fail again" });
    }
    if view.heuristic {
        header.words("heuristic", &visible(why_heuristic(view)));
    }
    match &view.attention {
        // What made it heuristic is said already.
        Some(_) if view.why.is_some() => {
            let note = format!("handfast tx resolve {} --note --why \"who and why\"", view.id);
            header.words("attention", "until somebody has seen it and takes note:");
            header.line("", &reach.command(&note));
        }
        Some(attention) => header.words("attention", &visible(attention)),
        None => {}
    }
    header.0
}

/// Why a transaction failed: the code, whose fault, and in whose words.
pub(super) fn why_failed(reason: &ReasonView) -> String {
    let by = reason.participant.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
    let detail = if reason.detail.is_empty() { "" } else { ": " };
    format!("{}{by}{detail}{}", reason.code.as_str(), reason.detail)
}

/// Why a branch did not end as decided.
pub(super) fn why_heuristic(view: &TransactionView) -> &str {
    view.why.as_deref().unwrap_or("a branch was released: nobody knows how it ended")
}

struct Header(Vec<String>);

impl Header {
    fn line(&mut self, name: &str, value: &str) {
        self.0.push(format!("  {name:<width$}{value}", width = INDENT - 2));
    }

    /// A value that may need several lines.
    fn words(&mut self, name: &str, text: &str) {
        let mut name = name;
        for line in wrapped(text, WIDTH) {
            self.line(name, &line);
            name = "";
        }
    }
}

struct Moment {
    ms: u64,
    /// What comes first of those at the same time.
    rank: u8,
    text: String,
}

fn moments(view: &TransactionView) -> Vec<Moment> {
    let committed = is_committed(view);
    let (verb, done) = if committed { ("commit", "committed") } else { ("abort", "aborted") };
    let begun = match &view.local {
        Some(database) => format!("begun, local to database {database}"),
        None => "begun".to_owned(),
    };
    let mut moments = vec![Moment { ms: 0, rank: 0, text: begun }];
    let mut add = |ms: Option<u64>, rank: u8, text: String| {
        moments.extend(ms.map(|ms| Moment { ms, rank, text }));
    };
    for branch in &view.branches {
        let name = branch.participant.as_str();
        let (to_prepare, to_decision) = last_instance(branch);
        add(branch.prepare_sent_ms, 1, format!("prepare sent to {name}{to_prepare}"));
        add(branch.voted_ms, 2, format!("{name} voted {}", vote(branch)));
        add(branch.decision_sent_ms, 4, format!("{verb} sent to {name}{to_decision}"));
        add(branch.finished_ms, 5, format!("{name} {done}"));
    }
    let decided = match &view.reason {
        Some(reason) => format!("decided ABORT ({})", reason.code.as_str()),
        None if committed => "decided COMMIT".to_owned(),
        None => "decided ABORT".to_owned(),
    };
    add(decided_ms(view), 3, decided);
    for note in &view.notes {
        let at = note.wall_ms.saturating_sub(view.begun_wall_ms);
        add(Some(at), 5, visible(&note.text));
    }
    add(ended_ms(view), 6, "ended".to_owned());
    moments.sort_by_key(|moment| (moment.ms, moment.rank));
    moments
}

/// The instance that was sent to last, where it is certain which sending that was: what is known
/// is the first time of each and the last instance.
fn last_instance(branch: &BranchView) -> (String, String) {
    let Some(instance) = &branch.instance else { return (String::new(), String::new()) };
    let text = format!(" (instance {instance})");
    let was_prepared = branch.prepare_sent_ms.is_some();
    match (was_prepared, branch.decision_sent_ms.is_some(), branch.sends) {
        (true, false, 1) => (text, String::new()),
        (true, true, 2) | (false, true, 1) => (String::new(), text),
        _ => (String::new(), String::new()),
    }
}

fn is_committed(view: &TransactionView) -> bool {
    matches!(view.state, State::Committing | State::Committed)
}

/// The decision's time is of another clock than those of the branches, and both are cut to
/// milliseconds: where they disagree, the order is that of the protocol.
fn decided_ms(view: &TransactionView) -> Option<u64> {
    let at = view.decided_wall_ms?.saturating_sub(view.begun_wall_ms);
    let blamed = view.reason.as_ref().and_then(|reason| reason.participant.as_ref());
    let needed = view.branches.iter().filter(|branch| match is_committed(view) {
        true => true,
        false => blamed == Some(&branch.participant) && branch.vote == Some(VoteKind::No),
    });
    let not_before = needed.filter_map(|branch| branch.voted_ms).max();
    let not_after = view.branches.iter().filter_map(|branch| branch.decision_sent_ms).min();
    let at = at.max(not_before.unwrap_or(0));
    Some(at.min(not_after.unwrap_or(u64::MAX)))
}

fn ended_ms(view: &TransactionView) -> Option<u64> {
    let at = view.ended_wall_ms?.saturating_sub(view.begun_wall_ms);
    let last = view.branches.iter().filter_map(|branch| branch.finished_ms).max();
    Some(at.max(last.unwrap_or(0)).max(decided_ms(view).unwrap_or(0)))
}

fn vote(branch: &BranchView) -> &'static str {
    match branch.vote {
        Some(VoteKind::Yes) => "YES",
        Some(VoteKind::ReadOnly) => "READ-ONLY",
        Some(VoteKind::No) => "NO",
        None => "-",
    }
}

fn branches(view: &TransactionView) -> String {
    let columns = [
        Column::Left("PARTICIPANT"),
        Column::Left("KIND"),
        Column::Left("VOTE"),
        Column::Left("NOW"),
        Column::Right("SENT"),
        Column::Left("INSTANCE"),
    ];
    let rows = view.branches.iter().map(|branch| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            branch.participant.to_string(),
            kind(branch.kind).to_owned(),
            vote(branch).to_owned(),
            standing(view, branch).to_owned(),
            or_dash(sends(branch).map(|sends| format!("{sends}x"))),
            or_dash(branch.instance.as_ref().map(ToString::to_string)),
        ]
    });
    table(&columns, rows.collect(), "")
}

/// What has become of a branch.
fn standing(view: &TransactionView, branch: &BranchView) -> &'static str {
    let (has_ended, was_told) = (view.ended_wall_ms.is_some(), branch.decision_sent_ms.is_some());
    match (view.state, branch.vote) {
        (State::Preparing, None) if branch.prepare_sent_ms.is_some() => "asked",
        (State::Preparing, None) => "not asked",
        (State::Preparing, Some(VoteKind::Yes)) => "prepared",
        (_, Some(VoteKind::ReadOnly)) => "left",
        (State::Preparing, Some(VoteKind::No)) => "aborted",
        (State::Committing | State::Committed, _) => match (branch.finished_ms, was_told) {
            (Some(_), _) => "committed",
            (None, _) if has_ended => "not known",
            (None, true) => "told",
            (None, false) => "not told yet",
        },
        (State::Failed, Some(VoteKind::No)) => "aborted",
        (State::Failed, Some(VoteKind::Yes) | None) => match (branch.finished_ms, was_told) {
            (Some(_), _) => "aborted",
            (None, true) if !has_ended => "told",
            (None, _) => "-",
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use handfast::{Name, ParticipantKind, ReasonCode, ReasonView, StateId};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn branch(participant: &str) -> BranchView {
        BranchView {
            participant: name(participant),
            kind: ParticipantKind::Service,
            state_id: None,
            instance: None,
            prepare_sent_ms: None,
            vote: None,
            voted_ms: None,
            decision_sent_ms: None,
            finished_ms: None,
            sends: 0,
            trouble: None,
        }
    }

    /// One branch has voted, the other has no instance.
    pub(in crate::cli) fn preparing() -> TransactionView {
        let payments = BranchView {
            state_id: Some(StateId(7)),
            instance: Some(name("p-1")),
            prepare_sent_ms: Some(1),
            vote: Some(VoteKind::Yes),
            voted_ms: Some(14),
            sends: 1,
            ..branch("payments")
        };
        TransactionView {
            id: "0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6".parse().expect("an id"),
            state: State::Preparing,
            local: None,
            begun_wall_ms: 1_795_370_400_000,
            remaining_ms: Some(17_660),
            commit_asked: true,
            events: 2,
            acknowledgements: 1,
            reason: None,
            decided_wall_ms: None,
            ended_wall_ms: None,
            heuristic: false,
            why: None,
            attention: None,
            notes: Vec::new(),
            branches: vec![payments, branch("stock")],
        }
    }

    /// Everything went well; the wall clock says that the decision came before the last vote.
    pub(in crate::cli) fn committed() -> TransactionView {
        let open = preparing();
        let mut branches = open.branches;
        branches[0].decision_sent_ms = Some(132);
        branches[0].finished_ms = Some(140);
        branches[0].sends = 2;
        branches[1] = BranchView {
            kind: ParticipantKind::Database,
            vote: Some(VoteKind::Yes),
            voted_ms: Some(130),
            decision_sent_ms: Some(132),
            finished_ms: Some(1_135),
            sends: 3,
            ..branch("ledger")
        };
        TransactionView {
            state: State::Committed,
            remaining_ms: None,
            decided_wall_ms: Some(open.begun_wall_ms + 129),
            ended_wall_ms: Some(open.begun_wall_ms + 1_135),
            branches,
            ..open
        }
    }

    /// As the log keeps it.
    pub(in crate::cli) fn failed() -> TransactionView {
        let open = preparing();
        TransactionView {
            state: State::Failed,
            remaining_ms: None,
            commit_asked: false,
            events: 0,
            acknowledgements: 0,
            reason: Some(ReasonView {
                code: ReasonCode::VotedNo,
                participant: Some(name("payments")),
                detail: "no money".to_owned(),
                retryable: false,
            }),
            decided_wall_ms: Some(open.begun_wall_ms + 20),
            ended_wall_ms: Some(open.begun_wall_ms + 31),
            branches: vec![BranchView { vote: Some(VoteKind::No), ..branch("payments") }],
            ..open
        }
    }

    fn check(view: &TransactionView, expected: &str) {
        let text = anstream::adapter::strip_str(&shown(view, &Reach::default())).to_string();
        assert_eq!(text, expected);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "over 80 columns: {line}");
        }
    }

    #[test]
    fn one_that_committed() {
        check(
            &committed(),
            "\
Transaction 0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6
  state         Committed
  begun         2026-11-22 18:00:00.000Z
  publishes     2 events
  acknowledges  1 delivery

Timeline
     +0 ms  begun
     +1 ms  prepare sent to payments
    +14 ms  payments voted YES
   +130 ms  ledger voted YES
   +130 ms  decided COMMIT
   +132 ms  commit sent to payments (instance p-1)
   +132 ms  commit sent to ledger
   +140 ms  payments committed
  +1135 ms  ledger committed
  +1135 ms  ended

Branches
  PARTICIPANT  KIND      VOTE  NOW        SENT  INSTANCE
  payments     service   YES   committed    2x  p-1
  ledger       database  YES   committed    3x  -",
        );
    }

    #[test]
    fn one_that_waits() {
        let mut view = preparing();
        view.attention = Some("stock has no instance that could be asked\x07, ".repeat(2));
        check(
            &view,
            "\
Transaction 0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6
  state         Preparing
  begun         2026-11-22 18:00:00.000Z
  deadline      in 17.6s
  commit        asked
  publishes     2 events
  acknowledges  1 delivery
  attention     stock has no instance that could be asked\\u{7}, stock has no
                instance that could be asked\\u{7},

Timeline
   +0 ms  begun
   +1 ms  prepare sent to payments (instance p-1)
  +14 ms  payments voted YES

Branches
  PARTICIPANT  KIND     VOTE  NOW        SENT  INSTANCE
  payments     service  YES   prepared     1x  p-1
  stock        service  -     not asked    0x  -",
        );
    }

    #[test]
    fn one_that_failed_long_ago() {
        check(
            &failed(),
            "\
Transaction 0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6
  state         Failed
  begun         2026-11-22 18:00:00.000Z
  reason        voted_no by payments: no money
  again         would fail again

Timeline
   +0 ms  begun
  +20 ms  decided ABORT (voted_no)
  +31 ms  ended

Branches
  PARTICIPANT  KIND     VOTE  NOW      SENT  INSTANCE
  payments     service  NO    aborted     -  -",
        );
    }

    #[test]
    fn a_local_one_that_committed() {
        let view = TransactionView {
            local: Some(name("orders")),
            acknowledgements: 0,
            branches: Vec::new(),
            ..committed()
        };
        check(
            &view,
            "\
Transaction 0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6
  state         Committed
  local to      database orders
  begun         2026-11-22 18:00:00.000Z
  publishes     2 events

Timeline
     +0 ms  begun, local to database orders
   +129 ms  decided COMMIT
  +1135 ms  ended",
        );
    }
}
