//! A connection on loan from the application's pool. Only one that is known to be in no
//! transaction goes back: after a failure, a time-out or a dropped future nobody knows what state
//! it is in, so it is closed, which also rolls back.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};

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
