//! What differs between the databases that keep a service's state.
//!
//! Every statement goes as text, several of them in one message where one answer is enough. What
//! is written into a text is a number, or bytes in hexadecimal; nobody else's text ever is.

use std::future::Future;
use std::time::Duration;

/// See the module.
pub trait Dialect: sqlx::Database {
    /// Creates the tables if they are not there.
    const CREATE_STATE: &'static str;
    /// The tables of states, of branches and of horizons.
    const TABLES: [&'static str; 3];
    /// What follows an INSERT of a state that may be there.
    const UNLESS_THERE: &'static str;
    /// What follows an INSERT of branches to put them in place of what was recorded.
    const IN_PLACE: &'static str;

    /// What follows an INSERT of a horizon to raise one that is there.
    const RAISED: &'static str;

    /// Bytes as a literal.
    fn bytes(bytes: &[u8]) -> String;

    /// Makes a session fit, once; says what keeps commits from being durable, if anything.
    fn set_up(
        connection: &mut Self::Connection,
        turn: Duration,
    ) -> impl Future<Output = Result<Option<String>, sqlx::Error>>;

    /// Statements that begin a transaction whose every read sees what was committed before the
    /// turn was taken, and whose commit is durable when it is answered.
    fn begin(turn: Duration) -> String;

    /// Runs a message; says how many rows its statements touched together.
    fn run(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = Result<u64, sqlx::Error>>;

    /// Runs a query whose columns are numbers and bytes.
    fn rows(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = Result<Vec<Self::Row>, sqlx::Error>>;

    /// A column that is a number.
    fn number(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error>;

    /// A column of bytes.
    fn blob(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error>;

    /// Whether a wait for a lock came to its bound.
    fn is_busy(error: &sqlx::Error) -> bool;

    /// Whether the savepoint is not there: the transaction in which it was made has ended.
    fn has_ended(error: &sqlx::Error) -> bool;

    /// Whether a statement before has failed, and nothing but going back helps.
    fn has_failed(error: &sqlx::Error) -> bool;

    /// Whether a commit was refused for good by a rule that is checked there, and nothing of the
    /// transaction is left.
    fn is_refused(error: &sqlx::Error) -> bool;
}
