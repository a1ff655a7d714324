//! A connection on loan from the application's pool. Only one that is known to be in no
//! transaction goes back: after a failure, a time-out or a dropped future nobody knows what state
//! it is in, so it is closed, which also rolls back.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use tokio::time::timeout;

use super::engine::Engine;

/// Rolling back may take this long; then the connection is closed.
pub(super) const UNDO: Duration = Duration::from_secs(5);

pub struct Lease<D: Database> {
    // Some until it is given back or dropped.
    connection: Option<PoolConnection<D>>,
}

impl<D: Database> Lease<D> {
    pub(super) async fn new(pool: &Pool<D>) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: Some(pool.acquire().await?) })
    }

    /// Gives the connection back: its last statement was answered, and it is in no transaction.
    pub(super) fn give_back(mut self) {
        drop(self.connection.take());
    }
}

impl<D: Engine> Lease<D> {
    /// Rolls a local transaction back and gives the connection back, or closes it. True if the
    /// database has answered.
    pub(super) async fn undo(mut self) -> bool {
        let has_answered = matches!(timeout(UNDO, D::roll_back(&mut self)).await, Ok(Ok(())));
        if has_answered {
            self.give_back();
        }
        has_answered
    }
}

impl<D: Database> Deref for Lease<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        self.connection.as_ref().expect("a lease has its connection until it is given back")
    }
}

impl<D: Database> DerefMut for Lease<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        self.connection.as_mut().expect("a lease has its connection until it is given back")
    }
}

impl<D: Database> Drop for Lease<D> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Dropping the bare connection closes its socket; the pool may open another.
            drop(connection.detach());
        }
    }
}
