//! What `handfast bench db` is asked for.

use serde::Serialize;

const HELP: &str = "Without URLs it starts a private PostgreSQL and a private MariaDB from the \
installed programs. With
URLs it uses those (both are needed, and the tables bench_* are made anew there). The ways of
doing the same are run by turns, in slices, so that what drifts drifts for all of them.

Examples:
  handfast bench db
  handfast bench db --concurrency 1,32 --seconds 10 --json";

/// Transfers between PostgreSQL and MariaDB, and local ones, beside the same SQL by hand
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// A PostgreSQL to use
    #[arg(long, value_name = "URL", requires = "mariadb")]
    #[serde(serialize_with = "shown")]
    pub(super) postgres: Option<String>,
    /// A MariaDB to use
    #[arg(long, value_name = "URL", requires = "postgres")]
    #[serde(serialize_with = "shown")]
    pub(super) mariadb: Option<String>,
    /// Transactions under way at once
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,32",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) concurrency: Vec<u16>,
    /// Seconds for each way at each concurrency, in slices of one
    #[arg(long, value_name = "S", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(super) seconds: u16,
    /// Connections of the server to each database [default: the server's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) pool: Option<u32>,
    /// The private MariaDB writes its binary log, synced at each commit
    #[arg(long, conflicts_with = "mariadb")]
    pub(super) binlog: bool,
}

/// A report is shown to others, and a URL may hold a password.
fn shown<S: serde::Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(handfast_server::config::shown_url).serialize(serializer)
}
