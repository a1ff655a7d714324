//! The shared servers, and ids that no other test uses.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use handfast_core::ids::{Name, StoreId, TransactionId};
use handfast_database::BranchId;
use handfast_database::private::{Postgres, PostgresOptions};

pub(crate) const STORE: StoreId = StoreId(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A number that no other test of this process has.
pub(crate) fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A branch that no other test of this process has.
pub(crate) fn branch() -> BranchId {
    let name = Name::new("accounts").unwrap();
    BranchId::new(TransactionId(u128::from(next()) << 32), STORE, &name)
}

/// A directory for a server that removes it when it ends.
pub(crate) fn directory(kind: &str) -> PathBuf {
    let name = format!("handfast-{kind}-{}-{}", std::process::id(), next());
    std::env::temp_dir().join(name)
}

pub(crate) static POSTGRES: LazyLock<Postgres> =
    LazyLock::new(|| private_postgres(&PostgresOptions::default()));

pub(crate) fn private_postgres(options: &PostgresOptions) -> Postgres {
    let options = options.clone().with_directory_removed();
    Postgres::start(&directory("postgres"), &options).unwrap_or_else(|error| panic!("{error}"))
}
