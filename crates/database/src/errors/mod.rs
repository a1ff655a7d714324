//! What a database's errors mean, as one table per database (X1).
//!
//! A driver's error means something only together with what was asked: a lost connection is a NO
//! to PREPARE and says nothing about a COMMIT.

pub mod mariadb;
pub mod postgres;

/// What was asked of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The guarded prepare of a distributed branch, in the application's connection.
    Prepare,
    /// The COMMIT of a local transaction, in the application's connection.
    CommitLocal,
    /// COMMIT or ROLLBACK of a prepared branch.
    Finish,
    /// The INSERT of a tombstone.
    Resolve,
}

/// What an error says about what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// It stands already: read what stands.
    Done,
    /// It did not happen and never will.
    No,
    /// The database does not know the branch: list, then marker, then decide.
    NotThere,
    /// Nobody knows: it may have happened, or may still.
    Unknown,
}

/// One row: an error, what was asked, and what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// SQLSTATE or error number; a class if it ends with `*`; [`LOST`] or [`ANY`].
    pub code: &'static str,
    /// What was asked.
    pub step: Step,
    /// What that means.
    pub meaning: Meaning,
    /// Why.
    pub why: &'static str,
}

/// The connection was lost, could not be had, or nothing was understood.
pub const LOST: &str = "lost";
/// Every error that has no row above.
pub const ANY: &str = "any";

/// The first row for this step that fits the code; `None` is a lost connection.
fn look_up(table: &'static [Row], step: Step, code: Option<&str>) -> &'static Row {
    let fits = |row: &&Row| {
        row.step == step
            && match (row.code, code) {
                (ANY, _) | (LOST, None) => true,
                (LOST, Some(_)) | (_, None) => false,
                (pattern, Some(code)) => match pattern.strip_suffix('*') {
                    Some(class) => code.starts_with(class),
                    None => pattern == code,
                },
            }
    };
    table.iter().find(fits).expect("every step's rows end with `any`")
}

#[cfg(test)]
fn check(table: &'static [Row]) {
    for step in [Step::Prepare, Step::CommitLocal, Step::Finish, Step::Resolve] {
        let rows: Vec<_> = table.iter().filter(|row| row.step == step).collect();
        assert_eq!(rows.last().map(|row| row.code), Some(ANY), "{step:?}");
        for row in rows {
            let code = match row.code {
                LOST => None,
                ANY => Some("ZZZZZ".to_owned()),
                code => Some(code.replace('*', "00X")),
            };
            // A row that an earlier one hides would be a claim that nothing keeps.
            assert_eq!(look_up(table, step, code.as_deref()), row, "{row:?}");
        }
    }
}
