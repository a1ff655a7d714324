//! Administration: topics, subscriptions, dead letters, participants and what the server knows
//! about transactions.
//!
//! Questions are repeated until they are answered or the time limit is over. Changes that mean the
//! same when they are made twice are too; those that do not are made once.

use std::time::{Duration, SystemTime};

use handfast_core::ids::{StoreId, TransactionId};
use handfast_core::record::SubscriptionSettings as CoreSettings;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{Malformed, events, ids, subscriptions, v1};

pub use handfast_core::event::OffsetRange;
pub use handfast_core::record::{
    Note as NoteView, ParticipantKind, Reason as ReasonView, ReasonCode,
    TopicSettings as TopicSettingsView,
};
pub use handfast_core::view::{
    BranchView, InstanceView, ParticipantView, Standing, SubscriptionView, TopicView,
    TransactionView, VoteKind,
};

use crate::connection::Handfast;
use crate::error::{Error, Fault};
use crate::session::{Queued, Terms};
use crate::subscribe::{Start, StoredEvent, SubscriptionSettings};
use crate::transaction::{Outcome, foreign, read_outcome};

/// How long a topic keeps its events; without any limit for ever. Whatever limit is met first ends
/// an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct TopicSettings(v1::TopicSettings);

impl TopicSettings {
    /// Keeps every event.
    pub fn new() -> Self {
        Self::default()
    }

    /// Events older than this may go; at least 1 ms.
    pub fn with_age(mut self, age: Duration) -> Self {
        self.0.retain_ms = Some(crate::millis(age));
        self
    }

    /// The oldest events may go while the topic holds more bytes than this; at least 1.
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.0.retain_bytes = Some(bytes);
        self
    }

    /// Nothing goes before every subscription has acknowledged it; at the limit of bytes,
    /// publishing is refused (`topic_full`) instead.
    pub fn retain_unacknowledged(mut self) -> Self {
        self.0.retain_unacknowledged = true;
        self
    }
}

/// A topic as it stands after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: TopicSettingsView,
    /// It did not exist before.
    pub created: bool,
}

/// A subscription as it stands after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedSubscription {
    /// Its name.
    pub name: String,
    /// The topic it reads.
    pub topic: String,
    /// Its settings.
    pub settings: CoreSettings,
    /// It did not exist before.
    pub created: bool,
}

/// An event that failed too often, or was rejected for good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its place in its topic.
    pub offset: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last subscriber said; empty: nothing.
    pub reason: String,
    /// When it became a dead letter.
    pub since: SystemTime,
}

impl From<v1::DeadLetter> for DeadLetter {
    fn from(message: v1::DeadLetter) -> Self {
        Self {
            offset: message.offset,
            attempts: message.attempts,
            reason: message.reason,
            since: crate::time(message.since_unix_ms),
        }
    }
}

/// Which dead letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetters {
    /// All of the subscription.
    All,
    /// Those at these offsets, at most 10,000.
    At(Vec<u64>),
}

/// Counts for people. What is not known is none, never zero.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it; units stand in the names")]
pub struct ServerStatus {
    pub version: String,
    pub store: StoreId,
    /// Raised by every opening of the store.
    pub epoch: u32,
    pub started: SystemTime,
    pub open_transactions: Option<u64>,
    /// Transactions that a person should look at, open or ended.
    pub attention: Option<u64>,
    pub staged_bytes: Option<u64>,
    pub topics: Option<u64>,
    pub subscriptions: Option<u64>,
    pub dead_letters: Option<u64>,
    /// Services with at least one live instance.
    pub services: Option<u64>,
    pub instances: Option<u64>,
    pub databases: Option<u64>,
    /// Streams of clients that are open.
    pub sessions: Option<u64>,
    /// Last place of the journal that is on stable storage.
    pub durable_lsn: Option<u64>,
    pub journal_bytes: Option<u64>,
    /// The store is so full that new work is refused.
    pub low_space: bool,
    /// Places of the journal that are damaged, in words; at most 100.
    pub damage: Vec<String>,
    /// The server is about to stop and refuses new work.
    pub draining: bool,
}

