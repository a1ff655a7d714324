//! MariaDB's errors by number (knowledge base, "MariaDB error codes").

use sqlx::mysql::MySqlDatabaseError;

use super::{ANY, LOST, Meaning, Row, Step, look_up};
use crate::fault::Fault;

/// `KILL` of a session that is not there.
pub(crate) const NO_SUCH_THREAD: u16 = 1094;
/// A marker with this id stands.
pub(crate) const DUPLICATE: u16 = 1062;
/// There is no such savepoint: the transaction in which it was made has ended.
pub(crate) const NO_SAVEPOINT: u16 = 1305;
/// Somebody holds the lock, and held it longer than the time limit.
pub(crate) const LOCK_TIMEOUT: u16 = 1205;

const fn row(code: &'static str, step: Step, meaning: Meaning, why: &'static str) -> Row {
    Row { code, step, meaning, why }
}

/// The table. The first row that fits counts.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row(LOST, Step::Prepare, Meaning::No, "no vote was given; if it lands later, the auditor rolls it back"),
    row(ANY, Step::Prepare, Meaning::No, "no vote was given, and END and ROLLBACK were tried (MY11)"),

    row(LOST, Step::CommitLocal, Meaning::Unknown, "the answer was lost, not the commit"),
    row(ANY, Step::CommitLocal, Meaning::Unknown, "an error of COMMIT itself does not say how far it got"),

    row("1397", Step::Finish, Meaning::NotThere, "XAER_NOTA, which has three meanings (MY5)"),
    row("1402", Step::Finish, Meaning::NotThere, "XA_RBROLLBACK: it was rolled back"),
    row("1613", Step::Finish, Meaning::NotThere, "XA_RBTIMEOUT: it was rolled back"),
    row("1614", Step::Finish, Meaning::NotThere, "XA_RBDEADLOCK: it was rolled back"),
    row("1399", Step::Finish, Meaning::Unknown, "XAER_RMFAIL: the connection is in another transaction"),
    row("1400", Step::Finish, Meaning::Unknown, "XAER_OUTSIDE: the connection is in another transaction"),
    row("1401", Step::Finish, Meaning::Unknown, "XAER_RMERR: the engine failed"),
    row("1290", Step::Finish, Meaning::Unknown, "read-only (MY8)"),
    row("1836", Step::Finish, Meaning::Unknown, "read-only (MY8)"),
    row("1053", Step::Finish, Meaning::Unknown, "shutting down"),
    row("1205", Step::Finish, Meaning::Unknown, "a lock was not to be had in time"),
    row(LOST, Step::Finish, Meaning::Unknown, "the answer was lost"),
    row(ANY, Step::Finish, Meaning::Unknown, "list, then marker, then decide"),

    row("1062", Step::Resolve, Meaning::Done, "a marker stands; read it (L6)"),
    row("1205", Step::Resolve, Meaning::Unknown, "the local transaction is still open (L7)"),
    row(LOST, Step::Resolve, Meaning::Unknown, "the answer was lost (L7)"),
    row(ANY, Step::Resolve, Meaning::Unknown, "L7"),
];

/// What an error means for what was asked.
#[must_use]
pub fn meaning(step: Step, error: &sqlx::Error) -> Meaning {
    let code = number(error).map(|number| number.to_string());
    look_up(TABLE, step, code.as_deref()).meaning
}

/// The error's number; none where the database itself did not answer.
#[must_use]
pub fn number(error: &sqlx::Error) -> Option<u16> {
    database(error).map(MySqlDatabaseError::number)
}

/// The number as text; empty where the database itself did not answer.
pub(crate) fn code(error: &sqlx::Error) -> String {
    number(error).map(|number| number.to_string()).unwrap_or_default()
}

/// The database's own words, or the driver's.
#[must_use]
pub fn message(error: &sqlx::Error) -> String {
    match database(error) {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    }
}

/// The error of a call that only reads, or that is idempotent.
pub(crate) fn fault(error: &sqlx::Error) -> Fault {
    match number(error) {
        None => Fault::Unreachable(error.to_string()),
        Some(1290 | 1836) => Fault::NotPrimary(message(error)),
        // Too many connections, shutting down, killed.
        Some(1040 | 1053 | 1927 | 1203) => Fault::Unreachable(message(error)),
        Some(number) => Fault::Refused {
            code: number.to_string(),
            message: message(error),
            retryable: may_pass(number),
        },
    }
}

/// Lock time-outs, deadlocks, interrupted statements, and XA's words for them.
pub(crate) fn may_pass(number: u16) -> bool {
    matches!(number, 1205 | 1213 | 1317 | 1969 | 1402 | 1613 | 1614)
}

fn database(error: &sqlx::Error) -> Option<&MySqlDatabaseError> {
    match error {
        sqlx::Error::Database(error) => error.try_downcast_ref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x1_every_row_is_reached_and_every_step_has_an_end() {
        super::super::check(TABLE);
    }

    #[test]
    fn x1_a_lost_connection_means_what_was_asked() {
        let lost = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(meaning(Step::Prepare, &lost), Meaning::No);
        for step in [Step::CommitLocal, Step::Finish, Step::Resolve] {
            assert_eq!(meaning(step, &lost), Meaning::Unknown, "{step:?}");
        }
    }
}
