//! What people and programs see of the state, both ways: the core's views become messages on the
//! server and views again in a client.

use handfast_core::event::OffsetRange;
use handfast_core::ids::{Offset, SessionId, SubscriptionId, TopicId};
use handfast_core::output::{Outcome, PublicState};
use handfast_core::record::{DeadLettered, Note, Reason, ReasonCode};
use handfast_core::view::{
    BranchView, InstanceView, ParticipantView, Standing, SubscriptionView, TopicView,
    TransactionView, VoteKind,
};

use crate::{Malformed, events, ids, subscriptions, v1};

impl From<PublicState> for v1::TransactionState {
    fn from(state: PublicState) -> Self {
        match state {
            PublicState::Preparing => Self::Preparing,
            PublicState::Committing => Self::Committing,
            PublicState::Committed => Self::Committed,
            PublicState::Failed => Self::Failed,
        }
    }
}

/// Reads a public state.
///
/// # Errors
/// When it is none of the four.
pub fn public_state(field: &'static str, value: i32) -> Result<PublicState, Malformed> {
    match ids::enumeration(field, value)? {
        v1::TransactionState::Preparing => Ok(PublicState::Preparing),
        v1::TransactionState::Committing => Ok(PublicState::Committing),
        v1::TransactionState::Committed => Ok(PublicState::Committed),
        v1::TransactionState::Failed => Ok(PublicState::Failed),
        v1::TransactionState::Unspecified => Err(Malformed::missing(field)),
    }
}

impl From<VoteKind> for v1::VoteKind {
    fn from(vote: VoteKind) -> Self {
        match vote {
            VoteKind::Yes => Self::Yes,
            VoteKind::No => Self::No,
            VoteKind::ReadOnly => Self::ReadOnly,
        }
    }
}

fn vote_kind(field: &'static str, value: i32) -> Result<Option<VoteKind>, Malformed> {
    Ok(match ids::enumeration(field, value)? {
        v1::VoteKind::Unspecified => None,
        v1::VoteKind::Yes => Some(VoteKind::Yes),
        v1::VoteKind::No => Some(VoteKind::No),
        v1::VoteKind::ReadOnly => Some(VoteKind::ReadOnly),
    })
}

/// The kind of reason with this text, if there is one.
#[must_use]
pub fn reason_code(text: &str) -> Option<ReasonCode> {
    ReasonCode::ALL.iter().copied().find(|code| code.as_str() == text)
}

impl From<Reason> for v1::Reason {
    fn from(reason: Reason) -> Self {
        Self {
            code: reason.code.as_str().to_owned(),
            participant: ids::name_text(reason.participant.as_ref()),
            detail: reason.detail,
            retryable: reason.retryable,
        }
    }
}

impl TryFrom<v1::Reason> for Reason {
    type Error = Malformed;

    /// Fails for a kind of reason that a newer server may have; the message itself is still
    /// readable.
    fn try_from(message: v1::Reason) -> Result<Self, Malformed> {
        let Some(code) = reason_code(&message.code) else {
            return Err(Malformed::new("reason", format!("{:?} is not known", message.code)));
        };
        let participant = ids::name_or_none("participant", &message.participant)?;
        Ok(Self { code, participant, detail: message.detail, retryable: message.retryable })
    }
}

impl From<Outcome> for v1::Outcome {
    fn from(outcome: Outcome) -> Self {
        Self {
            transaction_id: ids::transaction_bytes(outcome.id),
            state: v1::TransactionState::from(outcome.state).into(),
            reason: outcome.reason.map(Into::into),
            heuristic: outcome.heuristic,
            keys_since_unix_ms: 0,
            finished: outcome.finished,
        }
    }
}

impl TryFrom<v1::Outcome> for Outcome {
    type Error = Malformed;

    fn try_from(message: v1::Outcome) -> Result<Self, Malformed> {
        Ok(Self {
            id: ids::transaction_id("transaction_id", &message.transaction_id)?,
            state: public_state("state", message.state)?,
            reason: message.reason.map(TryInto::try_into).transpose()?,
            heuristic: message.heuristic,
            finished: message.finished,
        })
    }
}

