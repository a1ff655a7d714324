//! The suite that both databases run.

use async_trait::async_trait;
use handfast_database::conformance::{self, Fixture};
use handfast_database::mariadb::application;
use handfast_database::{BranchId, Database, End, Holder};
use sqlx::{AssertSqlSafe, Connection};

use super::{Bench, local_work, run};
use crate::servers::{MARIADB_BINLOG, next};

#[async_trait]
impl Fixture for Bench {
    fn database(&self) -> &dyn Database {
        &*self.database
    }

    async fn prepare(&self, branch: &BranchId) -> Option<Holder> {
        let (connection, holder) = self.prepare_and_hold(branch).await;
        connection.close().await.unwrap();
        self.session_is_gone(holder).await;
        Some(holder)
    }

    async fn commit_local(&self, branch: &BranchId) {
        let mut connection = self.connection().await;
        local_work(&mut connection, branch).await;
        application::commit_local(&mut connection, branch).await.unwrap();
    }

    async fn leave_open(&self, branch: &BranchId) -> Box<dyn Send> {
        let mut connection = self.connection().await;
        local_work(&mut connection, branch).await;
        let marker = format!("INSERT INTO handfast_branch (id, outcome) VALUES ('{branch}', 1)");
        run(&mut connection, &marker).await;
        Box::new(connection)
    }

    async fn prepare_foreign(&self) -> String {
        let mut connection = self.connection().await;
        let xid = format!("X'{:04x}',X'',7", next());
        let sql = format!(
            "XA START {xid}; INSERT INTO work (id) VALUES ('foreign'); XA END {xid}; XA PREPARE {xid}"
        );
        run(&mut connection, &sql).await;
        connection.close().await.unwrap();
        xid
    }

    async fn work_is_visible(&self, branch: &BranchId) -> bool {
        Bench::work_is_visible(self, branch).await
    }

    async fn end_behind_the_back(&self, branch: &BranchId, end: End, holder: Option<Holder>) {
        assert!(holder.is_some(), "the session is gone");
        let verb = if end == End::Commit { "COMMIT" } else { "ROLLBACK" };
        run(&mut self.connection().await, &format!("XA {verb} {}", branch.xid())).await;
    }
}

impl Bench {
    /// Waits until a session that was closed has left the server.
    pub(super) async fn session_is_gone(&self, holder: Holder) {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {}",
            holder.connection
        );
        let mut connection = self.connection().await;
        let mut left = 6_000;
        loop {
            let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql.as_str()))
                .fetch_one(&mut connection)
                .await
                .unwrap();
            if count == 0 {
                return;
            }
            left -= 1;
            assert!(left > 0, "a session does not end");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_does_what_the_seam_says() {
    conformance::run(&Bench::new().await, next()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_with_the_binary_log_does_what_the_seam_says() {
    conformance::run(&Bench::on(&MARIADB_BINLOG).await, next()).await;
}
