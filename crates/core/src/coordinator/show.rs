//! Views of transactions and participants for people. Reads only.

use alloc::string::String;
use alloc::vec::Vec;

use crate::command::Caller;
use crate::ids::{Lsn, Now, StateId, TransactionId};
use crate::input::Chain;
use crate::output::{PublicState, Reply};
use crate::record::{End, ParticipantKind, Record, Remark};
use crate::view::{BranchView, ParticipantView, TransactionView, VoteKind};

use super::chain::ChainRecords;
use super::transaction::Transaction;
use super::{Context, Coordinator};

/// Most transactions in one list.
const LIST_LIMIT: u32 = 1_000;

impl Coordinator {
    /// Open transactions, or those that a person should look at, by id.
    pub(super) fn list(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        after: Option<TransactionId>,
        limit: u32,
        attention: bool,
    ) {
        let later = |id: &TransactionId| after.is_none_or(|after| *id > after);
        let wanted = |tx: &Transaction| !attention || tx.needs_attention();
        let open = self.transactions.iter().filter(|(_, tx)| wanted(tx)).map(|(id, _)| *id);
        let mut ids: Vec<TransactionId> = open.filter(later).collect();
        if attention {
            ids.extend(self.unseen.ids().filter(later));
        }
        ids.sort_unstable();
        // One whose END is on its way to the disk is in both.
        ids.dedup();
        ids.truncate(limit.clamp(1, LIST_LIMIT) as usize);
        let views =
            ids.iter().filter_map(|id| self.view(cx, *id).or_else(|| self.unseen.view(*id)));
        let views = views.collect();
        cx.effects.reply(caller, Reply::Transactions(views));
    }

    /// A transaction that is open.
    pub(super) fn view(&self, cx: &Context<'_>, id: TransactionId) -> Option<TransactionView> {
        let tx = self.transactions.get(&id)?;
        Some(open(tx, cx.now, cx.effects.durable(), self.attention_of(tx)))
    }

    /// Services and databases, by name.
    pub(super) fn list_participants(&mut self, cx: &mut Context<'_>, caller: Caller) {
        let mut views: Vec<ParticipantView> = Vec::new();
        for (name, instances) in self.services.iter() {
            views.push(ParticipantView {
                name: name.clone(),
                kind: ParticipantKind::Service,
                instances: instances.to_vec(),
                open_branches: 0,
            });
        }
        for name in self.databases.keys() {
            views.push(ParticipantView {
                name: name.clone(),
                kind: ParticipantKind::Database,
                instances: Vec::new(),
                open_branches: 0,
            });
        }
        views.sort_by(|a, b| a.name.cmp(&b.name));
        let branches = self.transactions.values().flat_map(|tx| &tx.branches);
        for branch in branches.filter(|b| !b.finished) {
            let named = |v: &ParticipantView| v.name.cmp(&branch.participant.name);
            if let Ok(at) = views.binary_search_by(named) {
                views[at].open_branches += 1;
            }
        }
        cx.effects.reply(caller, Reply::Participants(views));
    }
}

fn open(tx: &Transaction, now: Now, durable: Lsn, attention: Option<String>) -> TransactionView {
    let since = |at: Option<u64>| at.map(|at| at.saturating_sub(tx.begun_ms));
    let state = tx.public_state(durable);
    let decided = tx.decision.as_ref().filter(|_| state != PublicState::Preparing);
    let branches = tx.branches.iter().map(|b| BranchView {
        participant: b.participant.name.clone(),
        kind: b.participant.kind,
        state_id: b.state_id,
        instance: b.instance.clone(),
        prepare_sent_ms: since(b.prepare_sent_ms),
        vote: b.vote,
        voted_ms: since(b.voted_ms),
        decision_sent_ms: since(b.decision_sent_ms),
        finished_ms: since(b.finished_ms),
        sends: b.sends,
        trouble: b.trouble.as_deref().filter(|_| !b.finished).map(Into::into),
    });
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    TransactionView {
        id: tx.id(),
        state,
        local: tx.local_database().cloned(),
        begun_wall_ms: tx.begin.wall_ms,
        remaining_ms: tx.is_undecided().then(|| tx.remaining_ms(now)),
        commit_asked: tx.asked.is_some() || tx.was_asked,
        events: count(tx.staged.events.len()),
        acknowledgements: count(tx.staged.acknowledgements.len()),
        reason: decided.and_then(|d| d.abort.clone()),
        decided_wall_ms: decided.map(|d| d.at.wall_ms),
        ended_wall_ms: None,
        heuristic: tx.heuristic,
        why: Some(tx.why.clone()).filter(|why| !why.is_empty()),
        attention,
        notes: tx.notes.clone(),
        branches: branches.collect(),
    }
}

