//! The participant's stream, both ways, and the list of participants.

use handfast_core::command::{Command, Vote};
use handfast_core::ids::{Began, Lsn, Name, StateId, StoreId, TransactionId};
use handfast_core::output::{Reply, ToService};
use handfast_core::refusal::Refusal;
use tonic::Status;

use crate::v1::from_participant::Message as FromMessage;
use crate::v1::to_participant::Message as To;
use crate::{LIST_ITEMS, Malformed, ids, status, v1};

/// What a message of an instance was about: kept by the session until the core has answered it,
/// so that a refusal can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// It was `attach`.
    Attach,
    /// One transaction.
    Transaction(TransactionId),
    /// Several transactions, or nothing that could be read.
    Other,
}

/// One message of an instance, and what it is about.
///
/// # Errors
/// `invalid_argument` or `too_many`; the sentence names the field.
pub fn command(message: v1::FromParticipant) -> Result<(About, Command), Refusal> {
    ids::request_number(message.request)?;
    let message = message.message.ok_or_else(|| Malformed::missing("message"))?;
    let id = |bytes: &[u8]| ids::transaction_id("transaction_id", bytes);
    Ok(match message {
        FromMessage::Attach(attach) => {
            let command = Command::Attach {
                service: ids::name("service", &attach.service)?,
                instance: ids::name("instance", &attach.instance)?,
                state_id: ids::state_id("state_id", &attach.state_id)?,
            };
            (About::Attach, command)
        }
        FromMessage::Vote(message) => {
            let (id, vote) = message.try_into()?;
            (About::Transaction(id), Command::Vote { id, vote })
        }
        FromMessage::Finished(message) => {
            let id = id(&message.transaction_id)?;
            (About::Transaction(id), Command::Finished { id, committed: message.committed })
        }
        FromMessage::NotKnown(message) => {
            let id = id(&message.transaction_id)?;
            (About::Transaction(id), Command::NotKnown { id })
        }
        FromMessage::NotFinished(message) => {
            let id = id(&message.transaction_id)?;
            (About::Transaction(id), Command::NotFinished { id, reason: message.reason })
        }
        FromMessage::Inquire(message) => {
            let id = id(&message.transaction_id)?;
            (About::Transaction(id), Command::Inquire { id })
        }
        FromMessage::MayForget(message) => {
            ids::at_most("outcomes", message.outcomes.len(), LIST_ITEMS)?;
            let outcomes = message.outcomes.into_iter().map(kept).collect::<Result<_, _>>()?;
            (About::Other, Command::MayForget { outcomes })
        }
    })
}

fn kept(kept: v1::KeptOutcome) -> Result<(TransactionId, Option<Began>), Malformed> {
    let began = |began: v1::Began| -> Result<Began, Malformed> {
        let store = ids::store_id("store_id", &began.store_id)?;
        Ok(Began { store, epoch: began.epoch, lsn: Lsn(began.lsn) })
    };
    let id = ids::transaction_id("transaction_id", &kept.transaction_id)?;
    Ok((id, kept.began.map(began).transpose()?))
}

fn kept_message((id, began): (TransactionId, Option<Began>)) -> v1::KeptOutcome {
    let began = began.map(|began| v1::Began {
        store_id: ids::store_bytes(began.store),
        epoch: began.epoch,
        lsn: began.lsn.0,
    });
    v1::KeptOutcome { transaction_id: ids::transaction_bytes(id), began }
}

/// The first message of an instance, in the client.
#[must_use]
pub fn attach(
    request: u64,
    service: &Name,
    instance: &Name,
    state: StateId,
) -> v1::FromParticipant {
    let message = FromMessage::Attach(v1::AttachRequest {
        service: service.as_str().to_owned(),
        instance: instance.as_str().to_owned(),
        state_id: ids::state_bytes(state),
    });
    v1::FromParticipant { request, message: Some(message) }
}

