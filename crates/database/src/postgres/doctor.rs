//! What a PostgreSQL database is asked before it is trusted.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::install::tables;
use crate::Fault;
use crate::doctor::{Finding, Grade};
use crate::errors::postgres::fault;

/// The oldest version that is run and tested against, as `server_version_num` has it.
const MINIMUM: u32 = 130_000;
/// Fewer slots than this are soon used up by a few concurrent transactions.
const FEW_SLOTS: u32 = 20;

/// Makes the checks one after the other and returns the version.
pub(super) async fn check(
    connection: &mut PgConnection,
    findings: &mut Vec<Finding>,
) -> Result<String, Fault> {
    let settings = settings(connection).await.map_err(|error| fault(&error))?;
    findings.push(version(&settings));
    let standby = primary(connection, findings).await?;
    findings.push(standbys(connection).await.map_err(|error| fault(&error))?);
    findings.push(slots(&settings));
    findings.extend(durability(&settings));
    let there = tables(connection).await?;
    let complete = there.len() == 2;
    findings.push(tables_there(complete));
    if complete && !standby {
        rights(connection, findings).await.map_err(|error| fault(&error))?;
    }
    findings.push(triggers(connection).await.map_err(|error| fault(&error))?);
    findings.push(role(connection).await.map_err(|error| fault(&error))?);
    Ok(settings.get("server_version").cloned().unwrap_or_default())
}

/// `reset_val` is what other sessions begin with; ours has changed `synchronous_commit`.
async fn settings(connection: &mut PgConnection) -> Result<HashMap<String, String>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT name, reset_val FROM pg_settings WHERE name IN ('server_version', \
         'server_version_num', 'max_prepared_transactions', 'fsync', 'full_page_writes', \
         'synchronous_commit')",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn number(settings: &HashMap<String, String>, name: &str) -> u32 {
    settings.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn version(settings: &HashMap<String, String>) -> Finding {
    let number = number(settings, "server_version_num");
    let what = format!("PostgreSQL {}.", settings.get("server_version").map_or("?", |v| v));
    if number < MINIMUM {
        return Finding::bad("version", Grade::Fail, what, "Upgrade to PostgreSQL 13 or later.");
    }
    Finding::good("version", what)
}

async fn primary(
    connection: &mut PgConnection,
    findings: &mut Vec<Finding>,
) -> Result<bool, Fault> {
    let row = sqlx::query("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')")
        .fetch_one(connection)
        .await
        .map_err(|error| fault(&error))?;
    let standby: bool = row.try_get(0).map_err(|error| fault(&error))?;
    let read_only: String = row.try_get(1).map_err(|error| fault(&error))?;
    findings.push(if standby {
        Finding::bad(
            "primary",
            Grade::Fail,
            "The server is in recovery: a standby, whose lists and markers are behind.",
            "Register the address of the primary.",
        )
    } else if read_only == "on" {
        Finding::bad(
            "primary",
            Grade::Fail,
            "Transactions are read-only by default.",
            "Set default_transaction_read_only = off for the server's role.",
        )
    } else {
        Finding::good("primary", "The server is the primary and takes writes.")
    });
    Ok(standby)
}

/// A commit that an asynchronous standby has not received yet is lost, in silence, when that one
/// takes over: here only, while the other databases of the transaction keep theirs.
async fn standbys(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE sync_state = 'async'), \
           count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), \
           count(*) FILTER (WHERE sync_state IS NULL) \
         FROM pg_stat_replication r WHERE NOT EXISTS (SELECT FROM pg_replication_slots s \
           WHERE s.active_pid = r.pid AND s.slot_type = 'logical')",
    )
    .fetch_one(connection)
    .await?;
    let (late, in_time, hidden): (i64, i64, i64) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let check = "standbys";
    Ok(match (late, in_time, hidden) {
        (0, 0, 0) => Finding::good(check, "No standby follows this server."),
        (_, 1.., _) => Finding::good(
            check,
            format!("A commit waits for standbys: {in_time} synchronous, {late} asynchronous."),
        ),
        (1.., 0, _) => Finding::bad(
            check,
            Grade::Warn,
            format!(
                "Standbys follow, and no commit waits for one ({late} asynchronous): when one takes \
                 over, what was committed just before can be missing here, in silence, and be there \
                 in the other databases of its transaction."
            ),
            "Name the standby that takes over in synchronous_standby_names.",
        ),
        (_, _, _) => Finding::bad(
            check,
            Grade::Warn,
            "Standbys follow; whether commits wait for them could not be seen.",
            "GRANT pg_monitor TO the server's role.",
        ),
    })
}

/// PREPARE TRANSACTION refuses a transaction that has run NOTIFY (PG4): each distributed one that
/// sets off such a trigger. It is found by the words of its function, so one that calls another is
/// not.
async fn triggers(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT t.tgrelid::regclass::text FROM pg_trigger t \
           JOIN pg_proc p ON p.oid = t.tgfoid \
         WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND p.prosrc ~* '\\m(pg_notify|notify)\\M' \
         ORDER BY 1 LIMIT 20",
    )
    .fetch_all(connection)
    .await?;
    if names.is_empty() {
        return Ok(Finding::good("notify", "No trigger sends NOTIFY, as far as its words say."));
    }
    Ok(Finding::bad(
        "notify",
        Grade::Warn,
        format!(
            "Triggers send NOTIFY on these tables: {}. PostgreSQL prepares no transaction that has \
             sent one, so each distributed transaction that sets one off fails; local ones work.",
            names.join(", ")
        ),
        "Publish an event in its place, or use local transactions for these tables.",
    ))
}

