//! Administration: topics, subscriptions, dead letters, participants, databases, and what the
//! server knows about transactions.
//!
//! Questions are repeated until they are answered or the time limit is over. Changes that mean the
//! same when they are made twice are too; those that do not are made once.

mod backup;
mod databases;
mod dead_letters;
mod ended;
mod server;
mod subscriptions;
mod topics;
mod transactions;

use handfast_wire::Malformed;

pub use handfast_core::event::OffsetRange;
pub use handfast_core::record::{
    Note as NoteView, ParticipantKind, Reason as ReasonView, ReasonCode,
    TopicSettings as TopicSettingsView,
};
pub use handfast_core::view::{
    BranchView, InstanceView, ParticipantView, Standing, SubscriptionView, TopicView,
    TransactionView, VoteKind,
};

pub use backup::BackedUp;
pub use databases::{DatabaseFinding, InDoubt, PreparedTransaction, RegisteredDatabase};
pub use dead_letters::{DeadLetter, DeadLetters};
pub use ended::{EndedTransactions, Ending};
pub use server::ServerStatus;
pub use subscriptions::CreatedSubscription;
pub use topics::{Topic, TopicSettings};
pub use transactions::Resolve;

use crate::client::Handfast;
use crate::error::Error;

type Stub = handfast_wire::raw::events_client::EventsClient<tonic::transport::Channel>;

/// A call about events that may be repeated.
async fn repeat<Q, R, F>(
    handfast: &Handfast,
    request: Q,
    call: impl Fn(Stub, Q) -> F,
) -> Result<R, Error>
where
    Q: Clone,
    F: Future<Output = Result<tonic::Response<R>, tonic::Status>>,
{
    let connection = handfast.connection();
    connection.repeat(|| call(connection.events(), request.clone())).await
}

fn read_all<M, V>(messages: Vec<M>) -> Result<Vec<V>, Error>
where
    V: TryFrom<M, Error = Malformed>,
{
    let views: Result<_, Malformed> = messages.into_iter().map(V::try_from).collect();
    Ok(views?)
}
