//! What the doctor says about MariaDB.

use handfast_database::doctor::Grade;
use handfast_database::private::MariaDbOptions;
use handfast_database::{Options, connect};

use super::{Bench, run};
use crate::servers::{MARIADB, MARIADB_BINLOG, private_mariadb};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_as_it_should_be_is_good() {
    let report = Bench::new().await.database.check().await;
    assert_eq!(report.grade, Grade::Good, "{report:#?}");
    assert!(report.version.contains("MariaDB"));
    assert!(report.allows_local() && report.allows_distributed());
}

#[tokio::test(flavor = "multi_thread")]
async fn my7_the_binary_log_is_graded_lower() {
    let report = Bench::on(&MARIADB_BINLOG).await.database.check().await;
    assert_eq!(report.grade, Grade::Warn, "{report:#?}");
    assert!(report.finding("binlog").unwrap().what.contains("MDEV-21469"));
    assert!(report.allows_distributed());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_tables_are_found_and_made() {
    let bench = Bench::new().await;
    run(&mut bench.connection().await, "DROP TABLE handfast_branch").await;
    let report = bench.database.check().await;
    assert_eq!(report.grade, Grade::Fail);
    assert!(report.finding("tables").unwrap().fixable);
    let done = bench.database.install(None).await.unwrap();
    assert_eq!(done, ["Created the table handfast_branch."]);
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
         at timestamp(6) NOT NULL DEFAULT current_timestamp(6)) ENGINE = InnoDB; \
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
    assert!(dropped.starts_with("Dropped the table handfast_owner, which had the shape of"));
    assert_eq!(created, "Created the table handfast_owner.");
    assert_eq!(bench.database.check().await.grade, Grade::Good);
    assert!(bench.database.install(None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_is_not_as_shipped_is_refused() {
    for change in [
        "ALTER TABLE handfast_branch ENGINE = Aria",
        "ALTER TABLE handfast_branch DROP PRIMARY KEY",
        "CREATE TRIGGER t BEFORE INSERT ON handfast_branch FOR EACH ROW SET @a = 1",
    ] {
        let bench = Bench::new().await;
        run(&mut bench.connection().await, change).await;
        let report = bench.database.check().await;
        assert_eq!(report.finding("marker").unwrap().grade, Grade::Fail, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn my3_the_right_to_kill_is_asked_for() {
    let bench = Bench::new().await;
    let user = format!("plain_{}", bench.name);
    let mut root = bench.connection().await;
    let grants = format!("CREATE USER {user}@'%'; GRANT ALL ON {}.* TO {user}@'%'", bench.name);
    run(&mut root, &grants).await;
    let database = connect(&MARIADB.url_of(&user, &bench.name), Options::default()).unwrap();
    let report = database.check().await;
    assert_eq!(report.finding("kill").unwrap().grade, Grade::FailDistributed, "{report:#?}");
    assert_eq!(report.finding("replica").unwrap().grade, Grade::Warn, "{report:#?}");
    assert!(report.allows_local() && !report.allows_distributed());
    let more = "GRANT CONNECTION ADMIN, PROCESS, REPLICA MONITOR ON *.* TO";
    run(&mut root, &format!("{more} {user}@'%'")).await;
    let database = connect(&MARIADB.url_of(&user, &bench.name), Options::default()).unwrap();
    assert_eq!(database.check().await.grade, Grade::Good);
}

#[tokio::test(flavor = "multi_thread")]
async fn my6_settings_that_lose_branches_are_refused() {
    let server = private_mariadb(&MariaDbOptions::default().with_binlog());
    let bench = Bench::on(&server).await;
    let mut root = bench.connection().await;
    for (check, bad, good) in [
        ("innodb_flush_log_at_trx_commit", "2", "1"),
        ("innodb_flush_log_at_trx_commit", "0", "1"),
        ("sync_binlog", "0", "1"),
    ] {
        run(&mut root, &format!("SET GLOBAL {check} = {bad}")).await;
        let report = bench.database.check().await;
        assert_eq!(report.finding(check).unwrap().grade, Grade::Fail, "{check}");
        assert!(!report.allows_local(), "{check}");
        run(&mut root, &format!("SET GLOBAL {check} = {good}")).await;
        assert!(bench.database.check().await.allows_distributed(), "{check}");
    }
    run(&mut root, "SET GLOBAL read_only = ON").await;
    let report = bench.database.check().await;
    assert_eq!(report.finding("primary").unwrap().grade, Grade::Fail);
    run(&mut root, "SET GLOBAL read_only = OFF; CHANGE MASTER TO MASTER_HOST = '127.0.0.1'").await;
    let report = bench.database.check().await;
    assert_eq!(report.finding("replica").unwrap().grade, Grade::Warn);
}

/// What these engines write is not undone, or not found again; the doctor said "all good" (K4).
#[tokio::test(flavor = "multi_thread")]
async fn k4_tables_that_no_branch_can_hold_are_named() {
    let bench = Bench::new().await;
    let tables = "CREATE TABLE fast (n int) ENGINE = MyISAM; \
         CREATE TABLE safe (n int) ENGINE = Aria; CREATE TABLE good (n int) ENGINE = InnoDB; \
         CREATE TABLE numbered (n int, s bigint unsigned GENERATED ALWAYS AS ROW START, \
           e bigint unsigned GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) \
           WITH SYSTEM VERSIONING; \
         CREATE TABLE dated (n int) WITH SYSTEM VERSIONING";
    run(&mut bench.connection().await, tables).await;
    let report = bench.database.check().await;
    let engines = report.finding("engines").unwrap();
    assert_eq!(engines.grade, Grade::Warn, "{report:#?}");
    assert!(engines.what.starts_with("fast (MYISAM), safe (ARIA): "), "{}", engines.what);
    let versioning = report.finding("versioning").unwrap();
    assert!(versioning.what.starts_with("numbered: "), "{}", versioning.what);
    assert!(report.allows_distributed(), "these are for whoever uses the tables to decide");
}

/// It failed, because there is no such user at any host, or it may not grant.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_user_as_the_role_keeps_its_rights() {
    let bench = Bench::new().await;
    let user = format!("own_{}", bench.name);
    let grants = format!(
        "CREATE USER {user}@'127.0.0.1'; GRANT ALL ON {}.* TO {user}@'127.0.0.1'",
        bench.name
    );
    run(&mut bench.connection().await, &grants).await;
    let database = connect(&MARIADB.url_of(&user, &bench.name), Options::default()).unwrap();
    for role in [user.clone(), format!("{user}@127.0.0.1")] {
        let done = database.install(Some(&role)).await.unwrap();
        assert!(done.last().unwrap().contains("the server's own user"), "{done:?}");
    }
}
