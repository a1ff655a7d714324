//! The server itself, and who takes part.

use std::time::SystemTime;

use handfast_core::ids::StoreId;
use handfast_wire::{ids, v1};

use super::{ParticipantView, read_all};
use crate::client::Handfast;
use crate::error::Error;

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
            started: crate::time::from_unix_ms(reply.started_unix_ms),
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
