//! What has to hold in every state of the tiny world: I1, I2, I4, I6, I9 and I12.

use handfast_core::output::{PublicState, ToService};
use handfast_core::participant::BranchState;
use handfast_core::record::Record;

use super::{Tiny, X, name};

impl Tiny {
    pub(super) fn decision(&self) -> Option<(usize, bool)> {
        self.log.iter().enumerate().find_map(|(at, record)| match **record {
            Record::Commit(_) => Some((at, true)),
            Record::Abort(_) => Some((at, false)),
            _ => None,
        })
    }

    fn durable_decision(&self) -> Option<bool> {
        self.decision().filter(|(at, _)| *at < self.durable).map(|(_, commit)| commit)
    }

    pub(super) fn wrong(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn check_append(&mut self, record: &Record) {
        let decided = self.decision();
        let ended = self.log.iter().any(|r| matches!(**r, Record::End(_)));
        match record {
            Record::Commit(commit) => {
                for updater in &commit.updaters {
                    let at = usize::from(updater.participant.name.as_str() == "s1");
                    if self.services[at].state != BranchState::Prepared {
                        self.wrong(format!("I2: COMMIT, but s{at} has not prepared"));
                    }
                }
                if decided.is_some() {
                    self.wrong("I12: COMMIT after a decision".into());
                }
            }
            Record::Abort(_) if decided.is_some() => {
                self.wrong("I12: ABORT after a decision".into());
            }
            Record::End(end) if ended || decided.is_none_or(|(_, c)| c != end.committed) => {
                self.wrong("I12: END twice, or without its decision".into());
            }
            _ => {}
        }
    }

    pub(super) fn check_message(&mut self, message: &ToService) {
        let commit = matches!(message, ToService::Commit { .. });
        if commit && self.durable_decision() != Some(true) {
            self.wrong("I6: a commit is sent before COMMIT is durable".into());
        }
    }

    pub(super) fn tell(&mut self, state: PublicState) {
        let before = self.told.unwrap_or(PublicState::Preparing);
        let forward = match before {
            PublicState::Preparing => true,
            PublicState::Committing => {
                matches!(state, PublicState::Committing | PublicState::Committed)
            }
            PublicState::Committed | PublicState::Failed => before == state,
        };
        if !forward {
            self.wrong(format!("I4: {before:?}, then {state:?}"));
        }
        self.told = Some(state);
    }

    pub(super) fn check(&mut self) {
        // Somebody looks all the time.
        if let Some(state) = self.core.public_state(X) {
            self.tell(state);
        }
        let decision = self.decision().map(|(_, commit)| commit);
        for at in 0..2 {
            let service = &self.services[at];
            let (state, effects) = (service.state, service.effects);
            if state == BranchState::Committed && self.durable_decision() != Some(true) {
                self.wrong(format!("I1: s{at} has committed without a durable COMMIT"));
            }
            if effects > 1 {
                self.wrong(format!("I9: s{at} has committed {effects} times"));
            }
            let updater = self.log.iter().any(|r| match &**r {
                Record::Commit(c) => c.updaters.iter().any(|u| u.participant.name == name(at)),
                _ => false,
            });
            if state == BranchState::Aborted && updater && decision == Some(true) {
                self.wrong(format!("I1: s{at} has aborted, but COMMIT stands"));
            }
        }
    }
}
