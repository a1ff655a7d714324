//! Services and their live instances: who can be sent what, and who may speak for a branch. In
//! memory only; never decides.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::ids::{Lsn, Name, SessionId, StateId, TransactionId};
use crate::refusal::{Code, Refusal};
use crate::view::InstanceView;

use super::transaction::Transaction;

/// The services that are, or have been, attached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    services: BTreeMap<Name, Service>,
    sessions: HashMap<SessionId, Name>,
    /// Outcomes that participants need not keep for their transactions any more, in the order of
    /// their ends, each with the place of its BEGIN.
    forgettable: BTreeMap<(Name, StateId), VecDeque<(Lsn, TransactionId)>>,
}

#[derive(Clone, Debug, Default)]
struct Service {
    instances: Vec<InstanceView>,
    /// Whose turn it is.
    turn: usize,
}

/// Whom to send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) session: SessionId,
    pub(crate) state_id: StateId,
    pub(crate) instance: Name,
}

/// Who says something on a stream: an instance of a service, with one durable state of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    pub(super) service: Name,
    pub(super) state_id: StateId,
}

impl Speaker {
    /// The one branch that it may say anything about. A branch that is bound to a durable state is
    /// nobody else's: an instance with another state knows nothing of it, and its word would end a
    /// branch that is alive. A database of the same name is another participant.
    pub(super) fn branch_of(&self, tx: &Transaction) -> Result<usize, Refusal> {
        let Self { service, state_id } = self;
        let Some(at) = tx.branch(service).filter(|at| tx.branches[*at].is_service()) else {
            let detail = format!("{service} takes no part in {}", tx.id());
            return Err(Refusal::new(Code::NotAParticipant, detail));
        };
        if tx.branches[at].state_id.is_some_and(|bound| bound != *state_id) {
            let detail = format!("{service} holds {} in another durable state", tx.id());
            return Err(Refusal::new(Code::WrongState, detail));
        }
        Ok(at)
    }
}

impl Services {
    /// Adds an instance; gives back the stream of an older one of the same name.
    pub(crate) fn attach(&mut self, service: Name, instance: InstanceView) -> Option<SessionId> {
        let instances = &mut self.services.entry(service.clone()).or_default().instances;
        let old = instances.iter().position(|i| i.instance == instance.instance);
        let replaced = old.map(|at| instances.remove(at).session);
        if let Some(session) = replaced {
            self.sessions.remove(&session);
        }
        self.sessions.insert(instance.session, service);
        instances.push(instance);
        replaced
    }

    /// Removes the instance of a stream that ended; says which service lost it.
    pub(crate) fn detach(&mut self, session: SessionId) -> Option<Name> {
        let name = self.sessions.remove(&session)?;
        if let Some(service) = self.services.get_mut(&name) {
            service.instances.retain(|i| i.session != session);
        }
        Some(name)
    }

    /// Who speaks on a stream, if it has attached.
    pub(super) fn speaker(&self, session: SessionId) -> Result<Speaker, Refusal> {
        let found = self.sessions.get(&session).and_then(|name| {
            let instances = &self.services.get(name)?.instances;
            let instance = instances.iter().find(|i| i.session == session)?;
            Some(Speaker { service: name.clone(), state_id: instance.state_id })
        });
        let detail = "the stream has not attached as an instance of a service";
        found.ok_or_else(|| Refusal::new(Code::NotAttached, detail))
    }

    /// The stream has attached.
    pub(super) fn is_attached(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// A live instance: of a certain durable state if one is given, else whoever's turn it is.
    pub(crate) fn choose(&mut self, name: &Name, state: Option<StateId>) -> Option<Recipient> {
        let service = self.services.get_mut(name)?;
        let count = service.instances.len();
        for step in 0..count {
            let at = (service.turn + step) % count;
            let instance = &service.instances[at];
            if state.is_none_or(|s| s == instance.state_id) {
                service.turn = at + 1;
                return Some(Recipient {
                    session: instance.session,
                    state_id: instance.state_id,
                    instance: instance.instance.clone(),
                });
            }
        }
        None
    }

    /// Whether an instance lives, of a certain durable state if one is given.
    pub(crate) fn has(&self, name: &Name, state: Option<StateId>) -> bool {
        let fits = |i: &InstanceView| state.is_none_or(|state| state == i.state_id);
        self.services.get(name).is_some_and(|service| service.instances.iter().any(fits))
    }

    /// Every service with its instances.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Name, &[InstanceView])> {
        self.services.iter().map(|(name, s)| (name, s.instances.as_slice()))
    }

    /// Streams that are attached.
    pub(crate) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Notes that nobody needs an outcome any more. Of more than can be noted participants ask by
    /// themselves.
    pub(crate) fn forget_later(
        &mut self,
        name: &Name,
        state: StateId,
        ended: (Lsn, TransactionId),
    ) {
        let outcomes = self.forgettable.entry((name.clone(), state)).or_default();
        if outcomes.len() < FORGETTABLE {
            outcomes.push_back(ended);
        }
    }

    /// Something waits to be forgotten.
    pub(crate) fn has_forgettable(&self) -> bool {
        !self.forgettable.is_empty()
    }

    /// Takes the outcomes of transactions that began before this place, in batches. Those of
    /// participants that are not live are dropped: they ask by themselves for what they still keep.
    pub(crate) fn take_forgettable(&mut self, before: Lsn) -> Vec<(SessionId, Vec<TransactionId>)> {
        let mut batches = Vec::new();
        for ((name, state), mut ids) in core::mem::take(&mut self.forgettable) {
            let Some(to) = self.choose(&name, Some(state)) else { continue };
            let kept = ids.iter().position(|(begin, _)| *begin >= before);
            let left = ids.split_off(kept.unwrap_or(ids.len()));
            let mut ids = ids.into_iter().map(|(_, id)| id).peekable();
            while ids.peek().is_some() {
                batches.push((to.session, ids.by_ref().take(FORGET_BATCH).collect()));
            }
            if !left.is_empty() {
                self.forgettable.insert((name, state), left);
            }
        }
        batches
    }
}

/// Outcomes noted for one durable state.
const FORGETTABLE: usize = 1 << 18;
/// Outcomes in one `forget`.
const FORGET_BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, session: u64, state: u128) -> InstanceView {
        InstanceView {
            instance: Name::new(name).unwrap(),
            state_id: StateId(state),
            session: SessionId(session),
            since_wall_ms: 0,
        }
    }

    #[test]
    fn instances_take_turns_and_a_branch_stays_with_its_state() {
        let name = Name::new("pay").unwrap();
        let mut services = Services::default();
        assert_eq!(services.attach(name.clone(), instance("a", 1, 7)), None);
        assert_eq!(services.attach(name.clone(), instance("b", 2, 7)), None);
        assert_eq!(services.attach(name.clone(), instance("c", 3, 8)), None);
        let mut turns = || services.choose(&name, None).unwrap().session.0;
        assert_eq!([turns(), turns(), turns(), turns()], [1, 2, 3, 1]);
        assert_eq!(services.choose(&name, Some(StateId(8))).unwrap().session.0, 3);
        assert_eq!(services.choose(&name, Some(StateId(9))), None);
        assert_eq!(services.attach(name.clone(), instance("c", 4, 8)), Some(SessionId(3)));
        assert_eq!(services.detach(SessionId(3)), None);
        assert_eq!(services.detach(SessionId(4)), Some(name.clone()));
        assert_eq!(services.choose(&name, Some(StateId(8))), None);
    }
}
