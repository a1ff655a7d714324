//! Transactions: requests become commands, the core's replies become answers.
//!
//! Ids of new transactions are made by the server and come in as arguments.

use handfast_core::branch::BranchId;
use handfast_core::command::{
    Act, BeginRequest, BranchRequest, Command, CommitRequest, DatabaseVote, Wait,
};
use handfast_core::event::{DeliveryRef, EventRequest};
use handfast_core::ids::{Holder, Name, StoreId, TransactionId};
use handfast_core::limits::{BATCH_ITEMS, BRANCHES, KEY_BYTES};
use handfast_core::output::Reply;
use handfast_core::record::{IdempotencyKey, Participant, ParticipantKind};
use handfast_core::refusal::Refusal;
use tonic::Status;

use crate::raw::transaction_request::Call;
use crate::v1::transaction_reply::Result as Answer;
use crate::{Home, Homes, Malformed, digest, events, ids, raw, status, v1};

/// Entries of a list when the caller names no limit.
pub const DEFAULT_LIMIT: u32 = 100;

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// As a call of its own: what it begins is detached.
    Unary,
    /// On a stream: what it begins fails with the stream, unless the request says otherwise.
    Session,
}

/// Any request about transactions. `id` is the id of a transaction that it may begin.
///
/// # Errors
/// `invalid_argument`, `too_large` or `too_many`; the sentence names the field.
pub fn command(call: Call, id: TransactionId, door: Door) -> Result<Command, Refusal> {
    match call {
        Call::Begin(request) => begin(request, id, door),
        Call::BeginLocal(request) => begin_local(request, id, door),
        Call::Run(request) => run(request, id, door),
        Call::Enlist(request) => Ok(Command::Enlist {
            id: ids::transaction_id("transaction_id", &request.transaction_id)?,
            branches: branches(request.branches)?,
        }),
        Call::Stage(request) => {
            let id = ids::transaction_id("transaction_id", &request.transaction_id)?;
            let (events, acknowledgements) = items(request.events, request.acknowledgements)?;
            Ok(Command::Stage { id, events, acknowledgements })
        }
        Call::Commit(request) => commit(&request, door),
        Call::Vote(request) => Ok(Command::VoteFor {
            id: ids::transaction_id("transaction_id", &request.transaction_id)?,
            votes: votes(&request.votes, door)?,
        }),
        Call::BranchEnded(request) => Ok(Command::BranchEnded {
            id: ids::transaction_id("transaction_id", &request.transaction_id)?,
            database: ids::name("database", &request.database)?,
            done: request.done,
        }),
        Call::Abort(request) => Ok(Command::Abort {
            id: ids::transaction_id("transaction_id", &request.transaction_id)?,
            detail: request.detail,
        }),
        Call::Extend(request) => Ok(Command::Extend {
            id: ids::transaction_id("transaction_id", &request.transaction_id)?,
            deadline_ms: request.deadline_ms,
        }),
        Call::Get(request) => Ok(Command::Status {
            id: ids::transaction_id("transaction_id", &request.transaction_id)?,
            wait: wait("wait", request.wait)?,
        }),
        Call::Show(request) => Ok(Command::Show {
            id: ids::transaction_id("transaction_id", &request.transaction_id)?,
        }),
        Call::List(request) => Ok(Command::ListTransactions {
            attention: request.attention,
            after: ids::transaction_id_or_none("after", &request.after)?,
            limit: if request.limit == 0 { DEFAULT_LIMIT } else { request.limit },
        }),
    }
}

/// One request on a Session; without a call (an unknown one of a newer client) or a number it is
/// refused.
///
/// # Errors
/// As [`command`].
pub fn session_command(
    request: raw::TransactionRequest,
    id: TransactionId,
) -> Result<Command, Refusal> {
    ids::request_number(request.request)?;
    let call = request.call.ok_or_else(|| Malformed::missing("call"))?;
    command(call, id, Door::Session)
}

fn begin(request: raw::BeginRequest, id: TransactionId, door: Door) -> Result<Command, Refusal> {
    let (events, acknowledgements) = items(request.events, request.acknowledgements)?;
    let begin = BeginRequest {
        id,
        local: None,
        deadline_ms: deadline(request.deadline_ms),
        key: None,
        detached: request.detached || door == Door::Unary,
        branches: branches(request.branches)?,
        events,
        acknowledgements,
        commit: None,
    };
    keyed(begin, request.idempotency_key)
}

fn begin_local(
    request: raw::BeginLocalRequest,
    id: TransactionId,
    door: Door,
) -> Result<Command, Refusal> {
    let (events, acknowledgements) = items(request.events, request.acknowledgements)?;
    let begin = BeginRequest {
        id,
        local: Some(ids::name("database", &request.database)?),
        deadline_ms: deadline(request.deadline_ms),
        key: None,
        detached: request.detached || door == Door::Unary,
        branches: Vec::new(),
        events,
        acknowledgements,
        commit: None,
    };
    keyed(begin, request.idempotency_key)
}

