//! What the core shows arrives at a client as it was.

use std::fmt::Debug;

use handfast_core::event::OffsetRange;
use handfast_core::ids::{
    Name, Offset, SessionId, StateId, SubscriptionId, TopicId, TransactionId,
};
use handfast_core::output::{Outcome, PublicState};
use handfast_core::record::{
    Note, ParticipantKind, Reason, ReasonCode, SubscriptionSettings, TopicSettings,
};
use handfast_core::view::{
    BranchView, InstanceView, ParticipantView, Standing, SubscriptionView, TopicView,
    TransactionView, VoteKind,
};
use handfast_wire::prost::Message;
use handfast_wire::v1;

const ID: TransactionId = TransactionId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_e5f6);

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Over the wire and back.
fn survives<View, Sent>(view: View)
where
    View: Clone + PartialEq + Debug + TryFrom<Sent, Error: Debug>,
    Sent: From<View> + Message + Default,
{
    let expected = view.clone();
    let bytes = Sent::from(view).encode_to_vec();
    let read = Sent::decode(&*bytes).expect("it was encoded");
    assert_eq!(View::try_from(read).expect("it is well-formed"), expected);
}

fn reason(code: ReasonCode) -> Reason {
    Reason { code, participant: Some(name("ledger")), detail: "why".into(), retryable: true }
}

#[test]
fn outcomes_and_reasons() {
    use PublicState::{Committed, Committing, Failed, Preparing};
    for state in [Preparing, Committing, Committed, Failed] {
        let finished = state == Committed;
        let outcome = Outcome { id: ID, state, reason: None, heuristic: finished, finished };
        survives::<_, v1::Outcome>(outcome);
    }
    for &code in ReasonCode::ALL {
        survives::<_, v1::Reason>(Reason { participant: None, ..reason(code) });
        let reason = Some(reason(code));
        survives::<_, v1::Outcome>(Outcome {
            id: ID,
            state: Failed,
            reason,
            heuristic: false,
            finished: false,
        });
    }
    let stateless = v1::Outcome { transaction_id: vec![0; 16].into(), ..Default::default() };
    assert!(Outcome::try_from(stateless).is_err(), "a state that was not said is none of the four");
}

#[test]
fn transactions_and_branches() {
    let branch = BranchView {
        participant: name("payments"),
        kind: ParticipantKind::Service,
        state_id: Some(StateId(5)),
        instance: Some(name("payments-1")),
        prepare_sent_ms: Some(0),
        vote: Some(VoteKind::ReadOnly),
        voted_ms: Some(2),
        decision_sent_ms: Some(3),
        finished_ms: Some(4),
        sends: 9,
        trouble: Some("no room".into()),
    };
    let fresh = BranchView {
        participant: name("ledger"),
        kind: ParticipantKind::Database,
        state_id: None,
        instance: None,
        prepare_sent_ms: None,
        vote: None,
        voted_ms: None,
        decision_sent_ms: None,
        finished_ms: None,
        sends: 0,
        trouble: None,
    };
    let votes = [Some(VoteKind::Yes), Some(VoteKind::No), None];
    let voted = votes.map(|vote| BranchView { vote, ..branch.clone() });
    let view = TransactionView {
        id: ID,
        state: PublicState::Failed,
        local: None,
        begun_wall_ms: 1,
        remaining_ms: Some(0),
        commit_asked: true,
        events: 3,
        acknowledgements: 4,
        reason: Some(reason(ReasonCode::VotedNo)),
        decided_wall_ms: Some(5),
        ended_wall_ms: Some(6),
        heuristic: true,
        why: Some("database ledger: it was rolled back".into()),
        attention: Some(String::new()),
        notes: vec![Note { wall_ms: 8, text: "noted by an operator: seen".into() }],
        branches: [vec![branch, fresh], voted.to_vec()].concat(),
    };
    survives::<_, v1::Transaction>(view.clone());
    survives::<_, v1::Transaction>(TransactionView {
        state: PublicState::Preparing,
        local: Some(name("orders")),
        remaining_ms: None,
        reason: None,
        decided_wall_ms: None,
        ended_wall_ms: None,
        attention: None,
        branches: Vec::new(),
        ..view
    });
}

#[test]
fn participants_topics_and_subscriptions() {
    survives::<_, v1::Participant>(ParticipantView {
        name: name("payments"),
        kind: ParticipantKind::Service,
        instances: vec![InstanceView {
            instance: name("payments-1"),
            state_id: StateId(5),
            session: SessionId(6),
            since_wall_ms: 7,
        }],
        open_branches: 8,
    });
    for retain_ms in [None, Some(1)] {
        survives::<_, v1::Topic>(TopicView {
            topic: TopicId(1),
            name: name("orders"),
            settings: TopicSettings { retain_ms, retain_bytes: None, retain_unacknowledged: true },
            start: Offset(2),
            end: Offset(3),
            bytes: 4,
            deleting: true,
            subscriptions: 5,
        });
    }
    let gap = Some(OffsetRange { from: Offset(1), to: Offset(2) });
    for (max_attempts, gap) in [(None, gap), (Some(3), None)] {
        survives::<_, v1::Subscription>(SubscriptionView {
            subscription: SubscriptionId(1),
            name: name("billing"),
            topic: name("orders"),
            settings: SubscriptionSettings { max_attempts, ..SubscriptionSettings::default() },
            acknowledged_below: Offset(2),
            end: Offset(3),
            leased: 4,
            staged: 5,
            waiting: 6,
            backlog: 7,
            dead: 8,
            gap,
            subscribers: 9,
            silent: 10,
            rejected: 11,
            expired: 12,
            lost: 13,
            died: 14,
            deleting: true,
            standing: Some(Standing::WindowFull),
            note: "stands still".into(),
        });
    }
}
