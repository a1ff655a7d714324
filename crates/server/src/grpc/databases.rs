//! The service Databases.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handfast_core::ids::TransactionId;
use handfast_core::refusal::{Code, Refusal};
use handfast_database::doctor::{Finding, Grade};
use handfast_wire::edge::Edge;
use handfast_wire::raw::databases_server::Databases as DatabasesService;
use handfast_wire::{Home, ids, status, v1};
use tonic::{Request, Response, Status};

use crate::databases::{AdoptError, Condition, Databases, InDoubt, Label, LocateError, View};

/// The service.
pub(super) struct Service(pub(super) Databases);

#[tonic::async_trait]
impl DatabasesService for Service {
    async fn list(
        &self,
        _: Request<v1::ListDatabasesRequest>,
    ) -> Result<Response<v1::ListDatabasesReply>, Status> {
        let databases = self.0.list().into_iter().map(registered).collect();
        Ok(Response::new(v1::ListDatabasesReply { databases }))
    }

    async fn in_doubt(
        &self,
        _: Request<v1::InDoubtRequest>,
    ) -> Result<Response<v1::InDoubtReply>, Status> {
        let views = self.0.in_doubt().await;
        let audits: Option<Vec<SystemTime>> = views.iter().map(|v| v.status.audited).collect();
        let audited_unix_ms = audits.and_then(|all| all.into_iter().min()).map(unix_ms);
        let rows = views.iter().flat_map(|view| {
            view.status.in_doubt.iter().map(|row| prepared(view.name.as_str(), row))
        });
        let prepared = rows.collect();
        Ok(Response::new(v1::InDoubtReply { prepared, audited_unix_ms }))
    }

    async fn adopt(
        &self,
        request: Request<v1::AdoptRequest>,
    ) -> Result<Response<v1::Adopted>, Status> {
        let name = ids::name("database", &request.into_inner().database);
        let name = name.map_err(|malformed| status::status(malformed.into()))?;
        match self.0.adopt(&name).await {
            Ok(()) => Ok(Response::new(v1::Adopted {})),
            Err(error @ AdoptError::Unknown(_)) => {
                Err(status::status(Refusal::new(Code::UnknownDatabase, error.to_string())))
            }
            Err(error @ AdoptError::Fault(_)) => Err(Edge::Failed.status(error.to_string())),
        }
    }

    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::Located>, Status> {
        let name = ids::name("database", &request.into_inner().database);
        let name = name.map_err(|malformed| status::status(malformed.into()))?;
        match self.0.locate(&name).await {
            Ok(Home { table, identity }) => Ok(Response::new(v1::Located { table, identity })),
            Err(error) => Err(status::status(not_located(&error))),
        }
    }
}

fn not_located(error: &LocateError) -> Refusal {
    let code = match error {
        LocateError::Unknown(_) => Code::UnknownDatabase,
        LocateError::Fault(..) => Code::DatabaseRefused,
    };
    Refusal::new(code, error.to_string())
}

fn registered(view: View) -> v1::RegisteredDatabase {
    let View { name, kind, url, status } = view;
    let ours = |row: &&InDoubt| !matches!(row.label, Label::Foreign | Label::Elsewhere);
    let in_doubt = status.audited.map(|_| status.in_doubt.iter().filter(ours).count() as u64);
    // What was good while it answered says nothing about one that does not.
    let report = status.report.as_ref().filter(|_| !matches!(status.condition, Condition::Down(_)));
    let bad = report.map(|r| r.findings.as_slice()).unwrap_or_default().iter();
    v1::RegisteredDatabase {
        name: name.as_str().to_owned(),
        kind: kind.to_string(),
        url,
        condition: status.condition.as_str().to_owned(),
        why: status.condition.why().map(ToOwned::to_owned),
        since_unix_ms: unix_ms(status.since),
        version: report.map(|r| r.version.clone()).unwrap_or_default(),
        grade: report.map(|r| r.grade.to_string()).unwrap_or_default(),
        findings: bad.filter(|f| f.grade != Grade::Good).map(finding).collect(),
        in_doubt,
        next_try_unix_ms: status.next_try.map(unix_ms),
        waits: status.waits.into_iter().map(waiting).collect(),
    }
}

fn waiting((id, holders): (TransactionId, String)) -> v1::WaitingTransaction {
    v1::WaitingTransaction { transaction_id: ids::transaction_bytes(id), holders }
}

fn finding(finding: &Finding) -> v1::DatabaseFinding {
    v1::DatabaseFinding {
        check: finding.check.to_owned(),
        grade: finding.grade.to_string(),
        what: finding.what.clone(),
        remedy: finding.remedy.clone(),
    }
}

fn prepared(database: &str, row: &InDoubt) -> v1::PreparedTransaction {
    let InDoubt { prepared, label, age, why_left } = row;
    let branch = prepared.branch.map(|branch| branch.to_string());
    v1::PreparedTransaction {
        database: database.to_owned(),
        label: label.as_str().to_owned(),
        transaction_id: prepared
            .branch
            .map(|branch| ids::transaction_bytes(branch.transaction))
            .unwrap_or_default(),
        name: branch.or_else(|| prepared.foreign.clone()).unwrap_or_default(),
        age_ms: age.map(millis),
        user: prepared.user.clone().unwrap_or_default(),
        waiting: prepared.waiting,
        belongs_to: prepared.belongs_to.clone().unwrap_or_default(),
        why_left: why_left.clone().unwrap_or_default(),
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
