//! The texts of the statements, and what rows mean.

use handfast_core::ids::{Began, Name, StateId, StoreId, TransactionId};

use super::error::Error;
use super::{Dialect, LAYOUT};
use crate::service::handler::No;
use crate::service::store::{Branch, OutcomeKey, Recorded};

const PREPARED: i64 = 1;
const COMMITTED: i64 = 2;
const ABORTED: i64 = 3;

/// The columns that [`branch`] reads.
const BRANCH: &str = "state, work, reason, retryable, began, at_unix_ms";

/// Which rows are this state's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// A name's alphabet has nothing that ends a literal.
    pub(super) service: Name,
    pub(super) state: StateId,
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(bytes.iter().flat_map(digits));
    text
}

pub(super) fn make_state<D: Dialect>(service: &Name, state: StateId) -> String {
    let [states, _, _] = D::TABLES;
    format!(
        "INSERT INTO {states} (service, state_id, layout) VALUES ('{service}', {}, {LAYOUT}) {}",
        D::bytes(&state.0.to_be_bytes()),
        D::UNLESS_THERE
    )
}

pub(super) fn read_state<D: Dialect>(service: &Name) -> String {
    let [states, _, _] = D::TABLES;
    format!("SELECT state_id, layout FROM {states} WHERE service = '{service}'")
}

/// Finds nothing, and fails if the tables have other columns.
pub(super) fn look<D: Dialect>() -> String {
    let [_, branches, horizons] = D::TABLES;
    format!(
        "SELECT {BRANCH} FROM {branches} WHERE 1 = 0 UNION ALL \
         SELECT 0, began, began, 0, began, 0 FROM {horizons} WHERE 1 = 0"
    )
}

impl Key {
    /// Waits for the turn and takes it. It is a write, so that every step, also one that only
    /// reads, makes durable what it has read.
    pub(super) fn turn<D: Dialect>(&self) -> String {
        let [states, _, _] = D::TABLES;
        format!(
            "UPDATE {states} SET steps = steps + 1 WHERE service = '{}' AND state_id = {}",
            self.service,
            D::bytes(&self.state.0.to_be_bytes())
        )
    }

    pub(super) fn load<D: Dialect>(&self, id: TransactionId) -> String {
        let [_, branches, _] = D::TABLES;
        format!(
            "SELECT {BRANCH} FROM {branches} WHERE service = '{}' AND transaction_id = {}",
            self.service,
            bytes::<D>(id)
        )
    }

    /// Records and removes branches, in as few statements as there are kinds of them.
    pub(super) fn write<'a, D: Dialect>(
        &self,
        pending: impl Iterator<Item = (&'a TransactionId, &'a Option<Branch>)>,
    ) -> Vec<String> {
        let ([_, branches, _], service) = (D::TABLES, &self.service);
        let (mut saved, mut forgotten) = (Vec::new(), Vec::new());
        for (id, branch) in pending {
            match branch {
                Some(branch) => saved.push(values::<D>(service, *id, branch)),
                None => forgotten.push(bytes::<D>(*id)),
            }
        }
        let mut statements = Vec::new();
        if !saved.is_empty() {
            statements.push(format!(
                "INSERT INTO {branches} (service, transaction_id, {BRANCH}) VALUES {} {}",
                saved.join(", "),
                D::IN_PLACE
            ));
        }
        if !forgotten.is_empty() {
            statements.push(format!(
                "DELETE FROM {branches} WHERE service = '{service}' AND transaction_id IN ({})",
                forgotten.join(", ")
            ));
        }
        statements
    }

    pub(super) fn horizon<D: Dialect>(&self, store: StoreId) -> String {
        let [_, _, horizons] = D::TABLES;
        format!(
            "SELECT began FROM {horizons} WHERE service = '{}' AND store_id = {}",
            self.service,
            D::bytes(&store.0.to_be_bytes())
        )
    }

    pub(super) fn raise_horizon<D: Dialect>(&self, began: Began) -> String {
        let [_, _, horizons] = D::TABLES;
        format!(
            "INSERT INTO {horizons} (service, store_id, began) VALUES ('{}', {}, {}) {}",
            self.service,
            D::bytes(&began.store.0.to_be_bytes()),
            D::bytes(&began.to_bytes()),
            D::RAISED
        )
    }

    pub(super) fn prepared<D: Dialect>(&self, after: Option<TransactionId>, limit: u32) -> String {
        let [_, branches, _] = D::TABLES;
        let after =
            after.map_or(String::new(), |id| format!("AND transaction_id > {} ", bytes::<D>(id)));
        format!(
            "SELECT transaction_id FROM {branches} WHERE service = '{}' AND state = {PREPARED} \
             {after}ORDER BY transaction_id LIMIT {limit}",
            self.service
        )
    }

    pub(super) fn outcomes<D: Dialect>(
        &self,
        before_unix_ms: u64,
        after: Option<OutcomeKey>,
        limit: u32,
    ) -> String {
        let ([_, branches, _], before) = (D::TABLES, number(before_unix_ms));
        let after = after.map_or(String::new(), |key| {
            let (at, id) = (number(key.at_unix_ms), bytes::<D>(key.id));
            // The first half is what an index is good for.
            format!("AND at_unix_ms >= {at} AND (at_unix_ms > {at} OR transaction_id > {id}) ")
        });
        format!(
            "SELECT at_unix_ms, transaction_id, began FROM {branches} WHERE service = '{}' \
             AND state <> {PREPARED} AND at_unix_ms < {before} {after}\
             ORDER BY at_unix_ms, transaction_id LIMIT {limit}",
            self.service
        )
    }
}

