//! Dead letters of subscriptions.

use std::time::SystemTime;

use handfast_wire::v1;

use super::{Stub, repeat};
use crate::client::Handfast;
use crate::error::{Error, Fault};
use crate::subscribe::StoredEvent;

/// An event that failed too often, or was rejected for good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its place in its topic.
    pub offset: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last subscriber said; empty: nothing.
    pub reason: String,
    /// When it became a dead letter.
    pub since: SystemTime,
}

impl From<v1::DeadLetter> for DeadLetter {
    fn from(message: v1::DeadLetter) -> Self {
        Self {
            offset: message.offset,
            attempts: message.attempts,
            reason: message.reason,
            since: crate::time::from_unix_ms(message.since_unix_ms),
        }
    }
}

/// Which dead letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetters {
    /// All of the subscription.
    All,
    /// Those at these offsets, at most 10,000.
    At(Vec<u64>),
}

impl Handfast {
    /// Dead letters of a subscription from an offset on, ascending, at most `limit` and at most
    /// 1,000. Fewer: these were the last.
    ///
    /// # Errors
    /// `unknown_subscription`.
    pub async fn dead_letters(
        &self,
        subscription: impl Into<String>,
        from: u64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        let subscription = subscription.into();
        let request = v1::ListDeadLettersRequest { subscription, from_offset: from, limit };
        let call = |mut stub: Stub, r| async move { stub.list_dead_letters(r).await };
        let letters = repeat(self, request, call).await?.dead_letters;
        Ok(letters.into_iter().map(Into::into).collect())
    }

    /// One dead letter with its event.
    ///
    /// # Errors
    /// `unknown_subscription`, `unknown_dead_letter`.
    pub async fn dead_letter(
        &self,
        subscription: impl Into<String>,
        offset: u64,
    ) -> Result<(DeadLetter, StoredEvent), Error> {
        let subscription = subscription.into();
        let request = v1::GetDeadLetterRequest { subscription, offset };
        let call = |mut stub: Stub, r| async move { stub.get_dead_letter(r).await };
        let reply = repeat(self, request, call).await?;
        match (reply.dead_letter, reply.event) {
            (Some(letter), Some(event)) => Ok((letter.into(), event.try_into()?)),
            _ => Err(Fault::Failed("the answer has no dead letter or no event".to_owned()).into()),
        }
    }

    /// Delivers dead letters again. Says how many.
    ///
    /// # Errors
    /// `unknown_subscription`, `unknown_dead_letter`.
    pub async fn retry_dead_letters(
        &self,
        subscription: impl Into<String>,
        which: DeadLetters,
    ) -> Result<u32, Error> {
        let mut stub = self.connection().events();
        let request = take(subscription.into(), which);
        Ok(self.connection().once(stub.retry_dead_letters(request)).await?.taken)
    }

    /// Drops dead letters for good. Says how many.
    ///
    /// # Errors
    /// `unknown_subscription`, `unknown_dead_letter`.
    pub async fn drop_dead_letters(
        &self,
        subscription: impl Into<String>,
        which: DeadLetters,
    ) -> Result<u32, Error> {
        let mut stub = self.connection().events();
        let request = take(subscription.into(), which);
        Ok(self.connection().once(stub.drop_dead_letters(request)).await?.taken)
    }
}

fn take(subscription: String, which: DeadLetters) -> v1::TakeDeadLettersRequest {
    match which {
        DeadLetters::All => {
            v1::TakeDeadLettersRequest { subscription, offsets: Vec::new(), all: true }
        }
        DeadLetters::At(offsets) => {
            v1::TakeDeadLettersRequest { subscription, offsets, all: false }
        }
    }
}