fn slots(settings: &HashMap<String, String>) -> Finding {
    let check = "max_prepared_transactions";
    let remedy = "Set max_prepared_transactions to at least max_connections, here and on every \
                  standby, and restart PostgreSQL.";
    match number(settings, check) {
        0 => Finding::bad(
            check,
            Grade::FailDistributed,
            "max_prepared_transactions is 0: PostgreSQL refuses every PREPARE TRANSACTION.",
            remedy,
        ),
        few if few < FEW_SLOTS => Finding::bad(
            check,
            Grade::Warn,
            format!("max_prepared_transactions is {few}: more branches at once are refused."),
            remedy,
        ),
        many => Finding::good(check, format!("{many} transactions may be prepared at once.")),
    }
}

fn durability(settings: &HashMap<String, String>) -> Vec<Finding> {
    let value = |name| settings.get(name).map_or("?", |value| value);
    let mut findings = Vec::new();
    for name in ["fsync", "full_page_writes"] {
        findings.push(if value(name) == "on" {
            Finding::good(name, format!("{name} is on."))
        } else {
            Finding::bad(
                name,
                Grade::Fail,
                format!(
                    "{name} is {}: a crash can lose or damage what was committed.",
                    value(name)
                ),
                format!("Set {name} = on and reload PostgreSQL."),
            )
        });
    }
    findings.push(match value("synchronous_commit") {
        "off" => Finding::bad(
            "synchronous_commit",
            Grade::Warn,
            "synchronous_commit is off: a commit is visible before it is durable, so a caller \
             that leaves out SET LOCAL synchronous_commit = on can lose what it was told.",
            "Set synchronous_commit = on, or see that every local transaction sets it.",
        ),
        other => Finding::good("synchronous_commit", format!("synchronous_commit is {other}.")),
    });
    findings
}

fn tables_there(complete: bool) -> Finding {
    if complete {
        return Finding::good("tables", "The tables handfast_branch and handfast_owner are there.");
    }
    Finding::bad(
        "tables",
        Grade::Fail,
        "The tables public.handfast_branch and public.handfast_owner are not both there, or one of \
         them has the shape of an earlier build.",
        "Run `handfast doctor --fix`, or sql/postgres.sql as an administrator.",
    )
    .fixable()
}

/// What the server's role may do, and whether the marker's table is what it has to be.
async fn rights(
    connection: &mut PgConnection,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx::Error> {
    let row = sqlx::query(
        "SELECT (SELECT bool_and(has_table_privilege(t, p)) \
             FROM unnest(ARRAY['public.handfast_branch', 'public.handfast_owner']) t, \
                  unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p), \
           EXISTS (SELECT FROM pg_index i JOIN pg_attribute a \
               ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = 'public.handfast_branch'::regclass AND i.indisprimary \
               AND i.indnatts = 1 AND a.attname = 'id'), \
           EXISTS (SELECT FROM pg_trigger \
             WHERE tgrelid = 'public.handfast_branch'::regclass AND NOT tgisinternal) \
           OR EXISTS (SELECT FROM pg_rewrite \
             WHERE ev_class = 'public.handfast_branch'::regclass), \
           (SELECT relpersistence = 'p' FROM pg_class \
             WHERE oid = 'public.handfast_branch'::regclass)",
    )
    .fetch_one(connection)
    .await?;
    let (rights, key, swallowed): (bool, bool, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let logged: bool = row.try_get(3)?;
    findings.push(if rights {
        Finding::good("rights", "The server's role may read and write its two tables.")
    } else {
        Finding::bad(
            "rights",
            Grade::Fail,
            "The server's role may not read, insert, update and delete in its two tables.",
            "Make the server's role their owner, or grant it SELECT, INSERT, UPDATE and DELETE.",
        )
    });
    findings.push(if key && !swallowed && logged {
        Finding::good("marker", "The marker's table has its key and nothing that interferes.")
    } else {
        Finding::bad(
            "marker",
            Grade::Fail,
            "The marker's table is not as shipped: its primary key is not (id), it is unlogged, \
             or it has triggers or rules, so that a marker can be missing or come twice.",
            "Drop the table while no transaction is open, and run `handfast doctor --fix`.",
        )
    });
    Ok(())
}

/// Whose branches the server's role can finish (PG6).
async fn role(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let row = sqlx::query(
        "SELECT current_user::text, rolsuper, \
           (SELECT coalesce(string_agg(rolname::text, ', ' ORDER BY rolname), '') FROM pg_roles r \
             WHERE NOT pg_has_role(current_user, r.oid, 'MEMBER') AND r.rolcanlogin AND NOT r.rolsuper \
               AND has_table_privilege(r.oid, to_regclass('public.handfast_branch'), 'INSERT')) \
         FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(connection)
    .await?;
    let (user, superuser): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let beyond: String = row.try_get(2)?;
    Ok(if superuser {
        Finding::good("role", format!("{user} is a superuser and can finish every branch."))
    } else if beyond.is_empty() {
        Finding::good(
            "role",
            format!("{user} can finish the branches of every role that may insert markers."),
        )
    } else {
        Finding::bad(
            "role",
            Grade::FailDistributed,
            format!("{user} cannot finish branches that these roles prepare: {beyond}."),
            format!("GRANT each of them TO {user}, or register a superuser."),
        )
    })
}
