//! Transactions that have ended, out of the log: found and shown by a reader, without the pump.

use std::sync::Arc;

use handfast_core::input::Chain;
use handfast_core::view::TransactionView;
use handfast_journal::{Error, Reader};
use handfast_wire::ended::{EndedPage, EndedQuery};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::needs::OUTCOME_MS;
use super::readers::{Found, ReadJob};
use super::{Node, NodeStopped, ReadError};

/// Records of so many bytes are shown in one answer, and one transaction more.
const PAGE_BYTES: u64 = 4 << 20;

/// Something to find, and who wants it.
#[derive(Debug)]
pub(super) struct EndedJob {
    query: EndedQuery,
    pub(super) answer: oneshot::Sender<Found<EndedPage>>,
    /// Held until it is done, whether somebody still waits for it or not.
    _turn: OwnedSemaphorePermit,
}

impl EndedJob {
    pub(super) fn find(&self, reader: &Reader) -> Result<EndedPage, Error> {
        find(reader, &self.query)
    }
}

/// One at a time: the other readers are there for those who wait for events.
pub(super) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1))
}

impl Node {
    /// Transactions that have ended, some of them at a time, in the order of their ends. Other such
    /// questions wait until this one is answered.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn ended(&self, query: EndedQuery) -> Result<EndedPage, ReadError> {
        let turn = Arc::clone(&self.0.ended).acquire_owned().await;
        let turn = turn.expect("nobody closes it");
        let (answer, found) = oneshot::channel();
        let job = ReadJob::Ended(EndedJob { query, answer, _turn: turn });
        self.0.readers.send(job).map_err(|_| NodeStopped)?;
        let mut page = found.await.map_err(|_| NodeStopped)?.map_err(ReadError::Refused)?;
        // Whatever else has gone: what ended within this time has not.
        let kept_ms = self.log_time_ms().saturating_sub(OUTCOME_MS);
        page.removed_ms = page.removed_ms.map(|removed_ms| removed_ms.min(kept_ms));
        Ok(page)
    }
}

fn find(reader: &Reader, query: &EndedQuery) -> Result<EndedPage, Error> {
    let wanted = |end: &_| query.wants(end);
    let ended = reader.ended(query.from, query.since_ms, &wanted, query.limit)?;
    let mut page = EndedPage { views: Vec::new(), next: ended.next, removed_ms: ended.removed_ms };
    let mut bytes = 0;
    for (lsn, id) in ended.found {
        if bytes >= PAGE_BYTES {
            page.next = Some(lsn);
            break;
        }
        let chain = reader.chain(id)?;
        bytes += size(&chain);
        // Gone meanwhile: as if it had been asked a moment later.
        page.views.extend(TransactionView::of_ended(id, &chain));
    }
    Ok(page)
}

fn size(chain: &Chain) -> u64 {
    chain.records.iter().map(|(_, record)| record.size_bound()).sum()
}
