//! Distributed transactions and durable events across services: the client.
//!
//! ```no_run
//! use handfast::{Event, Handfast};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let hf = Handfast::connect("http://127.0.0.1:7400").await?;
//! hf.create_topic("transfers", handfast::TopicSettings::new()).await?;
//!
//! // A service acts and an event appears, both or neither.
//! let committed = hf
//!     .transaction(|tx| {
//!         tx.call("payments", r#"{"from":7,"to":8,"amount":100}"#);
//!         tx.publish("transfers", Event::new("transfer.made", "/bank").with_key("7"));
//!     })
//!     .await?;
//! println!("{} is done", committed.id);
//! # Ok(())
//! # }
//! ```
//!
//! - [`Handfast`] is the connection; clones of it share everything.
//! - [`Handfast::transaction`], [`Handfast::run`] and [`Handfast::begin`] are transactions: in one
//!   call, or step by step.
//! - [`Handfast::publish`] publishes, [`Handfast::subscribe`] and [`Handfast::read`] receive.
//! - With the features `postgres` and `mariadb` databases take part, over the application's own
//!   pool: `Handfast::local`, `OpenTransaction::join` and `Subscription::process`; see the module
//!   `database`.
//! - [`Handfast::service`] takes part in transactions; [`service`] is what a service implements.
//! - What administrators ask ([`Handfast::topics`], [`Handfast::show`], ...) is there too.
//!
//! # When something fails
//!
//! Every error says whether a retry may help and whether anything may have happened; see
//! [`Error`] and [`TransactionError`]. Calls are repeated on their own only where that cannot take
//! effect twice. An answer that was lost is asked for again, and what cannot be found out is said
//! to be unknown, never guessed. Nothing waits for ever: see
//! [`Builder::with_time_limit`].

mod admin;
mod backoff;
mod client;
#[cfg(feature = "_databases")]
pub mod database;
mod error;
mod event;
mod link;
mod publish;
pub mod service;
mod subscribe;
mod time;
mod transaction;

pub use handfast_core::ids::{Name, StateId, StoreId, TransactionId};
pub use handfast_core::refusal::Code;
pub use {bytes, tonic};

pub use admin::{
    BackedUp, BranchView, CreatedSubscription, DatabaseFinding, DeadLetter, DeadLetters,
    EndedTransactions, Ending, InDoubt, InstanceView, NoteView, OffsetRange, ParticipantKind,
    ParticipantView, PreparedTransaction, ReasonCode, ReasonView, RegisteredDatabase, Resolve,
    ServerStatus, Standing, SubscriptionView, Topic, TopicSettings, TopicSettingsView, TopicView,
    TransactionView, VoteKind,
};
pub use client::{Builder, Handfast};
pub use error::{Blame, Error, Fault, Reason, Refusal, TransactionError};
pub use event::{Attribute, Data, Event};
pub use link::ServerInfo;
pub use publish::Published;
pub use subscribe::{
    Answering, Delivery, Events, Gap, Item, Read, ReadItem, Start, StoredEvent, Subscribe,
    Subscription, SubscriptionSettings,
};
pub use transaction::{
    BeginOptions, Committed, OpenTransaction, Outcome, State, Transaction, Wait,
};
