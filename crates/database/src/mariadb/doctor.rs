//! What a MariaDB database is asked before it is trusted.

use std::collections::HashMap;

use sqlx::{MySqlConnection, Row};

use super::engines;
use super::install::tables;
use crate::Fault;
use crate::doctor::{Finding, Grade};
use crate::errors::mariadb::fault;

/// The oldest version that is run and tested against.
const MINIMUM: (u32, u32) = (10, 6);

type Settings = HashMap<String, String>;

/// Makes the checks one after the other and returns the version.
pub(super) async fn check(
    connection: &mut MySqlConnection,
    findings: &mut Vec<Finding>,
) -> Result<String, Fault> {
    let settings = settings(connection).await.map_err(|error| fault(&error))?;
    let text = settings.get("version").cloned().unwrap_or_default();
    let version = version(&text);
    let refused = version.grade == Grade::Fail;
    findings.push(version);
    if refused {
        // The other checks ask for what another database does not have.
        return Ok(text);
    }
    findings.push(galera(&settings));
    findings.push(primary(&settings));
    findings.push(replica(connection).await);
    findings.extend(durability(&settings));
    findings.push(binary_log(&settings));
    if is_on(&settings, "log_bin") {
        findings.push(standbys(connection, &settings).await);
    }
    let there = tables(connection).await?;
    findings.push(tables_there(there.len() == 2));
    if there.len() == 2 {
        findings.push(marker(connection).await.map_err(|error| fault(&error))?);
    }
    findings.extend(engines::check(connection).await.map_err(|error| fault(&error))?);
    findings.push(kill(connection).await.map_err(|error| fault(&error))?);
    Ok(text)
}

async fn settings(connection: &mut MySqlConnection) -> Result<Settings, sqlx::Error> {
    let rows = sqlx::raw_sql(
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'wsrep_on', 'read_only', \
         'innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'log_bin', 'sync_binlog', \
         'innodb_read_only', 'rpl_semi_sync_master_enabled')",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let name: String = row.try_get(0)?;
            Ok((name.to_ascii_lowercase(), row.try_get(1)?))
        })
        .collect()
}

fn value<'a>(settings: &'a Settings, name: &str) -> &'a str {
    settings.get(name).map_or("", |value| value)
}

fn is_on(settings: &Settings, name: &str) -> bool {
    !matches!(value(settings, name), "" | "OFF" | "0")
}

fn version(text: &str) -> Finding {
    if !text.contains("MariaDB") {
        return Finding::bad(
            "version",
            Grade::Fail,
            format!("This is MySQL {text}: handfast is run and tested with MariaDB only."),
            "Use MariaDB 10.6 or later, or PostgreSQL 13 or later.",
        );
    }
    let mut numbers = text.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if number < MINIMUM {
        return Finding::bad(
            "version",
            Grade::Fail,
            format!("This is {text}; versions before 10.5 roll a prepared branch back."),
            "Upgrade to MariaDB 10.6 or later.",
        );
    }
    Finding::good("version", format!("{text}."))
}

fn galera(settings: &Settings) -> Finding {
    if is_on(settings, "wsrep_on") {
        return Finding::bad(
            "galera",
            Grade::Fail,
            "The server is a node of a Galera cluster, which refuses XA transactions or loses them.",
            "Register a MariaDB server without Galera (wsrep_on = OFF).",
        );
    }
    Finding::good("galera", "The server is no node of a Galera cluster.")
}

fn primary(settings: &Settings) -> Finding {
    if is_on(settings, "read_only") || is_on(settings, "innodb_read_only") {
        return Finding::bad(
            "primary",
            Grade::Fail,
            "The server is read-only: what is finished on a replica is finished there only.",
            "Register the address of the primary, or set read_only = OFF there.",
        );
    }
    Finding::good("primary", "The server takes writes.")
}

/// A replica may take writes as well, so that `read_only` does not show it.
async fn replica(connection: &mut MySqlConnection) -> Finding {
    match sqlx::raw_sql("SHOW ALL SLAVES STATUS").fetch_all(connection).await {
        Ok(rows) if rows.is_empty() => Finding::good("replica", "The server is no replica."),
        Ok(_) => Finding::bad(
            "replica",
            Grade::Warn,
            "The server replicates from another one: if that one is the primary, branches \
             finished here are finished here only.",
            "Register the address of the primary.",
        ),
        Err(_) => Finding::bad(
            "replica",
            Grade::Warn,
            "Whether the server is a replica could not be seen.",
            "GRANT REPLICA MONITOR ON *.* to the server's user.",
        ),
    }
}

fn durability(settings: &Settings) -> Vec<Finding> {
    let name = "innodb_flush_log_at_trx_commit";
    let flush = match value(settings, name) {
        "1" => Finding::good(name, format!("{name} is 1.")),
        other => Finding::bad(
            name,
            Grade::Fail,
            format!("{name} is {other}: a crash can lose what was prepared or committed."),
            format!("Set {name} = 1."),
        ),
    };
    let name = "innodb_doublewrite";
    let doublewrite = if is_on(settings, name) {
        Finding::good(name, format!("{name} is on."))
    } else {
        Finding::bad(
            name,
            Grade::Warn,
            format!("{name} is off: a crash can damage a page that was being written."),
            format!("Set {name} = ON, unless the file system writes whole pages."),
        )
    };
    let name = "sync_binlog";
    let binlog = match (is_on(settings, "log_bin"), value(settings, name)) {
        (false, _) => Finding::good(name, "There is no binary log to sync."),
        (true, "1") => Finding::good(name, format!("{name} is 1.")),
        (true, other) => Finding::bad(
            name,
            Grade::Fail,
            format!("{name} is {other}: a crash can lose a branch that was prepared."),
            format!("Set {name} = 1."),
        ),
    };
    vec![flush, doublewrite, binlog]
}