fn run(request: raw::RunRequest, id: TransactionId, door: Door) -> Result<Command, Refusal> {
    let (events, acknowledgements) = items(request.events, request.acknowledgements)?;
    let branches = branches(request.branches)?;
    if branches.iter().any(|branch| branch.participant.kind == ParticipantKind::Database) {
        let problem = "a database is prepared by its caller, so it cannot take part in a run";
        return Err(Malformed::new("branches", problem).into());
    }
    let count = |length: usize| u32::try_from(length).expect("lists are bounded by their readers");
    let commit = CommitRequest {
        branches: count(branches.len()),
        items: count(events.len() + acknowledgements.len()),
        votes: Vec::new(),
        vouched: false,
        wait: wait("wait", request.wait)?.unwrap_or_default(),
    };
    let begin = BeginRequest {
        id,
        local: None,
        deadline_ms: deadline(request.deadline_ms),
        key: None,
        detached: request.detached || door == Door::Unary,
        branches,
        events,
        acknowledgements,
        commit: Some(commit),
    };
    keyed(begin, request.idempotency_key)
}

fn commit(request: &v1::CommitRequest, door: Door) -> Result<Command, Refusal> {
    let id = ids::transaction_id("transaction_id", &request.transaction_id)?;
    let request = CommitRequest {
        branches: request.branches,
        items: request.items,
        votes: votes(&request.votes, door)?,
        vouched: request.vouched,
        wait: wait("wait", request.wait)?.unwrap_or_default(),
    };
    Ok(Command::Commit { id, request })
}

fn votes(messages: &[v1::DatabaseVote], door: Door) -> Result<Vec<DatabaseVote>, Refusal> {
    ids::at_most("votes", messages.len(), BRANCHES)?;
    let vote = |message: &v1::DatabaseVote| {
        if message.finishes && door == Door::Unary {
            let problem = "only a session can be told to finish a branch";
            return Err(Malformed::new("votes.finishes", problem).into());
        }
        let (connection, server_start) = (message.connection, message.server_start_unix_s);
        Ok(DatabaseVote {
            database: ids::name("votes.database", &message.database)?,
            holder: (connection != 0).then_some(Holder { connection, server_start }),
            finishes: message.finishes,
            vouched: message.vouched,
        })
    };
    messages.iter().map(vote).collect()
}

/// An operator's step.
///
/// # Errors
/// `invalid_argument`; the sentence names the field.
pub fn operate(request: v1::ResolveRequest) -> Result<Command, Refusal> {
    use v1::resolve_request::Act as Asked;
    let id = ids::transaction_id("transaction_id", &request.transaction_id)?;
    let act = match request.act {
        Some(Asked::Abort(true)) => Act::Abort,
        Some(Asked::Release(name)) => Act::Release(ids::name("release", &name)?),
        Some(Asked::Note(true)) => Act::Note,
        Some(Asked::Abort(false) | Asked::Note(false)) | None => {
            return Err(Malformed::missing("act").into());
        }
    };
    Ok(Command::Operate { id, act, detail: request.detail })
}

fn deadline(ms: u64) -> Option<u64> {
    (ms != 0).then_some(ms)
}

/// Puts the key to a request that is otherwise complete, because its digest is taken of that.
fn keyed(mut request: BeginRequest, key: String) -> Result<Command, Refusal> {
    if key.len() > KEY_BYTES {
        let problem = format!("a key has at most {KEY_BYTES} bytes, this has {}", key.len());
        return Err(Malformed::new("idempotency_key", problem).into());
    }
    if !key.is_empty() {
        request.key = Some(IdempotencyKey { key: key.into(), digest: digest::of_begin(&request) });
    }
    Ok(Command::Begin(Box::new(request)))
}

fn branches(messages: Vec<v1::Branch>) -> Result<Vec<BranchRequest>, Refusal> {
    ids::at_most("branches", messages.len(), BRANCHES)?;
    messages.into_iter().map(|message| Ok(message.try_into()?)).collect()
}

fn items(
    events: Vec<raw::NewEvent>,
    acknowledgements: Vec<v1::DeliveryRef>,
) -> Result<(Vec<EventRequest>, Vec<DeliveryRef>), Refusal> {
    ids::at_most("events", events.len() + acknowledgements.len(), BATCH_ITEMS)?;
    let events = events.into_iter().map(events::new_event).collect::<Result<_, _>>()?;
    Ok((events, acknowledgements.into_iter().map(Into::into).collect()))
}

/// Reads what to wait for; not said: none.
///
/// # Errors
/// When it is none of the values.
pub fn wait(field: &'static str, value: i32) -> Result<Option<Wait>, Malformed> {
    Ok(match ids::enumeration(field, value)? {
        v1::Wait::Unspecified => None,
        v1::Wait::Finished => Some(Wait::Finished),
        v1::Wait::Decided => Some(Wait::Decided),
    })
}

impl From<Wait> for v1::Wait {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Finished => Self::Finished,
            Wait::Decided => Self::Decided,
        }
    }
}

impl TryFrom<v1::Branch> for BranchRequest {
    type Error = Malformed;

