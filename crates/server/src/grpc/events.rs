//! The service Events, call by call. Its streams are in `publish`, `read` and `subscribe`.

use handfast_core::command::Command;
use handfast_core::ids::Offset;
use handfast_core::output::{Fetch, Reply, Wanted};
use handfast_core::refusal::{Code, Refusal};
use handfast_wire::raw::events_server::Events;
use handfast_wire::status::status;
use handfast_wire::subscriptions::NewSubscription;
use handfast_wire::{events as wire, ids, raw, subscriptions, v1};
use tonic::{Request, Response, Status, Streaming};

use super::stream::Frames;
use super::{call, not_read, publish, read, subscribe, topics};
use crate::door::Way;
use crate::node::Node;

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Node);

#[tonic::async_trait]
impl Events for Service {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::TopicReply>, Status> {
        let reply = call(&self.0, wire::create_topic(request.get_ref())).await?;
        wire::topic(reply).map(Response::new)
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::TopicReply>, Status> {
        let reply = call(&self.0, wire::alter_topic(request.get_ref())).await?;
        wire::topic(reply).map(Response::new)
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicReply>, Status> {
        let reply = call(&self.0, wire::delete_topic(request.get_ref())).await?;
        wire::done(reply).map(|()| Response::new(v1::DeleteTopicReply {}))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsReply>, Status> {
        super::list(Way::of(&request), async {
            wire::topics(call(&self.0, Ok(Command::ListTopics)).await?)
        })
        .await
    }

    async fn publish(
        &self,
        request: Request<raw::PublishRequest>,
    ) -> Result<Response<v1::Published>, Status> {
        let reply = call(&self.0, wire::publish(request.into_inner())).await?;
        wire::published(reply).map(Response::new)
    }

    type PublishStreamStream = Frames<v1::PublishReplyFrame>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<raw::PublishFrame>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let way = Way::of(&request);
        Ok(Response::new(publish::open(&self.0, way, request.into_inner())))
    }

    type ReadStream = Frames<raw::ReadFrame>;

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let way = Way::of(&request);
        read::open(&self.0, way, request.into_inner()).await.map(Response::new)
    }

    async fn create_subscription(
        &self,
        request: Request<v1::CreateSubscriptionRequest>,
    ) -> Result<Response<v1::SubscriptionReply>, Status> {
        let new = NewSubscription::try_from(request.into_inner()).map_err(status)?;
        let start = topics::start(&self.0, &new.topic, new.start).await?;
        let reply = call(&self.0, Ok(new.command(start))).await?;
        subscriptions::created(reply).map(Response::new)
    }

    async fn list_subscriptions(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<Response<v1::ListSubscriptionsReply>, Status> {
        let topic = ids::name_or_none("topic", &request.get_ref().topic);
        let topic = topic.map_err(|malformed| status(malformed.into()))?;
        super::list(Way::of(&request), async {
            let reply = call(&self.0, Ok(Command::ListSubscriptions)).await?;
            subscriptions::list(reply, topic.as_ref())
        })
        .await
    }

    async fn get_subscription(
        &self,
        request: Request<v1::GetSubscriptionRequest>,
    ) -> Result<Response<v1::Subscription>, Status> {
        let name = ids::name("name", &request.get_ref().name);
        let name = name.map_err(|malformed| status(malformed.into()))?;
        let reply = call(&self.0, Ok(Command::ListSubscriptions)).await?;
        subscriptions::find(reply, &name).map(Response::new)
    }

    async fn seek_subscription(
        &self,
        request: Request<v1::SeekSubscriptionRequest>,
    ) -> Result<Response<v1::SeekSubscriptionReply>, Status> {
        let (name, at) = subscriptions::seek(request.get_ref()).map_err(status)?;
        let to = match at {
            wire::StartAt::Start(start) => start,
            wire::StartAt::Time(_) => {
                let topic = topics::subscription(&self.0, &name).await?.topic;
                topics::start(&self.0, &topic, at).await?
            }
        };
        let reply = call(&self.0, Ok(Command::Seek { subscription: name, to })).await?;
        subscriptions::sought(reply).map(Response::new)
    }

    async fn delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<Response<v1::DeleteSubscriptionReply>, Status> {
        let reply = call(&self.0, subscriptions::delete(request.get_ref())).await?;
        wire::done(reply).map(|()| Response::new(v1::DeleteSubscriptionReply {}))
    }

    type SubscribeStream = Frames<raw::ToSubscriberFrame>;

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::FromSubscriberFrame>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let way = Way::of(&request);
        Ok(Response::new(subscribe::open(&self.0, way, request.into_inner())))
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersReply>, Status> {
        super::list(Way::of(&request), async {
            let command = subscriptions::list_dead_letters(request.get_ref());
            subscriptions::dead_letters(call(&self.0, command).await?)
        })
        .await
    }

    async fn get_dead_letter(
        &self,
        request: Request<v1::GetDeadLetterRequest>,
    ) -> Result<Response<raw::GetDeadLetterReply>, Status> {
        let way = Way::of(&request);
        let v1::GetDeadLetterRequest { subscription, offset } = request.into_inner();
        let list = v1::ListDeadLettersRequest { subscription, from_offset: offset, limit: 1 };
        let reply = call(&self.0, subscriptions::list_dead_letters(&list)).await?;
        let (topic, letter) = match reply {
            Reply::DeadLetters { topic, letters } => (topic, letters.into_iter().next()),
            Reply::Refused(refusal) => return Err(status(refusal)),
            other => unreachable!("dead letters were asked for, not {other:?}"),
        };
        let Some(letter) = letter.filter(|letter| letter.offset == Offset(offset)) else {
            let detail = format!("{} has no dead letter {offset}", list.subscription);
            return Err(status(Refusal::new(Code::UnknownDeadLetter, detail)));
        };
        let wanted = Wanted::Offsets(vec![letter.offset]);
        let fetch = Fetch { fetch: 0, topic, wanted, max_bytes: u32::MAX };
        super::list(way, async {
            let (events, _) = self.0.fetch(fetch).await.map_err(not_read)?;
            Ok(raw::GetDeadLetterReply {
                dead_letter: Some(letter.into()),
                event: events.into_iter().next().map(Into::into),
            })
        })
        .await
    }

    async fn retry_dead_letters(
        &self,
        request: Request<v1::TakeDeadLettersRequest>,
    ) -> Result<Response<v1::TakeDeadLettersReply>, Status> {
        let command = subscriptions::take_dead_letters(request.into_inner(), true);
        subscriptions::taken(call(&self.0, command).await?).map(Response::new)
    }

    async fn drop_dead_letters(
        &self,
        request: Request<v1::TakeDeadLettersRequest>,
    ) -> Result<Response<v1::TakeDeadLettersReply>, Status> {
        let command = subscriptions::take_dead_letters(request.into_inner(), false);
        subscriptions::taken(call(&self.0, command).await?).map(Response::new)
    }
}
