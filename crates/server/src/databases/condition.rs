//! How a database is, for the core and for people.

use std::collections::BTreeMap;
use std::time::SystemTime;

use handfast_core::ids::TransactionId;
use handfast_database::Identity;
use handfast_database::doctor::Report;

use super::InDoubt;

/// Most waiting transactions of one database that are named.
const WAITS: usize = 100;

/// Whether a database can be asked anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has not answered yet.
    Starting,
    /// It answers, may be trusted, and is this store's.
    Up,
    /// It does not answer; it is tried again.
    Down(String),
    /// It answers, but may not be trusted.
    Refused(String),
    /// Its owner row contradicts this store, or the store is a copy: nothing is resolved there.
    NotOurs(String),
}

impl Condition {
    /// One word for programs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Down(_) => "down",
            Self::Refused(_) => "refused",
            Self::NotOurs(_) => "not_ours",
        }
    }

    /// Why it is not up.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Starting | Self::Up => None,
            Self::Down(why) | Self::Refused(why) | Self::NotOurs(why) => Some(why),
        }
    }
}

/// What is known of a database.
#[derive(Clone, Debug)]
pub struct Status {
    /// How it is.
    pub condition: Condition,
    /// Since when it is so.
    pub since: SystemTime,
    /// Local transactions whose outcome waits for somebody there, with who that may be.
    pub waits: BTreeMap<TransactionId, String>,
    /// When it is looked at again, if it is not up.
    pub next_try: Option<SystemTime>,
    /// The last check; none: not yet.
    pub report: Option<Report>,
    /// Which server answered last.
    pub identity: Option<Identity>,
    /// What is prepared in it, from the last audit.
    pub in_doubt: Vec<InDoubt>,
    /// When that was; none: not yet.
    pub audited: Option<SystemTime>,
}

impl Status {
    pub(super) fn new() -> Self {
        Self {
            condition: Condition::Starting,
            since: SystemTime::now(),
            waits: BTreeMap::new(),
            next_try: None,
            report: None,
            identity: None,
            in_doubt: Vec::new(),
            audited: None,
        }
    }

    /// For whom a local transaction may wait; nobody: it waits no longer. Says whether that is new.
    pub(super) fn wait(&mut self, id: TransactionId, holders: &str) -> bool {
        if holders.is_empty() {
            self.waits.remove(&id);
            return false;
        }
        let has_room = self.waits.len() < WAITS;
        (has_room || self.waits.contains_key(&id))
            && self.waits.insert(id, holders.to_owned()).is_none()
    }

    /// Takes another condition; says whether it is another kind of condition than before.
    pub(super) fn turn(&mut self, condition: Condition) -> bool {
        let turned = self.condition.as_str() != condition.as_str();
        if turned {
            self.since = SystemTime::now();
        }
        self.condition = condition;
        turned
    }
}
