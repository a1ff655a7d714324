//! Which branch it is, and where its transaction lives.

use handfast_core::ids::TransactionId;
use handfast_database::BranchId;
use tokio::time::Instant;

use crate::client::Handfast;

/// Which branch it is, and where its transaction lives.
#[derive(Clone, Debug)]
pub struct BranchHandle {
    pub(super) handfast: Handfast,
    pub(super) id: TransactionId,
    pub(super) database: String,
    pub(super) branch: BranchId,
    /// None: the transaction is detached.
    pub(super) stream: Option<u64>,
    pub(super) deadline: Instant,
}