/// Transactions.
impl Handfast {
    /// Everything that is known about a transaction, branch by branch.
    ///
    /// # Errors
    /// `unknown_transaction` says that nothing is known, not that it failed.
    pub async fn show(&self, id: TransactionId) -> Result<TransactionView, Error> {
        let call = Call::Show(v1::ShowRequest { transaction_id: ids::transaction_bytes(id) });
        match self.ask(call).await? {
            Answer::Transaction(message) => Ok(message.try_into()?),
            _ => Err(foreign()),
        }
    }

    /// Open transactions after `after`, ascending by id, at most `limit` and at most 1,000. Fewer:
    /// these were the last.
    ///
    /// # Errors
    /// A fault.
    pub async fn transactions(
        &self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionView>, Error> {
        self.list_transactions(after, limit, false).await
    }

    /// The same of transactions that a person should look at: open ones, and ones that have ended
    /// otherwise than was decided until somebody takes note. [`Handfast::show`] knows more of these.
    ///
    /// # Errors
    /// A fault.
    pub async fn transactions_in_attention(
        &self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionView>, Error> {
        self.list_transactions(after, limit, true).await
    }

    async fn list_transactions(
        &self,
        after: Option<TransactionId>,
        limit: u32,
        attention: bool,
    ) -> Result<Vec<TransactionView>, Error> {
        let after = ids::transaction_bytes_or_none(after);
        let list = v1::ListTransactionsRequest { after, limit, attention };
        match self.ask(Call::List(list)).await? {
            Answer::Transactions(list) => read_all(list.transactions),
            _ => Err(foreign()),
        }
    }

    /// Aborts a transaction that somebody else began, if it is not decided, and says what stands.
    ///
    /// # Errors
    /// `unknown_transaction`, or a fault.
    pub async fn abort(&self, id: TransactionId, why: impl Into<String>) -> Result<Outcome, Error> {
        let call = Call::Abort(v1::AbortRequest {
            transaction_id: ids::transaction_bytes(id),
            detail: why.into(),
        });
        read_outcome(self.ask(call).await?)
    }

    async fn ask(&self, call: Call) -> Result<Answer, Error> {
        let terms = Terms::within(self.connection().limit).resent();
        let answered = self.inner.transactions.call(Queued::new(call, 1_024, terms)).await;
        Ok(answered.map_err(|unanswered| unanswered.error)?.answer)
    }
}

/// Topics.
impl Handfast {
    /// Creates a topic. Creating it again with the same settings is no error.
    ///
    /// # Errors
    /// `topic_exists` with other settings, `limit_reached`, `deleting`.
    pub async fn create_topic(
        &self,
        name: impl Into<String>,
        settings: TopicSettings,
    ) -> Result<Topic, Error> {
        let request = v1::CreateTopicRequest { name: name.into(), settings: Some(settings.0) };
        topic(repeat(self, request, |mut stub, r| async move { stub.create_topic(r).await }).await?)
    }

    /// Gives a topic other settings: all of them.
    ///
    /// # Errors
    /// `unknown_topic`, `deleting`.
    pub async fn alter_topic(
        &self,
        name: impl Into<String>,
        settings: TopicSettings,
    ) -> Result<Topic, Error> {
        let request = v1::AlterTopicRequest { name: name.into(), settings: Some(settings.0) };
        topic(repeat(self, request, |mut stub, r| async move { stub.alter_topic(r).await }).await?)
    }

    /// Deletes a topic with its subscriptions, at once or when the last transaction that publishes
    /// to it is decided. It takes no more events.
    ///
    /// # Errors
    /// `unknown_topic`; also when the answer to a first attempt was lost.
    pub async fn delete_topic(&self, name: impl Into<String>) -> Result<(), Error> {
        let mut stub = self.connection().events();
        let request = v1::DeleteTopicRequest { name: name.into() };
        self.connection().once(stub.delete_topic(request)).await.map(drop)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// A fault.
    pub async fn topics(&self) -> Result<Vec<TopicView>, Error> {
        let request = v1::ListTopicsRequest {};
        let call = |mut stub: Stub, r| async move { stub.list_topics(r).await };
        read_all(repeat(self, request, call).await?.topics)
    }
}

/// Subscriptions and dead letters.
impl Handfast {
    /// Creates a subscription. Creating it again on the same topic with the same settings is no
    /// error, and does not move it.
    ///
    /// # Errors
    /// `unknown_topic`, `subscription_exists`, `limit_reached`, `offset_out_of_range`.
    pub async fn create_subscription(
        &self,
        name: impl Into<String>,
        topic: impl Into<String>,
        start: Start,
        settings: SubscriptionSettings,
    ) -> Result<CreatedSubscription, Error> {
        let request = v1::CreateSubscriptionRequest {
            name: name.into(),
            topic: topic.into(),
            start: Some(start.into()),
            settings: Some(settings.0),
        };
        let call = |mut stub: Stub, r| async move { stub.create_subscription(r).await };
        let reply = repeat(self, request, call).await?;
        Ok(CreatedSubscription {
            name: reply.name,
            topic: reply.topic,
            settings: subscriptions::settings(reply.settings)?,
            created: reply.created,
        })
    }

    /// All subscriptions, or those of one topic, by name.
    ///
    /// # Errors
    /// A fault.
    pub async fn subscriptions(&self, topic: Option<&str>) -> Result<Vec<SubscriptionView>, Error> {
        let topic = topic.unwrap_or_default().to_owned();
        let request = v1::ListSubscriptionsRequest { topic };
        let call = |mut stub: Stub, r| async move { stub.list_subscriptions(r).await };
        read_all(repeat(self, request, call).await?.subscriptions)
    }

    /// One subscription.
    ///
    /// # Errors
    /// `unknown_subscription`.
    pub async fn subscription(&self, name: impl Into<String>) -> Result<SubscriptionView, Error> {
        let request = v1::GetSubscriptionRequest { name: name.into() };
        let call = |mut stub: Stub, r| async move { stub.get_subscription(r).await };
        Ok(repeat(self, request, call).await?.try_into()?)
    }

    /// The subscription goes on at another place; deliveries under way become void. Says the next
    /// offset to deliver.
    ///
    /// # Errors
    /// `unknown_subscription`, `offset_out_of_range`. After a fault that is not without side
    /// effects it may have been moved.
    pub async fn seek(&self, subscription: impl Into<String>, to: Start) -> Result<u64, Error> {
        let mut stub = self.connection().events();
        let name = subscription.into();
        let request = v1::SeekSubscriptionRequest { name, to: Some(to.into()) };
        Ok(self.connection().once(stub.seek_subscription(request)).await?.offset)
    }

    /// Deletes a subscription, at once or when the last transaction that acknowledges for it is
    /// decided.
    ///
    /// # Errors
    /// `unknown_subscription`; also when the answer to a first attempt was lost.
    pub async fn delete_subscription(&self, name: impl Into<String>) -> Result<(), Error> {
        let mut stub = self.connection().events();
        let request = v1::DeleteSubscriptionRequest { name: name.into() };
        self.connection().once(stub.delete_subscription(request)).await.map(drop)
    }

    /// Dead letters of a subscription from an offset on, ascending, at most `limit` and at most
    /// 1,000. Fewer: these were the last.
    ///
    /// # Errors
    /// `unknown_subscription`.
    pub async fn dead_letters(
        &self,
        subscription: impl Into<String>,
        from: u64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        let subscription = subscription.into();
        let request = v1::ListDeadLettersRequest { subscription, from_offset: from, limit };
        let call = |mut stub: Stub, r| async move { stub.list_dead_letters(r).await };
        let letters = repeat(self, request, call).await?.dead_letters;
        Ok(letters.into_iter().map(Into::into).collect())
    }

    /// One dead letter with its event.
    ///
    /// # Errors
    /// `unknown_subscription`, `unknown_dead_letter`.
    pub async fn dead_letter(
        &self,
        subscription: impl Into<String>,
        offset: u64,
    ) -> Result<(DeadLetter, StoredEvent), Error> {
        let subscription = subscription.into();
        let request = v1::GetDeadLetterRequest { subscription, offset };
        let call = |mut stub: Stub, r| async move { stub.get_dead_letter(r).await };
        let reply = repeat(self, request, call).await?;
        match (reply.dead_letter, reply.event) {
            (Some(letter), Some(event)) => Ok((letter.into(), event.try_into()?)),
            _ => Err(Fault::Failed("the answer has no dead letter or no event".to_owned()).into()),
        }
    }

    /// Delivers dead letters again. Says how many.
    ///
    /// # Errors
    /// `unknown_subscription`, `unknown_dead_letter`.
    pub async fn retry_dead_letters(
        &self,
        subscription: impl Into<String>,
        which: DeadLetters,
    ) -> Result<u32, Error> {
        let mut stub = self.connection().events();
        let request = take(subscription.into(), which);
        Ok(self.connection().once(stub.retry_dead_letters(request)).await?.taken)
    }

    /// Drops dead letters for good. Says how many.
    ///
    /// # Errors
    /// `unknown_subscription`, `unknown_dead_letter`.
    pub async fn drop_dead_letters(
        &self,
        subscription: impl Into<String>,
        which: DeadLetters,
    ) -> Result<u32, Error> {
        let mut stub = self.connection().events();
        let request = take(subscription.into(), which);
        Ok(self.connection().once(stub.drop_dead_letters(request)).await?.taken)
    }
}

/// The server.
impl Handfast {
    /// Services with their live instances, and databases, by name.
    ///
    /// # Errors
    /// A fault.
    pub async fn participants(&self) -> Result<Vec<ParticipantView>, Error> {
        let connection = self.connection();
        let call = || {
            let mut stub = connection.participants();
            async move { stub.list(v1::ListParticipantsRequest {}).await }
        };
        read_all(connection.repeat(call).await?.participants)
    }

    /// Counts for people.
    ///
    /// # Errors
    /// A fault.
    pub async fn server_status(&self) -> Result<ServerStatus, Error> {
        let connection = self.connection();
        let call = || {
            let mut stub = connection.server();
            async move { stub.status(v1::StatusRequest {}).await }
        };
        let reply = connection.repeat(call).await?;
        Ok(ServerStatus {
            version: reply.server_version,
            store: ids::store_id("store_id", &reply.store_id)?,
            epoch: reply.epoch,
            started: crate::time(reply.started_unix_ms),
            open_transactions: reply.open_transactions,
            attention: reply.attention,
            staged_bytes: reply.staged_bytes,
            topics: reply.topics,
            subscriptions: reply.subscriptions,
            dead_letters: reply.dead_letters,
            services: reply.services,
            instances: reply.instances,
            databases: reply.databases,
            sessions: reply.sessions,
            durable_lsn: reply.durable_lsn,
            journal_bytes: reply.journal_bytes,
            low_space: reply.low_space,
            damage: reply.damage,
            draining: reply.draining,
        })
    }
}

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

fn topic(reply: v1::TopicReply) -> Result<Topic, Error> {
    let settings = events::topic_settings(reply.settings)?;
    Ok(Topic { name: reply.name, settings, created: reply.created })
}

fn take(subscription: String, which: DeadLetters) -> v1::TakeDeadLettersRequest {
    match which {
        DeadLetters::All => {
            v1::TakeDeadLettersRequest { subscription, offsets: Vec::new(), all: true }
        }
        DeadLetters::At(offsets) => {
            v1::TakeDeadLettersRequest { subscription, offsets, all: false }
        }
    }
}

fn read_all<M, V>(messages: Vec<M>) -> Result<Vec<V>, Error>
where
    V: TryFrom<M, Error = Malformed>,
{
    let views: Result<_, Malformed> = messages.into_iter().map(V::try_from).collect();
    Ok(views?)
}