fn binary_log(settings: &Settings) -> Finding {
    if is_on(settings, "log_bin") {
        return Finding::bad(
            "binlog",
            Grade::Warn,
            "The binary log is on: after a crash it and the engine can disagree about an XA \
             transaction (MDEV-21469), and a replica with them.",
            "Use local transactions with this database where they do, or switch log_bin off if \
             nothing replicates from it.",
        );
    }
    Finding::good("binlog", "The binary log is off.")
}

/// As with PostgreSQL: a replica that takes over may not have what was committed last.
async fn standbys(connection: &mut MySqlConnection, settings: &Settings) -> Finding {
    let sql =
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'";
    let check = "standbys";
    match sqlx::query_scalar::<_, i64>(sql).fetch_one(connection).await {
        Ok(0) => Finding::good(check, "No replica that can be seen follows this server."),
        Ok(count) if is_on(settings, "rpl_semi_sync_master_enabled") => Finding::good(
            check,
            format!("{count} replicas follow, and a commit waits for one of them (semi-sync)."),
        ),
        Ok(count) => Finding::bad(
            check,
            Grade::Warn,
            format!(
                "{count} replicas follow, and no commit waits for one: when one takes over, what \
                 was committed just before can be missing here, in silence, and be there in the \
                 other databases of its transaction."
            ),
            "Set rpl_semi_sync_master_enabled = ON, and rpl_semi_sync_slave_enabled = ON on the \
             replica that takes over. Make replicas with mariadb-backup, which carries prepared \
             branches, not from a dump.",
        ),
        Err(_) => Finding::bad(
            check,
            Grade::Warn,
            "Whether replicas follow could not be seen.",
            "GRANT PROCESS ON *.* to the server's user.",
        ),
    }
}

fn tables_there(complete: bool) -> Finding {
    if complete {
        return Finding::good("tables", "The tables handfast_branch and handfast_owner are there.");
    }
    Finding::bad(
        "tables",
        Grade::Fail,
        "The tables handfast_branch and handfast_owner are not both there, or one of them has the \
         shape of an earlier build.",
        "Run `handfast doctor --fix`, or sql/mariadb.sql as an administrator.",
    )
    .fixable()
}

async fn marker(connection: &mut MySqlConnection) -> Result<Finding, sqlx::Error> {
    let row = sqlx::raw_sql(
        "SELECT (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
           AND TABLE_NAME IN ('handfast_branch', 'handfast_owner') AND ENGINE = 'InnoDB'), \
         (SELECT GROUP_CONCAT(COLUMN_NAME) FROM information_schema.KEY_COLUMN_USAGE \
           WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'handfast_branch' \
             AND CONSTRAINT_NAME = 'PRIMARY'), \
         (SELECT COUNT(*) FROM information_schema.TRIGGERS \
           WHERE EVENT_OBJECT_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = 'handfast_branch')",
    )
    .fetch_one(connection)
    .await?;
    let (engines, triggers): (i64, i64) = (row.try_get(0)?, row.try_get(2)?);
    let key: Option<String> = row.try_get(1)?;
    if engines == 2 && key.as_deref() == Some("id") && triggers == 0 {
        return Ok(Finding::good("marker", "The marker's table has its key and its engine."));
    }
    Ok(Finding::bad(
        "marker",
        Grade::Fail,
        "The marker's table is not as shipped: its engine is not InnoDB, its primary key is not \
         (id), or it has triggers.",
        "Drop the table while no transaction is open, and run `handfast doctor --fix`.",
    ))
}

/// Whether the session that holds a branch can be ended (MY3).
async fn kill(connection: &mut MySqlConnection) -> Result<Finding, sqlx::Error> {
    let held: Vec<String> = sqlx::query_scalar(
        "SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE IN \
         (CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), ''''), \
          CONCAT('''', IFNULL(CURRENT_ROLE(), ''), '''@'''''))",
    )
    .fetch_all(connection)
    .await?;
    let has = |name: &str| held.iter().any(|privilege| privilege == name);
    let missing: Vec<&str> = ["CONNECTION ADMIN", "PROCESS"]
        .into_iter()
        .filter(|name| !has(name) && !has("SUPER"))
        .collect();
    if missing.is_empty() {
        return Ok(Finding::good("kill", "The server may end the session that holds a branch."));
    }
    Ok(Finding::bad(
        "kill",
        Grade::FailDistributed,
        "The server's user may not end the sessions of other users, so a branch whose session \
         lives on could not be finished.",
        format!("GRANT {} ON *.* to the server's user.", missing.join(", ")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn my1_versions_are_told_apart() {
        for (text, grade) in [
            ("8.0.36", Grade::Fail),
            ("5.7.44-log", Grade::Fail),
            ("10.4.34-MariaDB", Grade::Fail),
            ("10.5.23-MariaDB-log", Grade::Fail),
            ("10.6.0-MariaDB", Grade::Good),
            ("10.11.19-MariaDB-0+deb12u1", Grade::Good),
            ("11.4.2-MariaDB", Grade::Good),
        ] {
            assert_eq!(version(text).grade, grade, "{text}");
        }
        assert!(version("8.0.36").what.contains("MySQL"));
    }

    #[test]
    fn my13_galera_is_refused() {
        let on = HashMap::from([("wsrep_on".to_owned(), "ON".to_owned())]);
        assert_eq!(galera(&on).grade, Grade::Fail);
        assert_eq!(galera(&HashMap::new()).grade, Grade::Good);
    }
}
