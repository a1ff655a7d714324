//! Whether a pool leads to the database that is registered under a name.
//!
//! The database itself says so, when it is asked to write a marker: the statement names its table
//! and its server, and is refused anywhere else. What is here makes an answer of that refusal.

use handfast_core::refusal::Code;
use handfast_database::{BranchId, Home};
use handfast_wire::v1;
use sqlx::Pool;

use super::Participant;
use super::lease::Lease;
use crate::client::Handfast;
use crate::error::{Error as CallError, Refusal};

/// A branch as the server names it.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) branch: BranchId,
    /// None: the database has not answered since the server started, so nobody knows where it is.
    pub(super) home: Option<v1::Located>,
}

impl Issued {
    /// The marker's home, for a pool of this kind.
    pub(super) fn home<D: Participant>(&self, database: &str) -> Result<Option<Home>, Refusal> {
        let Some(said) = &self.home else { return Ok(None) };
        match Home::new(D::KIND, &said.table, &said.identity) {
            Some(home) => Ok(Some(home)),
            None => {
                let here = format!("is one of {}", D::KIND);
                Err(refusal(database, &here, &format!("{} on {}", said.table, said.identity)))
            }
        }
    }
}

/// The database has refused a marker, because the pool's connection leads to another one than the
/// server saw last: the refusal that names both. None: it was started again meanwhile, or the server
/// cannot say now; the same work may succeed.
pub(super) async fn wrong_database<D: Participant>(
    handfast: &Handfast,
    database: &str,
    here: &Home,
    belongs: &Home,
) -> Option<Refusal> {
    let now = match locate(handfast, database).await {
        Ok(said) => Home::new(D::KIND, &said.table, &said.identity),
        Err(error) => {
            tracing::debug!(%error, database, "where it is was not said anew");
            return None;
        }
    };
    let belongs = now.as_ref().unwrap_or(belongs);
    (!D::is_at_home(here, belongs)).then(|| refused(database, here, belongs))
}

/// Looks where a pool leads before it is used for work that the server is not asked about. What
/// cannot be found out is no reason to refuse it.
pub(super) async fn check<D: Participant>(
    handfast: &Handfast,
    database: &str,
    pool: &Pool<D>,
) -> Result<(), Refusal> {
    let said = match locate(handfast, database).await {
        Ok(said) => said,
        Err(error) => {
            tracing::debug!(%error, database, "where it is was not said");
            return Ok(());
        }
    };
    let found = async {
        let mut lease = Lease::new(pool).await?;
        let home = D::home(&mut lease).await?;
        lease.give_back();
        Ok::<_, sqlx::Error>(home)
    };
    let here = match found.await {
        Ok(here) => here,
        Err(error) => {
            tracing::debug!(%error, database, "where its pool leads was not said");
            return Ok(());
        }
    };
    match Home::new(D::KIND, &said.table, &said.identity) {
        Some(belongs) if D::is_at_home(&here, &belongs) => Ok(()),
        Some(belongs) => Err(refused(database, &here, &belongs)),
        None => {
            let belongs = format!("{} on the server {}", said.table, said.identity);
            Err(refusal(database, &format!("leads to {here}"), &belongs))
        }
    }
}

async fn locate(handfast: &Handfast, database: &str) -> Result<v1::Located, CallError> {
    let mut stub = handfast.connection().databases();
    let request = v1::LocateRequest { database: database.to_owned() };
    handfast.connection().once(stub.locate(request)).await
}

fn refused(database: &str, here: &Home, belongs: &Home) -> Refusal {
    refusal(database, &format!("leads to {here}"), &belongs.to_string())
}

fn refusal(database: &str, here: &str, belongs: &str) -> Refusal {
    let detail = format!("the pool {here}, and {database} is registered as {belongs}");
    Refusal::local(Code::WrongDatabase, detail)
}
