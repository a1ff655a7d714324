//! The task of one subscription: it keeps a stream open, hands on what arrives and sends what is
//! answered, many answers in one message.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use handfast_core::event::DeliveryRef;
use handfast_core::ids::SubscriptionId;
use handfast_core::reason::clipped;
use handfast_core::refusal::Code;
use handfast_wire::raw::to_subscriber::Message as To;
use handfast_wire::v1::from_subscriber::Message as From;
use handfast_wire::{LIST_ITEMS, raw, v1};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::arrived::{Arrived, What};
use super::buffer::Buffer;
use super::question::{Ask, Question, Waiter};
use crate::backoff::Backoff;
use crate::error::{Error, Fault, Refusal};
use crate::link::Connection;

/// Opening a stream may take this long.
const OPENING: Duration = Duration::from_secs(5);
/// What was answered before the subscription was dropped is waited for so long.
const CLOSING: Duration = Duration::from_secs(5);
/// The connection may take so long to take a frame.
const SENDING: Duration = Duration::from_secs(30);
/// The lease of a subscription that does not say how long its leases are.
const LEASE: Duration = Duration::from_secs(30);
/// What waits is looked after at every quarter of a lease, within these bounds.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(60);
/// Most bytes of reasons in one frame.
const FRAME_BYTES: usize = 1 << 20;

/// Who waits for the answer to a message.
enum Unanswered {
    /// To `acknowledge`, which was sent at this time.
    Acknowledged(Instant, Vec<(DeliveryRef, Option<Waiter>)>),
    /// To `extend_lease`.
    Extended(Vec<(DeliveryRef, Option<Waiter>)>),
    /// To `give_back`.
    GivenBack(Vec<(DeliveryRef, Option<Waiter>)>),
    /// To everything else.
    One(Option<Waiter>),
}

impl Unanswered {
    fn fail(self, error: &Error) {
        let fail = |waiter: Option<Waiter>| answer(waiter, Err(error.clone()));
        match self {
            Self::Acknowledged(_, waiters) | Self::Extended(waiters) | Self::GivenBack(waiters) => {
                waiters.into_iter().for_each(|(_, waiter)| fail(waiter));
            }
            Self::One(waiter) => fail(waiter),
        }
    }
}

fn answer(waiter: Option<Waiter>, result: Result<(), Error>) {
    if let Some(waiter) = waiter {
        // Fails when nobody waits.
        drop(waiter.send(result));
    }
}

/// The task.
pub(super) struct Subscriber {
    connection: Arc<Connection>,
    request: v1::SubscribeRequest,
    asks: mpsc::UnboundedReceiver<Ask>,
    buffer: Arc<Buffer>,
    /// Closed when nobody wants the subscription any more.
    wanted: oneshot::Sender<Infallible>,
    /// Whoever opened the subscription, until it is open.
    ready: Option<oneshot::Sender<Result<(), Error>>>,
    /// The number of the stream that is open, or was last.
    stream: u64,
    subscription: SubscriptionId,
    next_request: u64,
    unanswered: HashMap<u64, Unanswered>,
    lease: Duration,
    /// What has arrived in one frame.
    fresh: Vec<Arrived>,
    /// While this request is not answered, whatever arrives may be long over.
    fence: Option<u64>,
    late: Vec<DeliveryRef>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.buffer.close();
    }
}

/// A stream on which the server delivers.
struct Open {
    frames: mpsc::Sender<v1::FromSubscriberFrame>,
    messages: Streaming<raw::ToSubscriberFrame>,
    /// What came with the first answer.
    early: Vec<raw::ToSubscriber>,
}

