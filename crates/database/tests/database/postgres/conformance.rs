//! The suite that both databases run.

use async_trait::async_trait;
use handfast_database::conformance::{self, Fixture};
use handfast_database::postgres::application;
use handfast_database::{BranchId, Database, End, Holder};

use super::{Bench, run, work};
use crate::servers::next;

#[async_trait]
impl Fixture for Bench {
    fn database(&self) -> &dyn Database {
        &*self.database
    }

    async fn prepare(&self, branch: &BranchId) -> Option<Holder> {
        Bench::prepare(self, branch).await;
        None
    }

    async fn commit_local(&self, branch: &BranchId) {
        let mut connection = self.connection().await;
        work(&mut connection, branch).await;
        application::commit_local(&mut connection, branch).await.unwrap();
    }

    async fn leave_open(&self, branch: &BranchId) -> Box<dyn Send> {
        let mut connection = self.connection().await;
        work(&mut connection, branch).await;
        let marker = format!("INSERT INTO handfast_branch VALUES ('{branch}', 'committed')");
        run(&mut connection, &marker).await;
        Box::new(connection)
    }

    async fn prepare_foreign(&self) -> String {
        let name = format!("handfast.foreign.{}", next());
        let sql = format!("BEGIN; INSERT INTO work VALUES ('x'); PREPARE TRANSACTION '{name}'");
        run(&mut self.connection().await, &sql).await;
        name
    }

    async fn work_is_visible(&self, branch: &BranchId) -> bool {
        Bench::work_is_visible(self, branch).await
    }

    async fn end_behind_the_back(&self, branch: &BranchId, end: End, _: Option<Holder>) {
        let verb = if end == End::Commit { "COMMIT" } else { "ROLLBACK" };
        run(&mut self.connection().await, &format!("{verb} PREPARED '{}'", branch.gid())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_does_what_the_seam_says() {
    conformance::run(&Bench::new().await, next()).await;
}
