//! Tables of the application whose engine does not do what a prepared branch needs.
//!
//! What the engines say of themselves does not help: SPIDER and ROCKSDB both claim XA.

use sqlx::{MySqlConnection, Row};

use crate::doctor::{Finding, Grade};

/// Most names in one finding.
const NAMES: usize = 20;

/// One finding for each kind of engine that is there, or one that all is well.
pub(super) async fn check(connection: &mut MySqlConnection) -> Result<Vec<Finding>, sqlx::Error> {
    let rows = sqlx::raw_sql(
        "SELECT UPPER(t.ENGINE), t.TABLE_NAME, IFNULL(e.TRANSACTIONS, '') \
         FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e \
           ON e.ENGINE = t.ENGINE \
         WHERE t.TABLE_SCHEMA = DATABASE() AND t.ENGINE <> 'InnoDB' \
           AND t.TABLE_NAME NOT IN ('handfast_branch', 'handfast_owner') \
         ORDER BY t.TABLE_NAME",
    )
    .fetch_all(&mut *connection)
    .await?;
    let (mut remote, mut unlocked, mut kept, mut untried) = (vec![], vec![], vec![], vec![]);
    for row in &rows {
        let (engine, table, undoes): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let list = match (engine.as_str(), undoes.as_str()) {
            ("SPIDER", _) => &mut remote,
            ("ROCKSDB", _) => &mut unlocked,
            (_, "YES") => &mut untried,
            _ => &mut kept,
        };
        list.push(format!("{table} ({engine})"));
    }
    let versioned: Vec<String> = sqlx::query_scalar(
        "SELECT TABLE_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
           AND GENERATION_EXPRESSION = 'ROW START' AND DATA_TYPE = 'bigint' ORDER BY TABLE_NAME",
    )
    .fetch_all(connection)
    .await?;
    Ok(findings(&remote, &unlocked, &kept, &untried, &versioned))
}

fn findings(
    remote: &[String],
    unlocked: &[String],
    kept: &[String],
    untried: &[String],
    versioned: &[String],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |check, grade, names: &[String], what: &str, remedy: &str| {
        if !names.is_empty() {
            findings.push(Finding::bad(check, grade, format!("{}: {what}", listed(names)), remedy));
        }
    };
    let local = "Keep these tables out of distributed transactions; local ones work.";
    add(
        "spider",
        Grade::FailDistributed,
        remote,
        "XA COMMIT by the server answers OK and leaves the remote half prepared and locked, which \
         nobody would ever see.",
        "Use local transactions here, or register the servers to which the tables lead.",
    );
    add(
        "rocksdb",
        Grade::Warn,
        unlocked,
        "a prepared branch has no locks there any more once MariaDB was started again, so that \
         what others write meanwhile is lost without an error.",
        local,
    );
    add(
        "engines",
        Grade::Warn,
        kept,
        "what is written there stays when its transaction is rolled back, distributed or local.",
        "Use InnoDB for tables that transactions write.",
    );
    add(
        "engines_untried",
        Grade::Warn,
        untried,
        "whether a prepared branch keeps its work and its locks there was not tried.",
        "Use InnoDB for tables that transactions write.",
    );
    add(
        "versioning",
        Grade::Warn,
        versioned,
        "system versioning by transaction number: after a distributed transaction, which is not \
         entered in mysql.transaction_registry, AS OF fails over them (4129).",
        "Use versioning by timestamp, or local transactions, for these tables.",
    );
    if findings.is_empty() {
        let what = "Every table that the server's user can see is of InnoDB.";
        findings.push(Finding::good("engines", what));
    }
    findings
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES);
    let shown = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spider cannot be installed everywhere, so that it is refused is tried without it here.
    #[test]
    fn only_spider_refuses_and_every_name_is_said_up_to_a_bound() {
        let names = |count: usize| (0..count).map(|at| format!("t{at} (X)")).collect::<Vec<_>>();
        let grades = |findings: Vec<Finding>| {
            findings.iter().map(|f| (f.check, f.grade)).collect::<Vec<_>>()
        };
        let all = findings(&names(1), &names(1), &names(1), &names(1), &names(1));
        let expected = [
            ("spider", Grade::FailDistributed),
            ("rocksdb", Grade::Warn),
            ("engines", Grade::Warn),
            ("engines_untried", Grade::Warn),
            ("versioning", Grade::Warn),
        ];
        assert_eq!(grades(all), expected);
        assert_eq!(grades(findings(&[], &[], &[], &[], &[])), [("engines", Grade::Good)]);
        let many = findings(&[], &[], &names(22), &[], &[]);
        assert!(many[0].what.contains("t19 (X) and 2 more: what is"), "{}", many[0].what);
    }
}