impl Subscriber {
    pub(super) fn new(
        connection: Arc<Connection>,
        request: v1::SubscribeRequest,
        asks: mpsc::UnboundedReceiver<Ask>,
        buffer: Arc<Buffer>,
        wanted: oneshot::Sender<Infallible>,
        ready: oneshot::Sender<Result<(), Error>>,
    ) -> Self {
        Self {
            connection,
            request,
            asks,
            buffer,
            wanted,
            ready: Some(ready),
            stream: 0,
            subscription: SubscriptionId(0),
            next_request: 1,
            unanswered: HashMap::new(),
            lease: LEASE,
            fresh: Vec::new(),
            fence: None,
            late: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut down_since = Instant::now();
        loop {
            let error = match self.open_unless_dropped().await {
                None => return,
                Some(Ok(open)) => {
                    if let Some(ready) = self.ready.take() {
                        // Only the first stream creates: one that was deleted since stays so.
                        self.request.create = None;
                        drop(ready.send(Ok(())));
                    }
                    backoff.reset();
                    let ended = self.drive(open).await;
                    down_since = Instant::now();
                    let Some(error) = ended else { return };
                    let lost = match &error {
                        Error::Refused(refusal) => {
                            Fault::Lost { problem: refusal.to_string() }.into()
                        }
                        Error::Fault(_) => error.clone(),
                    };
                    for (_, unanswered) in self.unanswered.drain() {
                        unanswered.fail(&lost);
                    }
                    error
                }
                Some(Err(error)) => error,
            };
            let pause = backoff.next();
            let too_long = down_since.elapsed() + pause >= self.connection.limit;
            let stays = error.stays();
            if stays || too_long {
                if let Some(ready) = self.ready.take() {
                    drop(ready.send(Err(error)));
                    return;
                }
                self.buffer.fail(error);
                if self.wanted.is_closed() || stays {
                    return;
                }
                down_since = Instant::now();
            }
            if self.pause(pause).await.is_none() {
                return;
            }
        }
    }

    /// Nobody wants the subscription any more.
    async fn dropped(&mut self) {
        match &mut self.ready {
            Some(ready) => ready.closed().await,
            None => self.wanted.closed().await,
        }
    }

    /// Waits; whatever is asked meanwhile is about a stream that has ended.
    async fn pause(&mut self, pause: Duration) -> Option<()> {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = async { match &mut self.ready {
                    Some(ready) => ready.closed().await,
                    None => self.wanted.closed().await,
                } } => return None,
                ask = self.asks.recv() => match ask {
                    Some(ask) => answer(ask.waiter, Err(expired())),
                    None => sleep(pause).await,
                },
            }
        }
        Some(())
    }

    async fn open_unless_dropped(&mut self) -> Option<Result<Open, Error>> {
        self.request.credit = self.buffer.begin();
        (self.fence, self.late) = (None, Vec::new());
        let request = v1::FromSubscriber {
            request: self.next_request,
            message: Some(From::Subscribe(self.request.clone())),
        };
        let connection = Arc::clone(&self.connection);
        let opening = open(connection, request);
        let opened = tokio::select! {
            opened = opening => opened,
            () = self.dropped() => return None,
        };
        self.next_request += 1;
        Some(opened.map(|(subscribed, open)| {
            self.stream += 1;
            self.subscription = SubscriptionId(subscribed.subscription_id);
            let lease_ms = subscribed.settings.and_then(|settings| settings.lease_ms);
            self.lease = lease_ms.map_or(LEASE, Duration::from_millis);
            self.buffer.is_open(self.stream);
            open
        }))
    }

    /// Drives an open stream until it ends; none: the subscription was dropped.
    async fn drive(&mut self, open: Open) -> Option<Error> {
        let Open { frames, mut messages, early } = open;
        self.take(early);
        let period = (self.lease / 4).clamp(SHORTEST, LONGEST);
        let mut tick = pin!(sleep(period));
        loop {
            if self.fence.is_none() && !self.late.is_empty() {
                let late = std::mem::take(&mut self.late);
                self.buffer.given_back(late.len());
                if let Err(error) = self.give_back(&frames, late).await {
                    return Some(error);
                }
            }
            tokio::select! {
                frame = messages.message() => match frame {
                    Ok(Some(frame)) => {
                        // A whole period late: this process stood still, and what comes may be
                        // over. Before anybody can take it.
                        if tick.deadline() + period <= Instant::now()
                            && let Err(error) = self.distrust(&frames).await
                        {
                            return Some(error);
                        }
                        self.take(frame.messages);
                    }
                    Ok(None) => {
                        let problem = "the server ended the stream".to_owned();
                        return Some(Fault::Lost { problem }.into());
                    }
                    Err(status) => {
                        return Some(Error::from_status(&status, &self.connection.url, true));
                    }
                },
                ask = self.asks.recv() => {
                    // Those who are about to ask go into the same frame.
                    yield_now().await;
                    let mut batch: Vec<Ask> = ask.into_iter().collect();
                    while batch.len() < LIST_ITEMS && let Ok(ask) = self.asks.try_recv() {
                        batch.push(ask);
                    }
                    if batch.is_empty() {
                        // Everybody who could ask is gone, and with them the subscription.
                        self.close(frames, messages).await;
                        return None;
                    }
                    if let Err(error) = self.send(&frames, batch).await {
                        return Some(error);
                    }
                }
                () = tick.as_mut() => {
                    if tick.deadline() + period <= Instant::now()
                        && let Err(error) = self.distrust(&frames).await
                    {
                        return Some(error);
                    }
                    tick.as_mut().reset(Instant::now() + period);
                    let excess = self.buffer.excess(self.lease);
                    if !excess.is_empty()
                        && let Err(error) = self.give_back(&frames, excess).await
                    {
                        return Some(error);
                    }
                }
                () = self.wanted.closed() => {
                    self.close(frames, messages).await;
                    return None;
                }
            }
        }
    }

    /// What waits and what is on its way may have gone back by itself: all of it goes back. What comes
    /// after the answer was sent after the server has heard that.
    async fn distrust(
        &mut self,
        frames: &mpsc::Sender<v1::FromSubscriberFrame>,
    ) -> Result<(), Error> {
        if self.fence.is_some() {
            return Ok(());
        }
        self.fence = Some(self.next_request);
        let all = self.buffer.all();
        self.give_back(frames, all).await
    }

    /// Sends what was answered, and waits for the last answers.
    async fn close(
        &mut self,
        frames: mpsc::Sender<v1::FromSubscriberFrame>,
        mut messages: Streaming<raw::ToSubscriberFrame>,
    ) {
        self.asks.close();
        let give_up = Instant::now() + CLOSING;
        let mut last = Vec::new();
        while let Ok(ask) = self.asks.try_recv() {
            last.push(ask);
        }
        if !last.is_empty() && self.send(&frames, last).await.is_err() {
            return;
        }
        // What nobody has begun to work on was no attempt, also if it is the only one.
        let all = self.buffer.all();
        if !all.is_empty() && self.give_back(&frames, all).await.is_err() {
            return;
        }
        while !self.unanswered.is_empty() {
            match timeout_at(give_up, messages.message()).await {
                Ok(Ok(Some(frame))) => self.take(frame.messages),
                _ => return,
            }
        }
    }

    fn take(&mut self, messages: Vec<raw::ToSubscriber>) {
        let at = Instant::now();
        let (stream, subscription) = (self.stream, self.subscription);
        let arrived = |what| Arrived { at, stream, subscription, what };
        let mut renewed = None;
        for raw::ToSubscriber { request, message } in messages {
            match message {
                Some(To::Deliveries(batch)) => {
                    let fresh = batch.deliveries.into_iter().map(What::Delivery).map(arrived);
                    if self.fence.is_some() {
                        self.late.extend(fresh.filter_map(|late| late.delivery()));
                    } else {
                        self.fresh.extend(fresh);
                    }
                }
                Some(To::Gap(gap)) => self.fresh.push(arrived(What::Gap(gap))),
                Some(To::Acknowledged(acknowledged)) => {
                    renewed = renewed.max(self.answer_each(request, acknowledged.refused));
                }
                Some(To::Done(v1::Done {})) => self.answer_one(request, Ok(())),
                Some(To::Refusal(refusal)) => {
                    self.answer_one(request, Err(Refusal::from(refusal).into()));
                }
                // The second is of a newer server: nothing here has asked for it.
                Some(To::Subscribed(_)) | None => {}
            }
        }
        self.buffer.put(&mut self.fresh, renewed);
    }

    /// Says when the answer was sent that the server has taken, if it has one.
    fn answer_each(&mut self, request: u64, refused: Vec<v1::RefusedDelivery>) -> Option<Instant> {
        let (sent, waiters) = match self.unanswered.remove(&request)? {
            Unanswered::Acknowledged(at, waiters) => (Some(at), waiters),
            Unanswered::Extended(waiters) => (None, waiters),
            Unanswered::GivenBack(waiters) => {
                self.buffer.were_over(refused.len());
                if self.fence == Some(request) {
                    self.fence = None;
                }
                (None, waiters)
            }
            Unanswered::One(waiter) => {
                answer(waiter, Err(another_kind()));
                return None;
            }
        };
        let sent = sent.filter(|_| refused.len() < waiters.len());
        let mut refused: HashMap<DeliveryRef, v1::Refusal> = refused
            .into_iter()
            .filter_map(|one| Some((one.delivery?.into(), one.refusal?)))
            .collect();
        for (delivery, waiter) in waiters {
            let result = match refused.remove(&delivery) {
                Some(refusal) => Err(Refusal::from(refusal).into()),
                None => Ok(()),
            };
            answer(waiter, result);
        }
        sent
    }

    fn answer_one(&mut self, request: u64, result: Result<(), Error>) {
        match (self.unanswered.remove(&request), result) {
            (Some(Unanswered::One(waiter)), result) => answer(waiter, result),
            (Some(each), Err(error)) => each.fail(&error),
            (Some(each), Ok(())) => each.fail(&another_kind()),
            (None, _) => {}
        }
    }

    /// Sends questions: what can go into one message does.
    async fn send(
        &mut self,
        frames: &mpsc::Sender<v1::FromSubscriberFrame>,
        batch: Vec<Ask>,
    ) -> Result<(), Error> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut acknowledged = Vec::new();
        let mut extended = Vec::new();
        let mut returned = Vec::new();
        for Ask { stream, question, waiter } in batch {
            if stream != self.stream {
                answer(waiter, Err(expired()));
                continue;
            }
            match question {
                Question::Acknowledge(delivery) => acknowledged.push((delivery, waiter)),
                Question::Extend(delivery) => extended.push((delivery, waiter)),
                Question::GiveBack(delivery) => returned.push((delivery, waiter)),
                Question::Reject { delivery, reason, dead } => {
                    let mut reason = reason;
                    reason = clipped(reason);
                    bytes += reason.len();
                    let delivery = Some(delivery.into());
                    let reject = From::Reject(v1::Reject { delivery, reason, dead });
                    messages.push(self.ask(reject, Unanswered::One(waiter)));
                }
                Question::Credit { more } => {
                    let credit = From::Credit(v1::Credit { more });
                    messages.push(self.ask(credit, Unanswered::One(waiter)));
                }
                Question::Gap { to } => {
                    let gap = From::AcknowledgeGap(v1::AcknowledgeGap { to });
                    messages.push(self.ask(gap, Unanswered::One(waiter)));
                }
            }
            if bytes > FRAME_BYTES {
                bytes = 0;
                forward(frames, std::mem::take(&mut messages)).await?;
            }
        }
        // Leases first: an event whose lease was renewed and that was then acknowledged is done.
        if !extended.is_empty() {
            let deliveries = extended.iter().map(|(delivery, _)| (*delivery).into()).collect();
            let extend = From::ExtendLease(v1::ExtendLease { deliveries });
            messages.push(self.ask(extend, Unanswered::Extended(extended)));
        }
        if !acknowledged.is_empty() {
            let deliveries = acknowledged.iter().map(|(delivery, _)| (*delivery).into()).collect();
            let acknowledge = From::Acknowledge(v1::Acknowledge { deliveries });
            let waiting = Unanswered::Acknowledged(Instant::now(), acknowledged);
            messages.push(self.ask(acknowledge, waiting));
        }
        if !returned.is_empty() {
            self.buffer.given_back(returned.len());
            let deliveries = returned.iter().map(|(delivery, _)| (*delivery).into()).collect();
            let give_back = From::GiveBack(v1::GiveBack { deliveries });
            messages.push(self.ask(give_back, Unanswered::GivenBack(returned)));
        }
        forward(frames, messages).await
    }

    /// Deliveries go back that nobody has begun to work on.
    async fn give_back(
        &mut self,
        frames: &mpsc::Sender<v1::FromSubscriberFrame>,
        deliveries: Vec<DeliveryRef>,
    ) -> Result<(), Error> {
        let waiters = deliveries.iter().map(|delivery| (*delivery, None)).collect();
        let deliveries = deliveries.into_iter().map(Into::into).collect();
        let give_back = From::GiveBack(v1::GiveBack { deliveries });
        let message = self.ask(give_back, Unanswered::GivenBack(waiters));
        forward(frames, vec![message]).await
    }

    fn ask(&mut self, message: From, unanswered: Unanswered) -> v1::FromSubscriber {
        let request = self.next_request;
        self.next_request += 1;
        self.unanswered.insert(request, unanswered);
        v1::FromSubscriber { request, message: Some(message) }
    }
}