fn values<D: Dialect>(service: &Name, id: TransactionId, branch: &Branch) -> String {
    let null = || "NULL".to_owned();
    let (state, work, no) = match &branch.recorded {
        Recorded::Prepared { work } => (PREPARED, D::bytes(work), None),
        Recorded::Committed => (COMMITTED, null(), None),
        Recorded::Aborted { no } => (ABORTED, null(), no.as_ref()),
    };
    let reason = no.map_or_else(null, |no| D::bytes(no.reason.as_bytes()));
    let began = branch.began.map_or_else(null, |began| D::bytes(&began.to_bytes()));
    let retryable = no.map_or_else(null, |no| i64::from(no.retryable).to_string());
    let (id, at) = (bytes::<D>(id), number(branch.at_unix_ms));
    format!("('{service}', {id}, {state}, {work}, {reason}, {retryable}, {began}, {at})")
}

pub(super) fn branch<D: Dialect>(row: &D::Row) -> Result<Branch, Error> {
    let no = match D::blob(row, 2)? {
        None => None,
        Some(reason) => {
            let reason = String::from_utf8(reason);
            let reason = reason.map_err(|_| Error::Malformed("a reason is no text"))?;
            Some(No { reason, retryable: required(D::number(row, 3)?)? != 0 })
        }
    };
    let recorded = match required(D::number(row, 0)?)? {
        PREPARED => Recorded::Prepared { work: required(D::blob(row, 1)?)? },
        COMMITTED => Recorded::Committed,
        ABORTED => Recorded::Aborted { no },
        _ => return Err(Error::Malformed("no such state")),
    };
    let at_unix_ms = unix_ms(required(D::number(row, 5)?)?);
    Ok(Branch { recorded, began: began::<D>(row, 4)?, at_unix_ms })
}

pub(super) fn began<D: Dialect>(row: &D::Row, column: usize) -> Result<Option<Began>, Error> {
    let Some(bytes) = D::blob(row, column)? else { return Ok(None) };
    let began = Began::from_bytes(&bytes).ok_or(Error::Malformed("a place has not 28 bytes"))?;
    Ok(Some(began))
}

pub(super) fn id<D: Dialect>(row: &D::Row, column: usize) -> Result<TransactionId, Error> {
    sixteen::<D>(row, column).map(TransactionId)
}

/// A column of sixteen bytes.
pub(super) fn sixteen<D: Dialect>(row: &D::Row, column: usize) -> Result<u128, Error> {
    let bytes = required(D::blob(row, column)?)?;
    let bytes = bytes.try_into().map_err(|_| Error::Malformed("an id has not 16 bytes"))?;
    Ok(u128::from_be_bytes(bytes))
}

pub(super) fn required<T>(value: Option<T>) -> Result<T, Error> {
    value.ok_or(Error::Malformed("a value is missing"))
}

fn bytes<D: Dialect>(id: TransactionId) -> String {
    D::bytes(&id.0.to_be_bytes())
}

/// Times beyond the year 292 million are the same to us.
fn number(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

pub(super) fn unix_ms(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hexadecimal(&[]), "");
        assert_eq!(hexadecimal(&[0, 1, 0x9a, 0xff]), "00019aff");
    }
}
