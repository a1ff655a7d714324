//! Branches that a logical subscription has prepared here, under names of its own.
//!
//! Its publisher ends them. Who ends one of them here, either way, stops the subscription for ever:
//! it looks for the branch (42704) again and again. So the owner is named, and never "whoever".

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use crate::errors::postgres::{code, fault};
use crate::{Fault, Prepared};

/// No right to read what is asked for.
const NOT_ALLOWED: &str = "42501";

/// Whether its name is one that a subscription gives: `pg_gid_<oid of the subscription>_<xid>`.
pub(super) fn may_own(prepared: &Prepared) -> bool {
    prepared.foreign.as_deref().and_then(subscription).is_some()
}

/// Says whose they are. One whose subscription is dropped belongs to nobody any more.
pub(super) async fn name_owners(
    connection: &mut PgConnection,
    list: &mut [Prepared],
) -> Result<(), Fault> {
    let rows = sqlx::query("SELECT oid::bigint, subname::text FROM pg_subscription")
        .fetch_all(connection)
        .await;
    let known = match rows {
        Ok(rows) => {
            let named = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
            let named: Result<HashMap<i64, String>, sqlx::Error> = rows.iter().map(named).collect();
            Some(named.map_err(|error| fault(&error))?)
        }
        Err(error) if code(&error) == Some(NOT_ALLOWED) => None,
        Err(error) => return Err(fault(&error)),
    };
    for prepared in list {
        let Some(oid) = prepared.foreign.as_deref().and_then(subscription) else { continue };
        prepared.belongs_to = match &known {
            Some(known) => {
                known.get(&i64::from(oid)).map(|name| format!("subscription {name} (oid {oid})"))
            }
            None => Some(format!("a subscription (oid {oid}), unless that was dropped")),
        };
    }
    Ok(())
}

/// Whether a branch is prepared in this database that may be a subscription's: of a transaction that
/// was prepared elsewhere, under a name that does not say which.
pub(super) async fn any(connection: &mut PgConnection) -> Result<bool, Fault> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database() \
         AND gid ~ '^pg_gid_[0-9]+_[0-9]+$')",
    )
    .fetch_one(connection)
    .await
    .map_err(|error| fault(&error))
}

fn subscription(gid: &str) -> Option<u32> {
    let (oid, xid) = gid.strip_prefix("pg_gid_")?.split_once('_')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(oid) || !is_number(xid) {
        return None;
    }
    oid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriptions_name_is_told_from_others() {
        assert_eq!(subscription("pg_gid_16397_727"), Some(16_397));
        let others = ["pg_gid_16397", "pg_gid__727", "pg_gid_1_x", "pg_gid_-1_2", "my_pg_gid_1_2"];
        for gid in others {
            assert_eq!(subscription(gid), None, "{gid}");
        }
    }
}