    fn try_from(message: v1::Branch) -> Result<Self, Malformed> {
        let name = ids::name("participant", &message.participant)?;
        let kind = ids::participant_kind("kind", message.kind)?;
        if kind == ParticipantKind::Database && message.work.is_some() {
            return Err(Malformed::new("work", "a database gets no work from the server"));
        }
        Ok(Self { participant: Participant { name, kind }, work: message.work })
    }
}

impl From<BranchRequest> for v1::Branch {
    fn from(branch: BranchRequest) -> Self {
        Self {
            participant: branch.participant.name.as_str().to_owned(),
            kind: v1::ParticipantKind::from(branch.participant.kind).into(),
            work: branch.work,
        }
    }
}

/// What answers say about the store besides what was asked.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The store, which is part of the ids of its branches.
    pub store: StoreId,
    /// How far back idempotency keys reach, Unix time in milliseconds.
    pub keys_since_ms: u64,
    /// Where its databases are.
    pub homes: &'a Homes,
}

/// The answer on a Session to the request with this number, which is about this transaction (if
/// the request named one).
///
/// # Panics
/// When the reply is not one to a command about transactions.
#[must_use]
pub fn session_reply(request: u64, reply: Reply, about: About<'_>) -> v1::TransactionReply {
    v1::TransactionReply { request, result: Some(answer(reply, about)) }
}

/// How to finish a branch that the client of a Session holds.
#[must_use]
pub fn finish(id: TransactionId, database: &Name, commit: bool) -> v1::TransactionReply {
    let database = database.as_str().to_owned();
    let transaction_id = ids::transaction_bytes(id);
    let finish = v1::FinishBranch { transaction_id, database, commit };
    v1::TransactionReply { request: 0, result: Some(Answer::Finish(finish)) }
}

/// The refusal of a request on a Session that never became a command.
#[must_use]
pub fn session_refusal(request: u64, refusal: Refusal) -> v1::TransactionReply {
    v1::TransactionReply { request, result: Some(Answer::Refusal(refusal.into())) }
}

fn answer(reply: Reply, about: About<'_>) -> Answer {
    let branch_ids = |id, databases: Vec<Name>| {
        let branch = |database: &Name| {
            let Home { table, identity } = about.homes.of(database);
            v1::BranchId {
                database: database.as_str().to_owned(),
                branch_id: BranchId::new(id, about.store, database).to_string(),
                table,
                identity,
            }
        };
        databases.iter().map(branch).collect()
    };
    match reply {
        Reply::Refused(refusal) => Answer::Refusal(refusal.into()),
        Reply::Begun { id, remaining_ms, repeated, databases } => Answer::Begun(v1::Begun {
            transaction_id: ids::transaction_bytes(id),
            remaining_ms,
            repeated,
            keys_since_unix_ms: about.keys_since_ms,
            branch_ids: branch_ids(id, databases),
        }),
        Reply::Counted { id, databases, branches, items } => {
            let branch_ids = branch_ids(id, databases);
            Answer::Counted(v1::Counted { branches, items, branch_ids })
        }
        Reply::Outcome(outcome) => Answer::Outcome(v1::Outcome {
            keys_since_unix_ms: about.keys_since_ms,
            ..outcome.into()
        }),
        Reply::Remaining { remaining_ms } => Answer::Remaining(v1::Remaining { remaining_ms }),
        Reply::Transaction(view) => Answer::Transaction((*view).into()),
        Reply::Transactions(views) => Answer::Transactions(v1::ListTransactionsReply {
            transactions: views.into_iter().map(Into::into).collect(),
        }),
        Reply::Done => Answer::Voted(v1::Voted {}),
        Reply::Participants(_)
        | Reply::Topics(_)
        | Reply::Topic { .. }
        | Reply::Published { .. }
        | Reply::Subscription { .. }
        | Reply::Subscriptions(_)
        | Reply::Acknowledged { .. }
        | Reply::Sought { .. }
        | Reply::DeadLetters { .. }
        | Reply::Taken(_)
        | Reply::Forget(_)
        | Reply::Branch(_) => status::foreign(&reply),
    }
}

macro_rules! unary {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $message:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// The refusal, as a status.
        ///
        /// # Panics
        /// When the reply is one to another command.
        pub fn $name(reply: Reply, about: About<'_>) -> Result<$message, Status> {
            if let Reply::Refused(refusal) = reply {
                return Err(status::status(refusal));
            }
            match answer(reply, about) {
                Answer::$variant(message) => Ok(message),
                other => panic!("the core answered with another command's reply: {other:?}"),
            }
        }
    };
}

unary!(/** The answer to Begin and BeginLocal. */ begun, Begun, v1::Begun);
unary!(/** The answer to Enlist and Stage. */ counted, Counted, v1::Counted);
unary!(/** The answer to Commit, Abort, Run and Get. */ outcome, Outcome, v1::Outcome);
unary!(/** The answer to Vote. */ voted, Voted, v1::Voted);
unary!(/** The answer to Extend. */ remaining, Remaining, v1::Remaining);
unary!(/** The answer to Show. */ transaction, Transaction, v1::Transaction);
unary!(/** The answer to List. */ transactions, Transactions, v1::ListTransactionsReply);