impl TransactionView {
    /// What the log's records of a transaction that has ended say, without the state; none if there
    /// is no END among them. The newest that nobody has taken note of are in attention.
    #[must_use]
    pub fn of_ended(id: TransactionId, chain: &Chain) -> Option<Self> {
        let records = ChainRecords::of(chain);
        let remark = chain.records.iter().rev().find_map(|(_, record)| match record {
            Record::Operated(operated) if operated.follows_end() => Some(operated.remark),
            _ => None,
        });
        let unseen = records.end?.unseen();
        let attention = match remark {
            None => unseen.map(Into::into),
            Some(Remark::Gone) => records.why().map(Into::into),
            Some(Remark::Open | Remark::Seen) => None,
        };
        ended(id, &records, attention)
    }
}

impl End {
    /// Why a person should look at how the transaction ended; none: it ended as decided, or
    /// somebody has seen it before.
    pub(super) fn unseen(&self) -> Option<&str> {
        (self.heuristic && !self.noted && !self.why.is_empty()).then_some(self.why.as_str())
    }
}

/// A transaction that is only in the log.
pub(super) fn ended(
    id: TransactionId,
    records: &ChainRecords<'_>,
    attention: Option<String>,
) -> Option<TransactionView> {
    let state = records.state()?;
    let begun_wall_ms = records.begin.map_or(id.unix_ms(), |b| b.wall_ms);
    let decided_wall_ms = records.commit.map(|c| c.wall_ms).or(records.abort.map(|a| a.wall_ms));
    let mut branches: Vec<BranchView> = Vec::new();
    let mut add = |participant: &crate::record::Participant,
                   state_id: Option<StateId>,
                   vote: Option<VoteKind>| {
        if branches.iter().any(|b| b.participant == participant.name) {
            return;
        }
        let went =
            records.end.and_then(|e| e.finished.iter().find(|f| f.participant == participant.name));
        branches.push(BranchView {
            participant: participant.name.clone(),
            kind: participant.kind,
            state_id,
            instance: None,
            prepare_sent_ms: went.and_then(|f| f.prepare_sent_ms),
            vote,
            voted_ms: went.and_then(|f| f.voted_ms),
            decision_sent_ms: went.and_then(|f| f.decision_sent_ms),
            finished_ms: went.and_then(|f| f.finished_ms),
            sends: went.map_or(0, |f| f.sends),
            trouble: None,
        });
    };
    if let Some(commit) = records.commit {
        for updater in &commit.updaters {
            add(&updater.participant, Some(updater.state_id), Some(VoteKind::Yes));
        }
        for participant in &commit.read_only {
            add(participant, None, Some(VoteKind::ReadOnly));
        }
    }
    for participant in records.begin.map(|b| b.participants.as_slice()).unwrap_or_default() {
        let no = records.abort.is_some_and(|a| {
            a.reason.code == crate::record::ReasonCode::VotedNo
                && a.reason.participant.as_ref() == Some(&participant.name)
        });
        add(participant, None, no.then_some(VoteKind::No));
    }
    let local = records.begin.filter(|b| b.local.is_some()).and_then(|b| b.participants.first());
    let items = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(TransactionView {
        id,
        state,
        local: local.map(|p| p.name.clone()),
        begun_wall_ms,
        remaining_ms: None,
        commit_asked: records.commit.is_some(),
        events: items(records.commit.map_or(0, |c| c.events.len())),
        acknowledgements: items(records.commit.map_or(0, |c| c.acknowledged.len())),
        reason: records.abort.map(|a| a.reason.clone()),
        decided_wall_ms,
        ended_wall_ms: records.end.map(|e| e.wall_ms),
        heuristic: records.is_heuristic(),
        why: records.why().map(Into::into),
        attention,
        notes: records.notes.iter().map(|note| (*note).clone()).collect(),
        branches,
    })
}