fn another_kind() -> Error {
    Fault::Failed("the answer is of another kind".to_owned()).into()
}

async fn forward(
    frames: &mpsc::Sender<v1::FromSubscriberFrame>,
    messages: Vec<v1::FromSubscriber>,
) -> Result<(), Error> {
    if messages.is_empty() {
        return Ok(());
    }
    match timeout(SENDING, frames.send(v1::FromSubscriberFrame { messages })).await {
        Ok(Ok(())) => Ok(()),
        _ => {
            let problem = "the connection takes nothing any more".to_owned();
            Err(Fault::Lost { problem }.into())
        }
    }
}

/// Opens a stream and waits until the server delivers on it.
async fn open(
    connection: Arc<Connection>,
    request: v1::FromSubscriber,
) -> Result<(v1::SubscriptionReply, Open), Error> {
    connection.handshake().await?;
    let unreachable = |problem: &str| -> Error {
        Fault::Unreachable { url: connection.url.clone(), problem: problem.to_owned() }.into()
    };
    let broken = |status| Error::from_status(&status, &connection.url, false);
    let opening = async {
        let (frames, outgoing) = mpsc::channel(4);
        forward(&frames, vec![request]).await?;
        let stream = connection.events().subscribe(ReceiverStream::new(outgoing)).await;
        let mut messages = stream.map_err(broken)?.into_inner();
        loop {
            let Some(frame) = messages.message().await.map_err(broken)? else {
                return Err(unreachable("the server ended the stream"));
            };
            let mut early = frame.messages.into_iter();
            while let Some(raw::ToSubscriber { message, .. }) = early.next() {
                match message {
                    Some(To::Subscribed(subscribed)) => {
                        let early = early.collect();
                        return Ok((subscribed, Open { frames, messages, early }));
                    }
                    Some(To::Refusal(refusal)) => return Err(Refusal::from(refusal).into()),
                    _ => {}
                }
            }
        }
    };
    timeout(OPENING, opening)
        .await
        .unwrap_or_else(|_| Err(unreachable("the server does not answer `subscribe`")))
}

/// What becomes of an answer to a delivery of a stream that has ended: the delivery returned with
/// the stream.
fn expired() -> Error {
    let detail = "the delivery returned when the connection that it came on was lost";
    Refusal::local(Code::DeliveryExpired, detail).into()
}
