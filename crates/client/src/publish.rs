//! Publishing outside a transaction.

use std::sync::Arc;

use handfast_core::limits::{BATCH_BYTES, BATCH_ITEMS, EVENT_BYTES};
use handfast_core::refusal::Code;
use handfast_wire::{event as wire, ids, raw};

use crate::client::Handfast;
use crate::error::{Error, Refusal};
use crate::event::Event;
use crate::link::{CallOptions, Queued, Unanswered};

/// An event was published, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its place in its topic. None: an earlier attempt of the same call had published it and its
    /// answer was lost; then the place is not known here.
    pub offset: Option<u64>,
}

impl Handfast {
    /// Publishes one event. When this returns, it is durable.
    ///
    /// Calls that run at the same time share frames and the server's sync, so publish many at once
    /// rather than one after the other. The order among calls that run at the same time is that in
    /// which they were first polled. Of those to one topic up to 32 go as one batch, which is
    /// taken or refused as a whole. What can be wrong with one event alone is refused before.
    ///
    /// A call whose answer is lost is repeated under the same number until the time limit, and the
    /// server publishes it once.
    ///
    /// Cancel safety: a call that is dropped may still publish.
    ///
    /// # Errors
    /// Refused (`unknown_topic`, `topic_full`, `too_large`, ...): nothing was published. A fault
    /// that does not say [`Fault::has_no_side_effects`](crate::Fault::has_no_side_effects): it
    /// may have been published, and a new call would be a second event.
    pub async fn publish(
        &self,
        topic: impl Into<String>,
        event: Event,
    ) -> Result<Published, Error> {
        let mut published = self.publish_batch(vec![new_event(topic.into(), event)?]).await?;
        published.pop().ok_or_else(|| no_offset(0))
    }

    /// Publishes 1 to 1,000 events of any topics, at most 8 MiB, all or none. Otherwise as
    /// [`Handfast::publish`].
    ///
    /// # Errors
    /// As [`Handfast::publish`].
    pub async fn publish_all<T: Into<String>>(
        &self,
        events: impl IntoIterator<Item = (T, Event)>,
    ) -> Result<Vec<Published>, Error> {
        let events = events.into_iter().map(|(topic, event)| new_event(topic.into(), event));
        self.publish_batch(events.collect::<Result<_, _>>()?).await
    }

    async fn publish_batch(&self, events: Vec<raw::NewEvent>) -> Result<Vec<Published>, Error> {
        let length = events.len();
        if length == 0 {
            return Err(Refusal::local(Code::InvalidArgument, "`events`: is missing").into());
        }
        let bytes = check_events(&events)?;
        let connection = Arc::clone(self.connection());
        // A number is remembered for a while only: no repeat may come after that.
        let remembered = self.server().map_or(connection.limit, |server| server.dedup / 2);
        let terms = CallOptions::within(connection.limit.min(remembered)).resent();
        let request = raw::PublishRequest {
            producer_id: ids::producer_bytes(self.inner.producer),
            // Its number is that of the call it goes with.
            sequence: 0,
            events,
        };
        let answered = self.inner.publishes.call(Queued::new(request, bytes, terms)).await;
        let published = answered.map_err(Unanswered::into_error)?.answer;
        if published.repeated {
            return Ok(vec![Published { offset: None }; length]);
        }
        if published.offsets.len() != length {
            return Err(no_offset(published.offsets.len()));
        }
        Ok(published.offsets.into_iter().map(|o| Published { offset: Some(o) }).collect())
    }
}

fn no_offset(found: usize) -> Error {
    let problem = format!("a publish was answered with {found} offsets");
    crate::error::Fault::Failed(problem).into()
}

/// An event on its way, encoded and checked by its caller and not by the task that all share: so
/// nobody's bad event is refused with those that go with it.
pub(crate) fn new_event(topic: String, event: Event) -> Result<raw::NewEvent, Refusal> {
    let event = event.encode();
    if event.len() > EVENT_BYTES {
        let detail = format!("an event has at most {EVENT_BYTES} bytes, this has {}", event.len());
        return Err(Refusal::local(Code::TooLarge, detail));
    }
    wire::check(&event).map_err(Refusal::core)?;
    Ok(raw::NewEvent { topic, event })
}

/// What would not fit into a frame is refused here, as the server would: a frame that is too large
/// ends the stream for everybody.
pub(crate) fn check_events(events: &[raw::NewEvent]) -> Result<usize, Refusal> {
    if events.len() > BATCH_ITEMS {
        let detail = format!("`events`: {} are more than {BATCH_ITEMS}", events.len());
        return Err(Refusal::local(Code::TooMany, detail));
    }
    let bytes: usize = events.iter().map(|event| event.topic.len() + event.event.len() + 16).sum();
    if bytes > BATCH_BYTES + 256 * BATCH_ITEMS {
        let detail = format!("`events`: {bytes} bytes are more than {BATCH_BYTES}");
        return Err(Refusal::local(Code::TooLarge, detail));
    }
    Ok(bytes)
}