/// A command of a participant as its message, in the client; none: participants do not send it.
#[must_use]
pub fn message(request: u64, command: Command) -> Option<v1::FromParticipant> {
    let transaction_id = ids::transaction_bytes;
    let message = match command {
        Command::Attach { service, instance, state_id } => {
            return Some(attach(request, &service, &instance, state_id));
        }
        Command::Vote { id, vote } => FromMessage::Vote(vote_message(id, vote)),
        Command::Finished { id, committed } => {
            FromMessage::Finished(v1::Finished { transaction_id: transaction_id(id), committed })
        }
        Command::NotKnown { id } => {
            FromMessage::NotKnown(v1::NotKnown { transaction_id: transaction_id(id) })
        }
        Command::NotFinished { id, reason } => {
            FromMessage::NotFinished(v1::NotFinished { transaction_id: transaction_id(id), reason })
        }
        Command::Inquire { id } => {
            FromMessage::Inquire(v1::Inquire { transaction_id: transaction_id(id) })
        }
        Command::MayForget { outcomes } => FromMessage::MayForget(v1::MayForget {
            outcomes: outcomes.into_iter().map(kept_message).collect(),
        }),
        _ => return None,
    };
    Some(v1::FromParticipant { request, message: Some(message) })
}

/// A vote as it travels.
#[must_use]
pub fn vote_message(id: TransactionId, vote: Vote) -> v1::Vote {
    let (kind, reason, retryable) = match vote {
        Vote::Yes => (v1::VoteKind::Yes, String::new(), false),
        Vote::ReadOnly => (v1::VoteKind::ReadOnly, String::new(), false),
        Vote::No { reason, retryable } => (v1::VoteKind::No, reason, retryable),
    };
    let transaction_id = ids::transaction_bytes(id);
    v1::Vote { transaction_id, vote: kind.into(), reason, retryable }
}

impl TryFrom<v1::Vote> for (TransactionId, Vote) {
    type Error = Malformed;

    fn try_from(message: v1::Vote) -> Result<Self, Malformed> {
        let id = ids::transaction_id("transaction_id", &message.transaction_id)?;
        let vote = match ids::enumeration("vote", message.vote)? {
            v1::VoteKind::Yes => Vote::Yes,
            v1::VoteKind::ReadOnly => Vote::ReadOnly,
            v1::VoteKind::No => Vote::No { reason: message.reason, retryable: message.retryable },
            v1::VoteKind::Unspecified => return Err(Malformed::missing("vote")),
        };
        Ok((id, vote))
    }
}

/// The answer of a store to a message of an instance; none where the contract has no answer, which is the
/// success of everything but `attach` and `may_forget`.
///
/// # Panics
/// When the reply is not one to a command of a participant.
#[must_use]
pub fn reply(
    store: StoreId,
    request: u64,
    about: About,
    reply: Reply,
) -> Option<v1::ToParticipant> {
    let message = match (reply, about) {
        (Reply::Done, About::Attach) => {
            To::Attached(v1::Attached { store_id: ids::store_bytes(store) })
        }
        (Reply::Done, About::Transaction(_) | About::Other) => return None,
        (Reply::Forget(ids), _) => forget(ids),
        (Reply::Refused(refusal), about) => return Some(refused(request, about, refusal)),
        (other, _) => status::foreign(&other),
    };
    Some(v1::ToParticipant { request, message: Some(message) })
}

/// The refusal of a message of an instance.
#[must_use]
pub fn refused(request: u64, about: About, refusal: Refusal) -> v1::ToParticipant {
    let transaction_id = match about {
        About::Transaction(id) => ids::transaction_bytes(id),
        About::Attach | About::Other => bytes::Bytes::new(),
    };
    let message = v1::RefusedMessage { transaction_id, refusal: Some(refusal.into()) };
    v1::ToParticipant { request, message: Some(To::Refused(message)) }
}

/// What the coordinator says to a service.
#[must_use]
pub fn to_participant(message: ToService) -> v1::ToParticipant {
    v1::ToParticipant { request: 0, message: Some(to_service(message)) }
}

fn forget(ids: Vec<TransactionId>) -> To {
    let transaction_ids = ids.into_iter().map(ids::transaction_bytes).collect();
    To::Forget(v1::Forget { transaction_ids })
}

