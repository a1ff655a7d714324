//! A connection on loan. Only one that did its whole work goes back: after a failure, a time-out
//! or a cancelled call nobody knows what state it is in, so it is closed.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};

use crate::fault::Fault;

pub(crate) struct Lease<DB: Database> {
    // Some until it is dropped.
    connection: Option<PoolConnection<DB>>,
    sound: bool,
}

impl<DB: Database> Lease<DB> {
    pub(crate) async fn new(pool: &Pool<DB>) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: Some(pool.acquire().await?), sound: false })
    }

    /// Gives the connection back: its last statement was answered, and it is in no transaction.
    pub(crate) fn give_back(mut self) {
        self.sound = true;
    }
}

impl<DB: Database> Deref for Lease<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.connection.as_ref().expect("a lease has its connection until it is dropped")
    }
}

impl<DB: Database> DerefMut for Lease<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.connection.as_mut().expect("a lease has its connection until it is dropped")
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && !self.sound
        {
            // Dropping the bare connection closes its socket; the pool may open another.
            drop(connection.detach());
        }
    }
}

/// The answer to a call, or [`Fault::TimedOut`]. The work is dropped at the bound, and the
/// connection it holds with it.
pub(crate) async fn within<T>(
    bound: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(bound, work).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::TimedOut(bound)),
    }
}