impl From<TransactionView> for v1::Transaction {
    fn from(view: TransactionView) -> Self {
        Self {
            transaction_id: ids::transaction_bytes(view.id),
            state: v1::TransactionState::from(view.state).into(),
            local_database: ids::name_text(view.local.as_ref()),
            begun_unix_ms: view.begun_wall_ms,
            remaining_ms: view.remaining_ms,
            commit_asked: view.commit_asked,
            events: view.events,
            acknowledgements: view.acknowledgements,
            reason: view.reason.map(Into::into),
            decided_unix_ms: view.decided_wall_ms,
            ended_unix_ms: view.ended_wall_ms,
            heuristic: view.heuristic,
            why: view.why,
            attention: view.attention,
            branches: view.branches.into_iter().map(Into::into).collect(),
            notes: view.notes.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Note> for v1::Note {
    fn from(note: Note) -> Self {
        Self { unix_ms: note.wall_ms, text: note.text }
    }
}

impl From<v1::Note> for Note {
    fn from(message: v1::Note) -> Self {
        Self { wall_ms: message.unix_ms, text: message.text }
    }
}

impl TryFrom<v1::Transaction> for TransactionView {
    type Error = Malformed;

    fn try_from(message: v1::Transaction) -> Result<Self, Malformed> {
        Ok(Self {
            id: ids::transaction_id("transaction_id", &message.transaction_id)?,
            state: public_state("state", message.state)?,
            local: ids::name_or_none("local_database", &message.local_database)?,
            begun_wall_ms: message.begun_unix_ms,
            remaining_ms: message.remaining_ms,
            commit_asked: message.commit_asked,
            events: message.events,
            acknowledgements: message.acknowledgements,
            reason: message.reason.map(TryInto::try_into).transpose()?,
            decided_wall_ms: message.decided_unix_ms,
            ended_wall_ms: message.ended_unix_ms,
            heuristic: message.heuristic,
            why: message.why,
            attention: message.attention,
            notes: message.notes.into_iter().map(Into::into).collect(),
            branches: message
                .branches
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<BranchView> for v1::BranchState {
    fn from(view: BranchView) -> Self {
        Self {
            participant: view.participant.as_str().to_owned(),
            kind: v1::ParticipantKind::from(view.kind).into(),
            state_id: view.state_id.map(ids::state_bytes).unwrap_or_default(),
            instance: ids::name_text(view.instance.as_ref()),
            prepare_sent_ms: view.prepare_sent_ms,
            vote: view.vote.map_or(v1::VoteKind::Unspecified, Into::into).into(),
            voted_ms: view.voted_ms,
            decision_sent_ms: view.decision_sent_ms,
            finished_ms: view.finished_ms,
            sends: view.sends,
            trouble: view.trouble,
        }
    }
}

impl TryFrom<v1::BranchState> for BranchView {
    type Error = Malformed;

    fn try_from(message: v1::BranchState) -> Result<Self, Malformed> {
        let state_id = match &message.state_id {
            none if none.is_empty() => None,
            bytes => Some(ids::state_id("state_id", bytes)?),
        };
        Ok(Self {
            participant: ids::name("participant", &message.participant)?,
            kind: ids::participant_kind("kind", message.kind)?,
            state_id,
            instance: ids::name_or_none("instance", &message.instance)?,
            prepare_sent_ms: message.prepare_sent_ms,
            vote: vote_kind("vote", message.vote)?,
            voted_ms: message.voted_ms,
            decision_sent_ms: message.decision_sent_ms,
            finished_ms: message.finished_ms,
            sends: message.sends,
            trouble: message.trouble,
        })
    }
}

impl From<ParticipantView> for v1::Participant {
    fn from(view: ParticipantView) -> Self {
        Self {
            name: view.name.as_str().to_owned(),
            kind: v1::ParticipantKind::from(view.kind).into(),
            instances: view.instances.into_iter().map(Into::into).collect(),
            open_branches: view.open_branches,
        }
    }
}

impl TryFrom<v1::Participant> for ParticipantView {
    type Error = Malformed;

    fn try_from(message: v1::Participant) -> Result<Self, Malformed> {
        Ok(Self {
            name: ids::name("name", &message.name)?,
            kind: ids::participant_kind("kind", message.kind)?,
            instances: message
                .instances
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            open_branches: message.open_branches,
        })
    }
}

impl From<InstanceView> for v1::Instance {
    fn from(view: InstanceView) -> Self {
        Self {
            instance: view.instance.as_str().to_owned(),
            state_id: ids::state_bytes(view.state_id),
            session: view.session.0,
            since_unix_ms: view.since_wall_ms,
        }
    }
}

impl TryFrom<v1::Instance> for InstanceView {
    type Error = Malformed;

    fn try_from(message: v1::Instance) -> Result<Self, Malformed> {
        Ok(Self {
            instance: ids::name("instance", &message.instance)?,
            state_id: ids::state_id("state_id", &message.state_id)?,
            session: SessionId(message.session),
            since_wall_ms: message.since_unix_ms,
        })
    }
}

impl From<TopicView> for v1::Topic {
    fn from(view: TopicView) -> Self {
        Self {
            topic_id: view.topic.0,
            name: view.name.as_str().to_owned(),
            settings: Some(view.settings.into()),
            start: view.start.0,
            end: view.end.0,
            bytes: view.bytes,
            deleting: view.deleting,
            subscriptions: view.subscriptions,
        }
    }
}

impl TryFrom<v1::Topic> for TopicView {
    type Error = Malformed;

    fn try_from(message: v1::Topic) -> Result<Self, Malformed> {
        Ok(Self {
            topic: TopicId(message.topic_id),
            name: ids::name("name", &message.name)?,
            settings: events::topic_settings(message.settings)?,
            start: Offset(message.start),
            end: Offset(message.end),
            bytes: message.bytes,
            deleting: message.deleting,
            subscriptions: message.subscriptions,
        })
    }
}

impl From<SubscriptionView> for v1::Subscription {
    fn from(view: SubscriptionView) -> Self {
        Self {
            subscription_id: view.subscription.0,
            name: view.name.as_str().to_owned(),
            topic: view.topic.as_str().to_owned(),
            settings: Some(view.settings.into()),
            acknowledged_below: view.acknowledged_below.0,
            end: view.end.0,
            leased: view.leased,
            staged: view.staged,
            waiting: view.waiting,
            backlog: view.backlog,
            dead: view.dead,
            gap: view.gap.map(Into::into),
            subscribers: view.subscribers,
            deleting: view.deleting,
            silent: view.silent,
            rejected: view.rejected,
            expired: view.expired,
            lost: view.lost,
            died: view.died,
            standing: view.standing.map_or("", Standing::as_str).to_owned(),
            note: view.note,
        }
    }
}

impl TryFrom<v1::Subscription> for SubscriptionView {
    type Error = Malformed;

    fn try_from(message: v1::Subscription) -> Result<Self, Malformed> {
        Ok(Self {
            subscription: SubscriptionId(message.subscription_id),
            name: ids::name("name", &message.name)?,
            topic: ids::name("topic", &message.topic)?,
            settings: subscriptions::settings(message.settings)?,
            acknowledged_below: Offset(message.acknowledged_below),
            end: Offset(message.end),
            leased: message.leased,
            staged: message.staged,
            waiting: message.waiting,
            backlog: message.backlog,
            dead: message.dead,
            gap: message.gap.map(OffsetRange::from),
            subscribers: message.subscribers,
            silent: message.silent,
            rejected: message.rejected,
            expired: message.expired,
            lost: message.lost,
            died: message.died,
            deleting: message.deleting,
            standing: standing(&message.standing),
            note: message.note,
        })
    }
}

fn standing(text: &str) -> Option<Standing> {
    Standing::ALL.iter().copied().find(|standing| standing.as_str() == text)
}

impl From<DeadLettered> for v1::DeadLetter {
    fn from(letter: DeadLettered) -> Self {
        Self {
            offset: letter.offset.0,
            attempts: letter.attempts,
            reason: letter.reason,
            since_unix_ms: letter.wall_ms,
        }
    }
}
