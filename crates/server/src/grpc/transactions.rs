//! The service Transactions, call by call. Its stream is in `session`.

use handfast_core::output::Reply;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::raw::transactions_server::Transactions;
use handfast_wire::status::status;
use handfast_wire::transactions::{self as wire, Door};
use handfast_wire::{ended, raw, v1};
use tonic::{Request, Response, Status, Streaming};

use super::session;
use super::stream::Frames;
use crate::door::Way;
use crate::node::Node;

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Node);

impl Service {
    async fn call(&self, call: Call) -> Result<Reply, Status> {
        let id = session::id_for(&self.0, Some(&call));
        super::call(&self.0, wire::command(call, id, Door::Unary)).await
    }
}

#[tonic::async_trait]
impl Transactions for Service {
    async fn begin(
        &self,
        request: Request<raw::BeginRequest>,
    ) -> Result<Response<v1::Begun>, Status> {
        let reply = self.call(Call::Begin(request.into_inner())).await?;
        wire::begun(reply, self.0.about()).map(Response::new)
    }

    async fn begin_local(
        &self,
        request: Request<raw::BeginLocalRequest>,
    ) -> Result<Response<v1::Begun>, Status> {
        let reply = self.call(Call::BeginLocal(request.into_inner())).await?;
        wire::begun(reply, self.0.about()).map(Response::new)
    }

    async fn enlist(
        &self,
        request: Request<v1::EnlistRequest>,
    ) -> Result<Response<v1::Counted>, Status> {
        let reply = self.call(Call::Enlist(request.into_inner())).await?;
        wire::counted(reply, self.0.about()).map(Response::new)
    }

    async fn stage(
        &self,
        request: Request<raw::StageRequest>,
    ) -> Result<Response<v1::Counted>, Status> {
        let reply = self.call(Call::Stage(request.into_inner())).await?;
        wire::counted(reply, self.0.about()).map(Response::new)
    }

    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let reply = self.call(Call::Commit(request.into_inner())).await?;
        wire::outcome(reply, self.0.about()).map(Response::new)
    }

    async fn abort(
        &self,
        request: Request<v1::AbortRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let reply = self.call(Call::Abort(request.into_inner())).await?;
        wire::outcome(reply, self.0.about()).map(Response::new)
    }

    async fn vote(&self, request: Request<v1::VoteRequest>) -> Result<Response<v1::Voted>, Status> {
        let reply = self.call(Call::Vote(request.into_inner())).await?;
        wire::voted(reply, self.0.about()).map(Response::new)
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let request = request.into_inner();
        let id = request.transaction_id.clone();
        match super::call(&self.0, wire::operate(request)).await? {
            // What was done about it is one thing, what stands another.
            Reply::Done => {
                let get = v1::GetRequest { transaction_id: id, wait: 0 };
                let reply = self.call(Call::Get(get)).await?;
                wire::outcome(reply, self.0.about()).map(Response::new)
            }
            reply => wire::outcome(reply, self.0.about()).map(Response::new),
        }
    }

    async fn extend(
        &self,
        request: Request<v1::ExtendRequest>,
    ) -> Result<Response<v1::Remaining>, Status> {
        let reply = self.call(Call::Extend(request.into_inner())).await?;
        wire::remaining(reply, self.0.about()).map(Response::new)
    }

    async fn run(
        &self,
        request: Request<raw::RunRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let reply = self.call(Call::Run(request.into_inner())).await?;
        wire::outcome(reply, self.0.about()).map(Response::new)
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Outcome>, Status> {
        let reply = self.call(Call::Get(request.into_inner())).await?;
        wire::outcome(reply, self.0.about()).map(Response::new)
    }

    async fn show(
        &self,
        request: Request<v1::ShowRequest>,
    ) -> Result<Response<v1::Transaction>, Status> {
        let reply = self.call(Call::Show(request.into_inner())).await?;
        wire::transaction(reply, self.0.about()).map(Response::new)
    }

    async fn list(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsReply>, Status> {
        super::list(Way::of(&request), async {
            let reply = self.call(Call::List(request.into_inner())).await?;
            wire::transactions(reply, self.0.about())
        })
        .await
    }

    async fn list_ended(
        &self,
        request: Request<v1::ListEndedRequest>,
    ) -> Result<Response<v1::ListEndedReply>, Status> {
        super::list(Way::of(&request), async {
            let query = ended::query(&request.into_inner()).map_err(status)?;
            let page = self.0.ended(query).await.map_err(super::not_read)?;
            Ok(page.into())
        })
        .await
    }

    type SessionStream = Frames<v1::TransactionReplyFrame>;

    async fn session(
        &self,
        request: Request<Streaming<raw::TransactionFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let way = Way::of(&request);
        Ok(Response::new(session::open(&self.0, way, request.into_inner())))
    }
}
