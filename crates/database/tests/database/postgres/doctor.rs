//! What the doctor says about PostgreSQL.

use handfast_database::Options;
use handfast_database::doctor::Grade;
use handfast_database::private::PostgresOptions;

use super::{Bench, run};
use crate::servers::private_postgres;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_as_it_should_be_is_good() {
    let report = Bench::new().await.database.check().await;
    assert_eq!(report.grade, Grade::Good, "{report:#?}");
    assert!(!report.version.is_empty());
    assert!(report.allows_local() && report.allows_distributed());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_tables_are_found_and_made() {
    let bench = Bench::new().await;
    run(&mut bench.connection().await, "DROP TABLE handfast_branch").await;
    let report = bench.database.check().await;
    assert_eq!(report.grade, Grade::Fail);
    assert!(report.finding("tables").unwrap().fixable);
    let done = bench.database.install(None).await.unwrap();
    assert_eq!(done, ["Created the table public.handfast_branch."]);
    assert_eq!(bench.database.check().await.grade, Grade::Good);
    assert!(bench.database.install(None).await.unwrap().is_empty());
}

/// The owner's table of builds before a row named the opening that wrote it: the server asks nothing
/// of such a database, and `handfast doctor --fix` replaces the table and says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_table_of_an_earlier_build_is_refused_and_replaced() {
    let bench = Bench::new().await;
    let mut connection = bench.connection().await;
    run(
        &mut connection,
        "DROP TABLE handfast_owner; CREATE TABLE handfast_owner (store_id varchar(36) PRIMARY KEY, \
         host varchar(255) NOT NULL, epoch bigint NOT NULL, durable_lsn bigint NOT NULL, \
         at timestamptz NOT NULL DEFAULT clock_timestamp()); \
         INSERT INTO handfast_owner (store_id, host, epoch, durable_lsn) VALUES ('a', 'b', 1, 2)",
    )
    .await;
    let report = bench.database.check().await;
    let finding = report.finding("tables").unwrap();
    assert_eq!((report.grade, finding.grade), (Grade::Fail, Grade::Fail), "{report:#?}");
    assert!(finding.what.contains("the shape of an earlier build"), "{}", finding.what);
    assert!(finding.fixable && finding.remedy.contains("handfast doctor --fix"));
    assert!(!report.allows_local() && !report.allows_distributed());
    let done = bench.database.install(None).await.unwrap();
    let [dropped, created] = &*done else { panic!("{done:?}") };
    assert!(dropped.starts_with("Dropped the table public.handfast_owner, which had the shape of"));
    assert_eq!(created, "Created the table public.handfast_owner.");
    assert_eq!(bench.database.check().await.grade, Grade::Good);
    assert!(bench.database.install(None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pg11_settings_that_lose_commits_are_refused() {
    let server = private_postgres(
        &PostgresOptions::default()
            .with_max_prepared_transactions(5)
            .with_setting("fsync=off")
            .with_setting("full_page_writes=off"),
    );
    let bench = Bench::on(&server, Options::default()).await;
    let report = bench.database.check().await;
    for check in ["fsync", "full_page_writes"] {
        assert_eq!(report.finding(check).unwrap().grade, Grade::Fail, "{report:#?}");
    }
    assert_eq!(report.finding("max_prepared_transactions").unwrap().grade, Grade::Warn);
    assert!(!report.allows_local());
    // Every finding that is not good says what to do.
    let silent =
        |f: &&handfast_database::doctor::Finding| f.grade > Grade::Good && f.remedy.is_empty();
    assert_eq!(report.findings.iter().find(silent), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_and_the_markers_table_are_looked_at() {
    let bench = Bench::new().await;
    let role = format!("poor_{}", bench.name);
    let mut root = bench.connection().await;
    run(&mut root, &format!("CREATE ROLE {role} LOGIN")).await;
    let database = handfast_database::connect(&bench.url_of(&role), Options::default()).unwrap();
    let report = database.check().await;
    assert_eq!(report.finding("rights").unwrap().grade, Grade::Fail, "{report:#?}");
    run(&mut root, "ALTER TABLE handfast_branch SET UNLOGGED").await;
    let report = bench.database.check().await;
    assert_eq!(report.finding("marker").unwrap().grade, Grade::Fail, "{report:#?}");
    run(&mut root, "ALTER TABLE handfast_branch SET LOGGED").await;
    run(&mut root, "ALTER TABLE handfast_branch DROP CONSTRAINT handfast_branch_pkey").await;
    let report = bench.database.check().await;
    assert_eq!(report.finding("marker").unwrap().grade, Grade::Fail, "{report:#?}");
    run(
        &mut root,
        "ALTER DATABASE {} SET default_transaction_read_only = on"
            .replace("{}", &bench.name)
            .as_str(),
    )
    .await;
    let database = handfast_database::connect(&bench.url, Options::default()).unwrap();
    let report = database.check().await;
    assert_eq!(report.finding("primary").unwrap().grade, Grade::Fail, "{report:#?}");
}

/// NOTIFY cannot be prepared: every distributed transaction that touched such a table failed, with
/// a line that did not help (K4).
#[tokio::test(flavor = "multi_thread")]
async fn k4_triggers_that_notify_are_named() {
    let bench = Bench::new().await;
    let trigger = "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_notify('work', NEW.id); RETURN NEW; END $$; \
         CREATE TRIGGER tells AFTER INSERT ON work FOR EACH ROW EXECUTE FUNCTION tell()";
    run(&mut bench.connection().await, trigger).await;
    let report = bench.database.check().await;
    let finding = report.finding("notify").unwrap();
    assert_eq!(finding.grade, Grade::Warn, "{report:#?}");
    assert!(finding.what.contains("tables: work."), "{}", finding.what);
    run(&mut bench.connection().await, "ALTER TABLE work DISABLE TRIGGER tells").await;
    assert_eq!(bench.database.check().await.grade, Grade::Good);
}
