//! Whether a database may be trusted, and with what: findings with grades and remedies.
//!
//! The same checks answer `handfast doctor` and make the server refuse a database. What each
//! database is asked is beside its implementation.

use std::fmt;

use crate::fault::Fault;
use crate::kind::Kind;

/// How bad a finding is. The order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Works, with a risk or a limit that somebody should know.
    Warn,
    /// Local transactions work; distributed ones are refused.
    FailDistributed,
    /// Nothing is allowed there.
    Fail,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Warn => "warning",
            Self::FailDistributed => "local transactions only",
            Self::Fail => "refused",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A stable id, such as `fsync`.
    pub check: &'static str,
    /// How bad it is.
    pub grade: Grade,
    /// What was found, in one sentence.
    pub what: String,
    /// What to do about it; empty if nothing has to be done.
    pub remedy: String,
    /// [`crate::Database::install`] does it.
    pub fixable: bool,
}

impl Finding {
    pub(crate) fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self::bad(check, Grade::Good, what, "")
    }

    pub(crate) fn bad(
        check: &'static str,
        grade: Grade,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, grade, what: what.into(), remedy: remedy.into(), fixable: false }
    }

    pub(crate) fn fixable(mut self) -> Self {
        self.fixable = true;
        self
    }
}

/// The answer to all checks of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which database it is.
    pub kind: Kind,
    /// What it calls itself; empty if it did not answer.
    pub version: String,
    /// The worst of the findings.
    pub grade: Grade,
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(kind: Kind, version: String, findings: Vec<Finding>) -> Self {
        let grade = findings.iter().map(|f| f.grade).max().unwrap_or(Grade::Good);
        Self { kind, version, grade, findings }
    }

    /// The report of checks that did not come to an end.
    pub(crate) fn failed(kind: Kind, mut findings: Vec<Finding>, fault: &Fault) -> Self {
        findings.push(Finding::bad(
            "answers",
            Grade::Fail,
            format!("The checks did not come to an end: {fault}."),
            "See that the database runs, that the URL, user and password are right, and that it \
             accepts connections from this host.",
        ));
        Self::new(kind, String::new(), findings)
    }

    /// Local transactions are allowed.
    #[must_use]
    pub fn allows_local(&self) -> bool {
        self.grade < Grade::Fail
    }

    /// Distributed transactions are allowed.
    #[must_use]
    pub fn allows_distributed(&self) -> bool {
        self.grade < Grade::FailDistributed
    }

    /// The finding of a check.
    #[must_use]
    pub fn finding(&self, check: &str) -> Option<&Finding> {
        self.findings.iter().find(|f| f.check == check)
    }
}
