//! Finding topics and subscriptions by their names, and turning a time into an offset: what
//! several calls need before they can ask the core.

use handfast_core::command::{Command, Start};
use handfast_core::ids::Name;
use handfast_core::output::Reply;
use handfast_core::refusal::{Code, Refusal};
use handfast_core::view::{SubscriptionView, TopicView};
use handfast_wire::events::StartAt;
use handfast_wire::status::status;
use tonic::Status;

use super::{not_read, stopped};
use crate::node::Node;

/// The topic of this name, as it stands.
pub(super) async fn topic(node: &Node, name: &Name) -> Result<TopicView, Status> {
    match node.call(Command::ListTopics).await.map_err(stopped)? {
        Reply::Topics(views) => {
            views.into_iter().find(|view| view.name == *name).ok_or_else(|| {
                let detail = format!("no topic has the name {name}");
                status(Refusal::new(Code::UnknownTopic, detail))
            })
        }
        Reply::Refused(refusal) => Err(status(refusal)),
        other => unreachable!("topics were asked for, not {other:?}"),
    }
}

/// The subscription of this name, as it stands.
pub(super) async fn subscription(node: &Node, name: &Name) -> Result<SubscriptionView, Status> {
    match node.call(Command::ListSubscriptions).await.map_err(stopped)? {
        Reply::Subscriptions(views) => {
            views.into_iter().find(|view| view.name == *name).ok_or_else(|| {
                let detail = format!("no subscription has the name {name}");
                status(Refusal::new(Code::UnknownSubscription, detail))
            })
        }
        Reply::Refused(refusal) => Err(status(refusal)),
        other => unreachable!("subscriptions were asked for, not {other:?}"),
    }
}

/// Where to start in a topic, as the core knows it. After every event there is: with the next.
pub(super) async fn start(node: &Node, name: &Name, at: StartAt) -> Result<Start, Status> {
    match at {
        StartAt::Start(start) => Ok(start),
        StartAt::Time(wall_ms) => {
            let topic = topic(node, name).await?.topic;
            let offset = node.offset_at(topic, wall_ms).await.map_err(not_read)?;
            Ok(offset.map_or(Start::Latest, Start::At))
        }
    }
}
