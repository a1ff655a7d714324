//! What the records of one transaction in the log say together.

use alloc::vec::Vec;

use crate::ids::{Lsn, TransactionId};
use crate::input::Chain;
use crate::output::{Outcome, PublicState};
use crate::record::{Abort, Begin, Commit, End, Note, Record, Remark};

/// The records of one chain.
#[derive(Default)]
pub(super) struct ChainRecords<'a> {
    pub(super) begin: Option<&'a Begin>,
    /// The place of BEGIN, or of the first record that is left.
    pub(super) began: Lsn,
    pub(super) commit: Option<&'a Commit>,
    pub(super) abort: Option<&'a Abort>,
    pub(super) end: Option<&'a End>,
    pub(super) notes: Vec<&'a Note>,
    /// What a database has lost of it.
    pub(super) gone: Option<&'a Note>,
}

impl<'a> ChainRecords<'a> {
    pub(super) fn of(chain: &'a Chain) -> Self {
        let began = chain.records.first().map_or(Lsn(0), |(lsn, _)| *lsn);
        let mut records = Self { began, ..Self::default() };
        for (_, record) in &chain.records {
            match record {
                Record::Begin(r) => records.begin = Some(r),
                // The first decision in log order is the decision.
                Record::Commit(r) if records.abort.is_none() => {
                    records.commit.get_or_insert(r);
                }
                Record::Abort(r) if records.commit.is_none() => {
                    records.abort.get_or_insert(r);
                }
                Record::End(r) => records.end = Some(r),
                Record::Operated(r) => {
                    records.notes.push(&r.note);
                    if r.remark == Remark::Gone {
                        records.gone = Some(&r.note);
                    }
                }
                _ => {}
            }
        }
        records
    }

    pub(super) fn is_local(&self) -> bool {
        self.begin.is_some_and(|b| b.local.is_some())
    }

    pub(super) fn state(&self) -> Option<PublicState> {
        match (self.commit, self.abort, self.end) {
            (Some(_), _, Some(_)) => Some(PublicState::Committed),
            (Some(_), _, None) => Some(PublicState::Committing),
            (None, Some(_), _) => Some(PublicState::Failed),
            // BEGIN may have gone with its segment; END alone still tells.
            (None, None, Some(end)) if end.committed => Some(PublicState::Committed),
            (None, None, Some(_)) => Some(PublicState::Failed),
            (None, None, None) => self.begin.map(|_| PublicState::Preparing),
        }
    }

    /// A branch did not end as decided, or did not stay so.
    pub(super) fn is_heuristic(&self) -> bool {
        self.gone.is_some() || self.end.is_some_and(|e| e.heuristic)
    }

    /// Which one, and how.
    pub(super) fn why(&self) -> Option<&'a str> {
        let gone = self.gone.map(|note| note.text.as_str());
        gone.or(self.end.map(|e| e.why.as_str())).filter(|why| !why.is_empty())
    }

    pub(super) fn outcome(&self, id: TransactionId) -> Option<Outcome> {
        let state = self.state()?;
        Some(Outcome {
            id,
            state,
            reason: self.abort.map(|a| a.reason.clone()),
            heuristic: self.is_heuristic(),
            finished: state == PublicState::Committed,
        })
    }
}