fn to_service(message: ToService) -> To {
    let transaction_id = ids::transaction_bytes;
    match message {
        ToService::Prepare { id, began, work, remaining_ms } => To::Prepare(v1::Prepare {
            transaction_id: transaction_id(id),
            work,
            remaining_ms,
            epoch: began.epoch,
            lsn: began.lsn.0,
        }),
        ToService::Commit { id, began } => To::Commit(v1::CommitBranch {
            transaction_id: transaction_id(id),
            epoch: began.epoch,
            lsn: began.lsn.0,
        }),
        ToService::Abort { id } => {
            To::Abort(v1::AbortBranch { transaction_id: transaction_id(id) })
        }
        ToService::Pending { id, retry_after_ms } => {
            To::Pending(v1::Pending { transaction_id: transaction_id(id), retry_after_ms })
        }
        ToService::Forget { ids } => forget(ids),
    }
}

/// What an instance receives, in the client.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// The stream is attached, to the server of this store.
    Attached(StoreId),
    /// The coordinator says something.
    Said(ToService),
    /// A message was refused.
    Refused {
        /// The number of that message.
        request: u64,
        /// What it was about, if it was one transaction.
        id: Option<TransactionId>,
        /// Why.
        refusal: v1::Refusal,
    },
}

impl Received {
    /// A message on a stream that is attached to this store; before it is, whatever store.
    ///
    /// # Errors
    /// It is malformed, or one that only a newer server has.
    pub fn read(store: StoreId, message: v1::ToParticipant) -> Result<Self, Malformed> {
        let request = message.request;
        let id = |bytes: &[u8]| ids::transaction_id("transaction_id", bytes);
        let said = match message.message.ok_or_else(|| Malformed::missing("message"))? {
            To::Attached(attached) => {
                return Ok(Self::Attached(ids::store_id("store_id", &attached.store_id)?));
            }
            To::Refused(refused) => {
                let id = ids::transaction_id_or_none("transaction_id", &refused.transaction_id)?;
                let refusal = refused.refusal.ok_or_else(|| Malformed::missing("refusal"))?;
                return Ok(Self::Refused { request, id, refusal });
            }
            To::Prepare(prepare) => ToService::Prepare {
                id: id(&prepare.transaction_id)?,
                began: Began { store, epoch: prepare.epoch, lsn: Lsn(prepare.lsn) },
                work: prepare.work,
                remaining_ms: prepare.remaining_ms,
            },
            To::Commit(commit) => ToService::Commit {
                id: id(&commit.transaction_id)?,
                began: Began { store, epoch: commit.epoch, lsn: Lsn(commit.lsn) },
            },
            To::Abort(abort) => ToService::Abort { id: id(&abort.transaction_id)? },
            To::Pending(pending) => ToService::Pending {
                id: id(&pending.transaction_id)?,
                retry_after_ms: pending.retry_after_ms,
            },
            To::Forget(forget) => ToService::Forget {
                ids: ids::transaction_ids("transaction_ids", &forget.transaction_ids)?,
            },
        };
        Ok(Self::Said(said))
    }
}

