//! What an open transaction knows of participants that vote through it: the votes travel in its
//! commit.

use std::sync::{Mutex, MutexGuard, PoisonError};

use handfast_core::ids::TransactionId;
use handfast_wire::v1;

use crate::client::Handfast;
use crate::error::{Reason, TransactionError};

/// The votes of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Votes(Mutex<Cast>);

/// What has been voted so far.
#[derive(Debug, Default)]
pub(crate) struct Cast {
    pub(crate) enlisted: Vec<String>,
    pub(crate) votes: Vec<v1::DatabaseVote>,
    /// Work, or a participant, failed; and whether a retry may help.
    pub(crate) failed: Option<(Reason, bool)>,
    /// Commit or abort was asked: no vote comes in any more.
    pub(crate) closed: bool,
}

impl Votes {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Cast> {
        // Nothing in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The votes, for the commit; or why there can be none.
    pub(crate) fn take(
        &self,
        id: TransactionId,
    ) -> Result<Vec<v1::DatabaseVote>, TransactionError> {
        let mut cast = self.lock();
        cast.closed = true;
        if let Some((reason, retryable)) = cast.failed.clone() {
            return Err(TransactionError::Failed { id, reason, retryable });
        }
        let voted = |name: &&String| cast.votes.iter().any(|vote| vote.database == **name);
        match cast.enlisted.iter().find(|name| !voted(name)) {
            None => Ok(cast.votes.clone()),
            Some(missing) => {
                let reason = Reason {
                    code: "incomplete".to_owned(),
                    participant: missing.clone(),
                    detail: "it was enlisted, and its work was not done".to_owned(),
                };
                Err(TransactionError::Failed { id, reason, retryable: true })
            }
        }
    }

    /// Nobody votes through the transaction.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().enlisted.is_empty()
    }

    /// Abort is asked: no vote comes in any more. Says whether it was asked already, by work that
    /// failed.
    pub(crate) fn abort(&self, handfast: &Handfast, id: TransactionId) -> bool {
        let mut cast = self.lock();
        cast.closed = true;
        if !cast.votes.is_empty() {
            handfast.abort_asked(id);
        }
        cast.failed.is_some()
    }
}
