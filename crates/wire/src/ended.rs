//! The list of transactions that have ended: what is asked for, and the answer.

use handfast_core::ids::Lsn;
use handfast_core::record::End;
use handfast_core::refusal::Refusal;
use handfast_core::view::TransactionView;

use crate::transactions::DEFAULT_LIMIT;
use crate::{ids, v1};

/// Most transactions in one answer.
const MOST: u32 = 1_000;

/// Which transactions are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedQuery {
    /// Those that ended at this Unix time in milliseconds or later.
    pub since_ms: u64,
    /// Those that ended so; none: either way.
    pub ending: Option<Ending>,
    /// Where to go on in the log.
    pub from: Option<Lsn>,
    /// At most this many; from 1 to 1,000.
    pub limit: usize,
}

/// How a transaction ended. Each ended in one of these ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Committed, and every participant has.
    Committed,
    /// Failed; or a branch ended otherwise than was decided, or nobody knows how.
    Failed,
}

impl EndedQuery {
    /// Whether a transaction with this END is wanted, however long ago it was.
    #[must_use]
    pub fn wants(&self, end: &End) -> bool {
        let is_committed = end.committed && !end.heuristic;
        match self.ending {
            None => true,
            Some(Ending::Committed) => is_committed,
            Some(Ending::Failed) => !is_committed,
        }
    }
}

/// The transactions that were found, and what the log has beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedPage {
    /// In the order of their ends.
    pub views: Vec<TransactionView>,
    /// Where to go on; none: these were the last.
    pub next: Option<Lsn>,
    /// What ended up to this Unix time in milliseconds may be gone; none: nothing is.
    pub removed_ms: Option<u64>,
}

/// Reads what is asked for.
///
/// # Errors
/// `invalid_argument`; the sentence names the field.
pub fn query(request: &v1::ListEndedRequest) -> Result<EndedQuery, Refusal> {
    let ending = match ids::enumeration("ending", request.ending)? {
        v1::Ending::Unspecified => None,
        v1::Ending::Committed => Some(Ending::Committed),
        v1::Ending::Failed => Some(Ending::Failed),
    };
    let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit.min(MOST) };
    Ok(EndedQuery {
        since_ms: request.since_unix_ms,
        ending,
        from: (request.from != 0).then_some(Lsn(request.from)),
        limit: limit as usize,
    })
}

impl From<EndedPage> for v1::ListEndedReply {
    fn from(page: EndedPage) -> Self {
        Self {
            transactions: page.views.into_iter().map(Into::into).collect(),
            next: page.next.map_or(0, |lsn| lsn.0),
            removed_unix_ms: page.removed_ms.unwrap_or(0),
        }
    }
}

impl From<Ending> for v1::Ending {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Committed => Self::Committed,
            Ending::Failed => Self::Failed,
        }
    }
}
