//! What arrived on a stream, and waits for somebody who takes it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use handfast_core::event::DeliveryRef;
use handfast_core::ids::{DeliveryToken, Offset, SubscriptionId};
use handfast_wire::{ids, raw, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::delivery::{Delivery, Gap, Handle, Item};
use super::question::Ask;
use crate::error::Error;
use crate::event::Event;

/// What arrived, to be decoded by whoever takes it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) at: Instant,
    pub(super) stream: u64,
    pub(super) subscription: SubscriptionId,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Delivery(raw::Delivery),
    Gap(v1::OffsetRange),
}

impl Arrived {
    /// How long it is leased, if it is a delivery.
    pub(super) fn lease(&self) -> Option<Duration> {
        match &self.what {
            What::Delivery(delivery) => Some(Duration::from_millis(delivery.lease_ms)),
            What::Gap(_) => None,
        }
    }

    /// What names it, if it is a delivery.
    pub(super) fn delivery(&self) -> Option<DeliveryRef> {
        match &self.what {
            What::Delivery(delivery) => Some(DeliveryRef {
                subscription: self.subscription,
                offset: Offset(delivery.offset),
                token: DeliveryToken(delivery.token),
            }),
            What::Gap(_) => None,
        }
    }

    /// `expires`: when its lease is over, as far as this side can tell.
    pub(super) fn item(
        self,
        expires: Instant,
        asks: &mpsc::UnboundedSender<Ask>,
    ) -> Result<Item, Error> {
        #[cfg(not(feature = "_databases"))]
        let _ = expires;
        let handle = |offset, token| Handle {
            asks: asks.clone(),
            stream: self.stream,
            reference: DeliveryRef {
                subscription: self.subscription,
                offset: Offset(offset),
                token: DeliveryToken(token),
            },
        };
        Ok(match self.what {
            What::Gap(gap) => {
                Item::Gap(Gap { from: gap.from, to: gap.to, handle: handle(gap.from, 0) })
            }
            What::Delivery(delivery) => Item::Event(Delivery {
                event: Event::decode(delivery.event)?,
                offset: delivery.offset,
                attempt: delivery.attempt,
                lease: Duration::from_millis(delivery.lease_ms),
                transaction: ids::transaction_id_or_none(
                    "transaction_id",
                    &delivery.transaction_id,
                )?,
                published: crate::time::from_unix_ms(delivery.published_unix_ms),
                handle: handle(delivery.offset, delivery.token),
                #[cfg(feature = "_databases")]
                expires,
                answered: AtomicBool::new(false),
                #[cfg(feature = "_databases")]
                returns: false,
            }),
        })
    }
}
