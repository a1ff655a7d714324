//! What a subscriber asks about something that came on a stream.

use handfast_core::event::DeliveryRef;
use tokio::sync::oneshot;

use crate::error::Error;

/// The question.
#[derive(Debug)]
pub(super) enum Question {
    Acknowledge(DeliveryRef),
    Reject { delivery: DeliveryRef, reason: String, dead: bool },
    Extend(DeliveryRef),
    GiveBack(DeliveryRef),
    Gap { to: u64 },
    Credit { more: u32 },
}

pub(super) type Waiter = oneshot::Sender<Result<(), Error>>;

/// A question on its way.
#[derive(Debug)]
pub(super) struct Ask {
    /// The stream that it is about.
    pub(super) stream: u64,
    pub(super) question: Question,
    pub(super) waiter: Option<Waiter>,
}
