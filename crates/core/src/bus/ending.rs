//! How a delivery ends: who ends it, and whether that counts as an attempt.

use alloc::string::String;

use crate::ids::{DeliveryToken, SessionId};

/// Why an attempt counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The subscriber has rejected it on this stream, and says why.
    Rejected(SessionId, String),
    /// Its lease was over.
    LeaseOver,
    /// Its stream ended, and had nothing else.
    StreamEnded,
}

/// Who ends a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// It is answered on a stream, most likely its own, which has been heard ([`Bus::hear`]).
    Stream(SessionId),
    /// Its subscriber answers on another way: in a transaction.
    Transaction,
    /// Nobody has answered.
    Server,
}

/// Attempts that have counted since the server started, and dead letters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Rejections.
    pub(super) rejected: u64,
    /// Leases that were over.
    pub(super) expired: u64,
    /// Streams that ended.
    pub(super) lost: u64,
    /// Events that have become dead letters.
    pub(super) dead: u64,
}

/// A delivery that is not under way any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Whom it had gone to.
    pub(super) session: SessionId,
    /// What named it.
    pub(super) token: DeliveryToken,
    /// Its lease ran.
    pub(super) ran: bool,
    /// Who has ended it.
    pub(super) by: By,
}
