//! A participant: a service that has nothing to do, so that what is measured is handfast.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use handfast::service::{Handler, HandlerError, No, Prepared, ServiceStore, SqliteStore};
use handfast::{Handfast, TransactionId};

use super::memory::Memory;
use super::plan::{Done, ParticipantPlan, REFUSE};
use crate::bench::part::Said;
use crate::bench::runtime;
use crate::harness::{PartError, leave_with_stdin};

/// Runs until standard input ends; then says what was done.
pub(super) fn run(plan: ParticipantPlan) -> Result<(), PartError> {
    let leave = leave_with_stdin();
    runtime(plan.threads)?.block_on(async {
        let hf = Handfast::connect(plan.server).await?;
        let counts = Arc::new(Counts::default());
        let handler = Counting(Arc::clone(&counts));
        let service = hf.service(plan.name);
        let leave = async { drop(leave.await) };
        match plan.store {
            Some(file) => {
                serve(service.store(SqliteStore::open(file)?).handler(handler), leave).await
            }
            None => serve(service.store(Memory::new()).handler(handler), leave).await,
        }?;
        Said::say_found(&counts.done())?;
        Ok(())
    })
}

async fn serve<S: ServiceStore + Send + 'static>(
    service: handfast::service::Service<S, Counting>,
    leave: impl Future<Output = ()>,
) -> Result<(), PartError>
where
    Counting: Handler<S::Db>,
{
    Ok(service.run(leave).await?)
}

#[derive(Debug, Default)]
struct Counts {
    prepared: AtomicU64,
    refused: AtomicU64,
    committed: AtomicU64,
    aborted: AtomicU64,
}

impl Counts {
    fn done(&self) -> Done {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Done {
            prepared: read(&self.prepared),
            refused: read(&self.refused),
            committed: read(&self.committed),
            aborted: read(&self.aborted),
        }
    }
}

/// Does as it is told, and counts.
struct Counting(Arc<Counts>);

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl<Db: ?Sized> Handler<Db> for Counting {
    fn prepare(&self, _: &Db, _: TransactionId, work: &[u8]) -> Result<Prepared, No> {
        if work == REFUSE {
            count(&self.0.refused);
            return Err(No::new("it was told to"));
        }
        count(&self.0.prepared);
        Ok(Prepared::Yes)
    }

    fn commit(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        count(&self.0.committed);
        Ok(())
    }

    fn abort(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        count(&self.0.aborted);
        Ok(())
    }
}

/// Has never anything to do.
pub(in crate::bench) struct Idle;

impl Handler<()> for Idle {
    fn prepare(&self, (): &(), _: TransactionId, _: &[u8]) -> Result<Prepared, No> {
        Err(No::new("nobody should ask it"))
    }

    fn commit(&self, (): &(), _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }

    fn abort(&self, (): &(), _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }
}
