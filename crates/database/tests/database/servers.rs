//! The shared servers, and ids that no other test uses.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use handfast_core::ids::{Name, StoreId, TransactionId};
use handfast_database::BranchId;
use handfast_database::private::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};

pub(crate) const STORE: StoreId = StoreId(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);

/// Longer than any test may take.
pub(crate) const LONG: Duration = Duration::from_secs(120);

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

/// Asks again until it holds, for at most a minute, yielding in between.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let mut pauses = 0;
    while !holds().await {
        assert!(pauses < 6_000, "not within a minute: {what}");
        pauses += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) static POSTGRES: LazyLock<Postgres> =
    LazyLock::new(|| private_postgres(&PostgresOptions::default()));

pub(crate) static MARIADB: LazyLock<MariaDb> =
    LazyLock::new(|| private_mariadb(&MariaDbOptions::default()));

pub(crate) static MARIADB_BINLOG: LazyLock<MariaDb> =
    LazyLock::new(|| private_mariadb(&MariaDbOptions::default().with_binlog()));

/// Another version, whose deadlocks end a transaction otherwise (MDEV-36959): where
/// `fetch-mariadb-11.4.5.sh` has put it. None: it is not there.
static MARIADB_11: LazyLock<Option<MariaDb>> = LazyLock::new(|| {
    let home = PathBuf::from(std::env::var_os("HANDFAST_MARIADB_11")?);
    Some(private_mariadb(&MariaDbOptions::default().with_home(&home)))
});

/// Servers of all versions that are there.
#[expect(
    clippy::print_stderr,
    reason = "who reads the test's output should know what was not tried"
)]
pub(crate) fn mariadbs() -> Vec<&'static MariaDb> {
    let newer = MARIADB_11.as_ref();
    if newer.is_none() {
        eprintln!("not tried on MariaDB 11.4.5: HANDFAST_MARIADB_11 does not say where it is");
    }
    std::iter::once(&*MARIADB).chain(newer).collect()
}

pub(crate) fn private_postgres(options: &PostgresOptions) -> Postgres {
    let options = options.clone().with_directory_removed();
    Postgres::start(&directory("postgres"), &options).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn private_mariadb(options: &MariaDbOptions) -> MariaDb {
    let options = options.clone().with_directory_removed();
    MariaDb::start(&directory("mariadb"), &options).unwrap_or_else(|error| panic!("{error}"))
}
