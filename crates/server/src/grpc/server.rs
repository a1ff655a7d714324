//! The service Server: the handshake, and counts for people.

use std::time::{SystemTime, UNIX_EPOCH};

use handfast_core::command::Command;
use handfast_core::ids::TopicId;
use handfast_core::limits::Limits;
use handfast_core::output::Reply;
use handfast_core::record::ParticipantKind;
use handfast_wire::raw::server_server::Server;
use handfast_wire::{ids, server as wire, status, v1};
use tonic::{Request, Response, Status};

use super::stream::Frames;
use super::{backup, call, stopped};
use crate::VERSION;
use crate::health::Health;
use crate::node::Node;

/// The service.
#[derive(Debug)]
pub(super) struct Service {
    node: Node,
    health: Health,
    limits: v1::Limits,
    started_unix_ms: u64,
}

impl Service {
    pub(super) fn new(node: &Node, health: &Health, limits: &Limits) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { node: node.clone(), health: health.clone(), limits: limits.into(), started_unix_ms }
    }

    /// What the core lists; none: it does not answer that now.
    async fn list(&self, command: Command) -> Result<Option<Reply>, Status> {
        let reply = call(&self.node, Ok(command)).await?;
        Ok((!matches!(reply, Reply::Refused(_))).then_some(reply))
    }
}

#[tonic::async_trait]
impl Server for Service {
    type BackupStream = Frames<v1::BackupProgress>;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        backup::start(&self.node, request.into_inner()).await.map(Response::new)
    }

    async fn hello(
        &self,
        request: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloReply>, Status> {
        let protocol = wire::negotiate(request.get_ref()).map_err(status::status)?;
        Ok(Response::new(v1::HelloReply {
            server_version: VERSION.to_owned(),
            protocol,
            store_id: ids::store_bytes(self.node.info().store),
            limits: Some(self.limits),
        }))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let info = self.node.info();
        let stats = self.node.stats().await.map_err(stopped)?;
        let mut reply = v1::StatusReply {
            server_version: VERSION.to_owned(),
            store_id: ids::store_bytes(info.store),
            epoch: info.epoch,
            started_unix_ms: self.started_unix_ms,
            open_transactions: count(stats.core.open),
            attention: count(stats.core.attention + stats.core.unseen),
            staged_bytes: count(stats.core.staged_bytes),
            instances: count(stats.core.instances),
            sessions: count(stats.sessions),
            durable_lsn: Some(*self.node.durable_changed().borrow()),
            low_space: stats.low_space,
            draining: self.health.is_draining(),
            ..v1::StatusReply::default()
        };
        if let Some(Reply::Topics(topics)) = self.list(Command::ListTopics).await? {
            reply.topics = count(topics.len());
            let named = |topic: Option<TopicId>| {
                let view = topics.iter().find(|view| Some(view.topic) == topic);
                view.map_or_else(String::new, |view| format!("topic {}: ", view.name))
            };
            let all = self.node.damage().into_iter().take(DAMAGE);
            reply.damage = all.map(|(topic, place)| named(topic) + &place).collect();
        }
        if let Some(Reply::Subscriptions(all)) = self.list(Command::ListSubscriptions).await? {
            reply.subscriptions = count(all.len());
            reply.dead_letters = Some(all.iter().map(|view| u64::from(view.dead)).sum());
        }
        if let Some(Reply::Participants(all)) = self.list(Command::ListParticipants).await? {
            let of = |kind| all.iter().filter(move |view| view.kind == kind);
            let services = of(ParticipantKind::Service);
            reply.services = count(services.filter(|view| !view.instances.is_empty()).count());
            reply.databases = count(of(ParticipantKind::Database).count());
        }
        Ok(Response::new(reply))
    }
}

/// Places that a status lists at most.
const DAMAGE: usize = 100;

#[expect(clippy::unnecessary_wraps, reason = "a count that is not known is absent")]
fn count(value: usize) -> Option<u64> {
    Some(value as u64)
}
