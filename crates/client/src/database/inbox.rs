//! The inbox: which events a database has seen. One row for each, in the transaction that does the
//! event's work; an event that comes again finds it.

use std::time::Duration;

use handfast_core::ids::{StoreId, SubscriptionId};
use sqlx::Pool;

use super::lease::Lease;
use super::{Failure, Participant, Step};

/// Rows that are deleted by one statement, at most.
const PRUNED: u64 = 1_000;
/// Such statements at a time, at most.
const ROUNDS: u32 = 16;

/// Creates the table `handfast_inbox`, which [`Subscription::process`] needs in the application's
/// database, if it is not there. The statement is shipped in `sql/` of this crate, for whoever
/// runs migrations of their own.
///
/// [`Subscription::process`]: crate::Subscription::process
///
/// # Errors
/// The database's; doing it again is harmless.
pub async fn create_inbox<D: Participant>(pool: &Pool<D>) -> Result<(), sqlx::Error> {
    let mut lease = Lease::new(pool).await?;
    D::execute(&mut lease, D::CREATE_INBOX.to_owned()).await?;
    lease.give_back();
    Ok(())
}

/// A subscription's part of the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inbox {
    /// Hexadecimal digits and a number: it can be written into a statement.
    subscription: String,
}

impl Inbox {
    pub(super) fn new(store: StoreId, subscription: SubscriptionId) -> Self {
        Self { subscription: format!("{:032x}.{}", store.0, subscription.0) }
    }

    /// Notes an event in the open transaction. False: it is there already, and the transaction is
    /// of no use any more.
    ///
    /// Waits for whoever is noting the same event at this moment, until that has ended.
    pub(super) async fn note<D: Participant>(
        &self,
        connection: &mut D::Connection,
        database: &str,
        offset: u64,
    ) -> Result<bool, Failure> {
        // A plain INSERT: nothing but this very row may be taken for a duplicate.
        let sql = format!(
            "INSERT INTO {} (subscription, event_offset) VALUES ('{}', {offset})",
            D::INBOX,
            self.subscription
        );
        match D::execute(connection, sql).await {
            Ok(_) => Ok(true),
            Err(error) if D::is_duplicate(&D::words(&error).0) => Ok(false),
            Err(error) => Err(Failure::early::<D>(database, Step::Inbox, &error)),
        }
    }

    /// Deletes what is older than `kept`, of events below `below`. Says how many.
    pub(super) async fn prune<D: Participant>(
        &self,
        pool: &Pool<D>,
        below: u64,
        kept: Duration,
    ) -> Result<u64, sqlx::Error> {
        let mut lease = Lease::new(pool).await?;
        let (table, subscription) = (D::INBOX, &self.subscription);
        let old = D::older_than(kept);
        let mut pruned = 0;
        for _ in 0..ROUNDS {
            // Only as many as one statement deletes are looked at, in the order of the key, or
            // this would read the whole inbox when none of them is old yet.
            let last = D::number(
                &mut lease,
                format!(
                    "SELECT MAX(event_offset) FROM (SELECT event_offset, at FROM {table} \
                     WHERE subscription = '{subscription}' AND event_offset < {below} \
                     ORDER BY event_offset LIMIT {PRUNED}) AS oldest WHERE {old}"
                ),
            );
            let Some(last) = last.await? else { break };
            let delete = format!(
                "DELETE FROM {table} WHERE subscription = '{subscription}' \
                 AND event_offset <= {last} AND {old}"
            );
            pruned += D::execute(&mut lease, delete).await?;
        }
        lease.give_back();
        Ok(pruned)
    }
}
