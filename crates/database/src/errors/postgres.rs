//! PostgreSQL's errors by SQLSTATE (manual, appendix A).

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::{ANY, LOST, Meaning, Row, Step, look_up};
use crate::fault::Fault;

const fn row(code: &'static str, step: Step, meaning: Meaning, why: &'static str) -> Row {
    Row { code, step, meaning, why }
}

/// The table. The first row that fits counts.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row(LOST, Step::Prepare, Meaning::No, "no vote was given; if it lands later, the auditor rolls it back (PG3)"),
    row(ANY, Step::Prepare, Meaning::No, "a PREPARE that fails has rolled back (PG2)"),

    row(LOST, Step::CommitLocal, Meaning::Unknown, "the answer was lost, not the commit"),
    row("08*", Step::CommitLocal, Meaning::Unknown, "connection lost"),
    row("40003", Step::CommitLocal, Meaning::Unknown, "statement completion unknown"),
    row("57P*", Step::CommitLocal, Meaning::Unknown, "shut down, perhaps after the commit"),
    row(ANY, Step::CommitLocal, Meaning::No, "an ERROR comes before the commit record; later ones are PANIC"),

    row("42704", Step::Finish, Meaning::NotThere, "no prepared transaction of that name"),
    row(LOST, Step::Finish, Meaning::Unknown, "the answer was lost"),
    row("08*", Step::Finish, Meaning::Unknown, "connection lost (PG8)"),
    row("57P*", Step::Finish, Meaning::Unknown, "shutting down or starting (PG8)"),
    row("25006", Step::Finish, Meaning::Unknown, "a standby, or read-only (PG8)"),
    row("40003", Step::Finish, Meaning::Unknown, "statement completion unknown (PG8)"),
    row("55000", Step::Finish, Meaning::Unknown, "busy: somebody else finishes it now (PG9)"),
    row("42501", Step::Finish, Meaning::Unknown, "not the role that prepared it (PG6)"),
    row("0A000", Step::Finish, Meaning::Unknown, "prepared in another database (PG6)"),
    row(ANY, Step::Finish, Meaning::Unknown, "only 42704 means that it is not there (PG8)"),

    row("23505", Step::Resolve, Meaning::Done, "a marker stands; read it (L6)"),
    row("55P03", Step::Resolve, Meaning::Unknown, "the local transaction is still open (L7)"),
    row(LOST, Step::Resolve, Meaning::Unknown, "the answer was lost (L7)"),
    row(ANY, Step::Resolve, Meaning::Unknown, "L7"),
];

/// What an error means for what was asked.
#[must_use]
pub fn meaning(step: Step, error: &sqlx::Error) -> Meaning {
    // A FATAL or PANIC ends the session, perhaps while a commit waited for a standby.
    if step == Step::CommitLocal && severity(error).is_some_and(|s| s != PgSeverity::Error) {
        return Meaning::Unknown;
    }
    look_up(TABLE, step, code(error)).meaning
}

/// The SQLSTATE; none where the database itself did not answer.
#[must_use]
pub fn code(error: &sqlx::Error) -> Option<&str> {
    database(error).map(PgDatabaseError::code)
}

/// The database's own words, or the driver's.
#[must_use]
pub fn message(error: &sqlx::Error) -> String {
    match database(error) {
        Some(error) => match error.detail() {
            Some(detail) => format!("{} ({detail})", error.message()),
            None => error.message().to_owned(),
        },
        None => error.to_string(),
    }
}

/// The error of a call that only reads, or that is idempotent.
pub(crate) fn fault(error: &sqlx::Error) -> Fault {
    match code(error) {
        None => Fault::Unreachable(error.to_string()),
        Some("25006") => Fault::NotPrimary(message(error)),
        Some(code) if code.starts_with("08") || code.starts_with("57P") => {
            Fault::Unreachable(message(error))
        }
        Some(code) => Fault::Refused {
            code: code.to_owned(),
            message: message(error),
            retryable: may_pass(code),
        },
    }
}

/// Serialization failures, deadlocks, lock time-outs, cancelled statements, no connection free.
pub(crate) fn may_pass(code: &str) -> bool {
    matches!(code, "40001" | "40P01" | "55P03" | "57014" | "53300")
}

fn database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    match error {
        sqlx::Error::Database(error) => error.try_downcast_ref(),
        _ => None,
    }
}

fn severity(error: &sqlx::Error) -> Option<PgSeverity> {
    database(error).map(PgDatabaseError::severity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x1_every_row_is_reached_and_every_step_has_an_end() {
        super::super::check(TABLE);
    }

    #[test]
    fn x1_only_one_code_means_not_there() {
        let not_there: Vec<_> = TABLE.iter().filter(|r| r.meaning == Meaning::NotThere).collect();
        assert_eq!(not_there.len(), 1);
        assert_eq!(not_there[0].code, "42704");
    }

    #[test]
    fn x1_a_lost_connection_means_what_was_asked() {
        let lost = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(meaning(Step::Prepare, &lost), Meaning::No);
        for step in [Step::CommitLocal, Step::Finish, Step::Resolve] {
            assert_eq!(meaning(step, &lost), Meaning::Unknown, "{step:?}");
            assert_eq!(meaning(step, &sqlx::Error::PoolTimedOut), Meaning::Unknown, "{step:?}");
        }
    }
}
