//! Refusals that several steps give, each sentence once.

use alloc::format;
use alloc::string::String;

use crate::ids::{Name, TransactionId};
use crate::record::Reason;
use crate::refusal::{Code, Refusal};

/// Nothing is known of it.
pub(super) fn unknown(id: TransactionId) -> Refusal {
    let detail = format!("the log has no transaction {id}, or no longer");
    Refusal::new(Code::UnknownTransaction, detail)
}

/// It has failed, and takes no more.
pub(super) fn failed(id: TransactionId, reason: &Reason) -> Refusal {
    let by = reason.participant.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
    let detail = if reason.detail.is_empty() { "" } else { ": " };
    let code = reason.code.as_str();
    Refusal::new(Code::Closed, format!("{id} has failed ({code}{by}{detail}{})", reason.detail))
}

/// An operator may not do this yet.
pub(super) fn undecided(id: TransactionId) -> Refusal {
    Refusal::new(Code::Pending, format!("{id} is not decided yet: it can be aborted"))
}

/// Nor this any more.
pub(super) fn decided(id: TransactionId) -> Refusal {
    Refusal::new(Code::Closed, format!("{id} is decided, and nobody takes that back"))
}

/// L8.
pub(super) fn resolving(id: TransactionId) -> Refusal {
    let detail = format!("{id} is being looked up in its database; ask again");
    Refusal::new(Code::Pending, detail)
}

/// L9.
pub(super) fn marker_not_written(id: TransactionId) -> Refusal {
    let detail = format!("{id} has failed: its marker cannot have been written");
    Refusal::new(Code::MarkerNotWritten, detail)
}

/// Names, for sentences.
pub(super) fn names<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    let mut text = String::new();
    for name in names {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(name.as_str());
    }
    text
}
