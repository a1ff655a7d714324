//! Subscriptions.

use handfast_core::record::SubscriptionSettings as CoreSettings;
use handfast_wire::{subscriptions, v1};

use super::{Stub, SubscriptionView, read_all, repeat};
use crate::client::Handfast;
use crate::error::Error;
use crate::subscribe::{Start, SubscriptionSettings};

/// A subscription as it stands after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedSubscription {
    /// Its name.
    pub name: String,
    /// The topic it reads.
    pub topic: String,
    /// Its settings.
    pub settings: CoreSettings,
    /// It did not exist before.
    pub created: bool,
}

impl Handfast {
    /// Creates a subscription. Creating it again on the same topic with the same settings is no
    /// error, and does not move it.
    ///
    /// # Errors
    /// `unknown_topic`, `subscription_exists`, `limit_reached`, `offset_out_of_range`.
    pub async fn create_subscription(
        &self,
        name: impl Into<String>,
        topic: impl Into<String>,
        start: Start,
        settings: SubscriptionSettings,
    ) -> Result<CreatedSubscription, Error> {
        let request = v1::CreateSubscriptionRequest {
            name: name.into(),
            topic: topic.into(),
            start: Some(start.into()),
            settings: Some(settings.0),
        };
        let call = |mut stub: Stub, r| async move { stub.create_subscription(r).await };
        let reply = repeat(self, request, call).await?;
        Ok(CreatedSubscription {
            name: reply.name,
            topic: reply.topic,
            settings: subscriptions::settings(reply.settings)?,
            created: reply.created,
        })
    }

    /// All subscriptions, or those of one topic, by name.
    ///
    /// # Errors
    /// A fault.
    pub async fn subscriptions(&self, topic: Option<&str>) -> Result<Vec<SubscriptionView>, Error> {
        let topic = topic.unwrap_or_default().to_owned();
        let request = v1::ListSubscriptionsRequest { topic };
        let call = |mut stub: Stub, r| async move { stub.list_subscriptions(r).await };
        read_all(repeat(self, request, call).await?.subscriptions)
    }

    /// One subscription.
    ///
    /// # Errors
    /// `unknown_subscription`.
    pub async fn subscription(&self, name: impl Into<String>) -> Result<SubscriptionView, Error> {
        let request = v1::GetSubscriptionRequest { name: name.into() };
        let call = |mut stub: Stub, r| async move { stub.get_subscription(r).await };
        Ok(repeat(self, request, call).await?.try_into()?)
    }

    /// The subscription goes on at another place; deliveries under way become void. Says the next
    /// offset to deliver.
    ///
    /// # Errors
    /// `unknown_subscription`, `offset_out_of_range`. After a fault that is not without side
    /// effects it may have been moved.
    pub async fn seek(&self, subscription: impl Into<String>, to: Start) -> Result<u64, Error> {
        let mut stub = self.connection().events();
        let name = subscription.into();
        let request = v1::SeekSubscriptionRequest { name, to: Some(to.into()) };
        Ok(self.connection().once(stub.seek_subscription(request)).await?.offset)
    }

    /// Deletes a subscription, at once or when the last transaction that acknowledges for it is
    /// decided.
    ///
    /// # Errors
    /// `unknown_subscription`; also when the answer to a first attempt was lost.
    pub async fn delete_subscription(&self, name: impl Into<String>) -> Result<(), Error> {
        let mut stub = self.connection().events();
        let request = v1::DeleteSubscriptionRequest { name: name.into() };
        self.connection().once(stub.delete_subscription(request)).await.map(drop)
    }
}