/// The answer to List.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn participants(reply: Reply) -> Result<v1::ListParticipantsReply, Status> {
    match reply {
        Reply::Participants(views) => Ok(v1::ListParticipantsReply {
            participants: views.into_iter().map(Into::into).collect(),
        }),
        Reply::Refused(refusal) => Err(status::status(refusal)),
        other => status::foreign(&other),
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::refusal::Code;

    use super::*;

    const STORE: StoreId = StoreId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_0001);
    const BEGAN: Began = Began { store: STORE, epoch: 3, lsn: Lsn(1 << 40) };
    const ID: TransactionId = TransactionId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_e5f6);

    #[test]
    fn what_an_instance_says_arrives_as_its_command() {
        let name = |text| Name::new(text).expect("a name");
        let no = Vote::No { reason: "no room".to_owned(), retryable: true };
        let (service, instance) = (name("payments"), name("payments-1"));
        let said = [
            Command::Attach { service, instance, state_id: StateId(9) },
            Command::Vote { id: ID, vote: Vote::Yes },
            Command::Vote { id: ID, vote: Vote::ReadOnly },
            Command::Vote { id: ID, vote: no },
            Command::Finished { id: ID, committed: true },
            Command::Finished { id: ID, committed: false },
            Command::NotKnown { id: ID },
            Command::NotFinished { id: ID, reason: "no room".to_owned() },
            Command::Inquire { id: ID },
            Command::MayForget { outcomes: vec![(ID, Some(BEGAN)), (TransactionId(1), None)] },
        ];
        for said in said {
            let sent = message(7, said.clone()).expect("participants send it");
            assert_eq!(sent.request, 7);
            let (about, heard) = command(sent).expect("it is well-formed");
            assert_eq!(heard, said);
            match said {
                Command::Attach { .. } => assert_eq!(about, About::Attach),
                Command::MayForget { .. } => assert_eq!(about, About::Other),
                _ => assert_eq!(about, About::Transaction(ID)),
            }
        }
        assert_eq!(message(7, Command::ListTopics), None);
    }

    #[test]
    fn what_the_coordinator_says_arrives_as_it_was() {
        let work = Some(bytes::Bytes::from_static(b"charge 5"));
        let said = [
            ToService::Prepare { id: ID, began: BEGAN, work, remaining_ms: 1 },
            ToService::Prepare { id: ID, began: BEGAN, work: None, remaining_ms: 0 },
            ToService::Prepare {
                id: ID,
                began: BEGAN,
                work: Some(bytes::Bytes::new()),
                remaining_ms: 0,
            },
            ToService::Commit { id: ID, began: BEGAN },
            ToService::Abort { id: ID },
            ToService::Pending { id: ID, retry_after_ms: 5_000 },
            ToService::Forget { ids: vec![ID] },
        ];
        for said in said {
            let received = Received::read(STORE, to_participant(said.clone()));
            assert_eq!(received, Ok(Received::Said(said)));
        }
    }

    #[test]
    fn only_attach_and_may_forget_are_answered_when_all_is_well() {
        let other = StoreId(1);
        let attached = reply(STORE, 1, About::Attach, Reply::Done).expect("an answer");
        assert_eq!(Received::read(other, attached), Ok(Received::Attached(STORE)));
        assert_eq!(reply(STORE, 2, About::Transaction(ID), Reply::Done), None);
        let forget = reply(STORE, 3, About::Other, Reply::Forget(vec![ID])).expect("an answer");
        assert_eq!(forget.request, 3);
        let said = Received::Said(ToService::Forget { ids: vec![ID] });
        assert_eq!(Received::read(STORE, forget), Ok(said));
    }

    #[test]
    fn a_refusal_says_what_it_was_about() {
        let refusal = Refusal::new(Code::WrongState, "bound to another state");
        let sent = reply(STORE, 4, About::Transaction(ID), Reply::Refused(refusal.clone()));
        let received = Received::read(STORE, sent.expect("an answer"));
        let refusal = refusal.into();
        assert_eq!(received, Ok(Received::Refused { request: 4, id: Some(ID), refusal }));
    }

    #[test]
    fn messages_that_are_not_well_formed_are_refused() {
        let refused = |message| {
            let sent = v1::FromParticipant { request: 1, message };
            command(sent).expect_err("it is not well-formed")
        };
        assert_eq!(refused(None).code, Code::InvalidArgument);
        let vote = v1::Vote { transaction_id: ids::transaction_bytes(ID), ..v1::Vote::default() };
        assert!(refused(Some(FromMessage::Vote(vote))).detail.contains("`vote`"));
        let inquire = v1::Inquire { transaction_id: bytes::Bytes::from_static(b"short") };
        assert!(refused(Some(FromMessage::Inquire(inquire))).detail.contains("`transaction_id`"));
        let outcomes = vec![kept_message((ID, Some(BEGAN))); LIST_ITEMS + 1];
        let many = FromMessage::MayForget(v1::MayForget { outcomes });
        assert_eq!(refused(Some(many)).code, Code::TooMany);
    }
}
