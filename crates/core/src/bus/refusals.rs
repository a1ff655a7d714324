//! Refusals of answers about deliveries.

use alloc::format;

use crate::event::DeliveryRef;
use crate::refusal::{Code, Refusal};

/// The refusal of an attempt that is over.
pub(super) fn expired(delivery: &DeliveryRef) -> Refusal {
    let detail = format!("delivery of offset {} is over", delivery.offset);
    Refusal::new(Code::DeliveryExpired, detail)
}

/// The refusal of a delivery that waits for a decision.
pub(super) fn staged(delivery: &DeliveryRef) -> Refusal {
    let detail = format!("delivery of offset {} is staged in a transaction", delivery.offset);
    Refusal::new(Code::DeliveryStaged, detail)
}
