//! `handfast restore BACKUP --data-dir DIR`: makes a store of a backup, without a server.
//!
//! The store is marked as restored, because its databases may have gone on since: the server
//! leaves each of them alone until an operator adopts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use handfast_core::ids::{OpeningId, StoreId};
use handfast_journal::files::Directory;
use handfast_journal::{Error, Journal, Options, Report, Snapshot, check};
use handfast_server::databases;

use super::output::{Output, size};
use super::progress::Bar;
use super::{Exit, Failure, store};

const HELP: &str =
    "BACKUP is checked, copied into DIR, which has to be empty or missing, and checked there again.
What happened after the backup is gone: committed transactions, events, offsets of subscriptions.
Databases may know more than the restored store does. The server resolves nothing in them until
each is adopted (`handfast database adopt NAME`), for which they have to be of the same moment.
The store that the backup was made of must not run beside it.

Examples:
  handfast restore /backups/monday --data-dir /var/lib/handfast
  handfast serve --data-dir /var/lib/handfast";

/// Make a store of a backup
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The backup
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// Directory of the store to be: empty or missing
    #[arg(long, value_name = "DIR", env = "HANDFAST_DATA_DIR")]
    data_dir: PathBuf,
    /// JSON for programs: the result on stdout, errors on stderr
    #[arg(long)]
    json: bool,
    /// No notes and no progress, only results and errors
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let out = Output { is_json: args.json, is_quiet: args.quiet };
    restore(args, out).map_err(|failure| failure.with_json(args.json))
}

fn restore(args: &Args, out: Output) -> Result<(), Failure> {
    let backup = Directory::open_existing(&args.backup).map_err(|error| {
        Failure::new(Exit::Store, format!("{}: {error}", args.backup.display()))
            .with_hint("name the directory of a backup")
    })?;
    checked(&backup, &args.backup, "checking the backup", out)?;
    let bytes = copied(&backup, args, out)?;
    let restored = Directory::open_existing(&args.data_dir).map_err(|error| {
        Failure::new(Exit::Store, format!("{}: {error}", args.data_dir.display()))
    })?;
    let report = checked(&restored, &args.data_dir, "checking the copy", out)?;
    go_on(restored, &args.data_dir)?;
    let document = serde_json::json!({
        "data_dir": args.data_dir.to_string_lossy(),
        "source": args.backup.to_string_lossy(),
        "store": report.store.to_string(),
        "records": report.records,
        "last": report.last.0,
        "bytes": bytes,
    });
    out.result(&document, || {
        format!(
            "Restored {} to {}, with everything up to record {}.",
            size(bytes),
            args.data_dir.display(),
            report.last
        )
    })?;
    out.note(
        "Start it with `handfast serve --data-dir DIR`; its databases are left alone until \
         `handfast database adopt NAME`.",
    );
    Ok(())
}

/// Epochs that are left out: far more than the store may have had after the backup was made.
const SKIPPED_EPOCHS: u32 = 4_096;

/// Opens the copy once, in an epoch that the store itself has not come to. Services compare epochs
/// to tell what began later, and would take all that begins in an earlier one for late repeats.
fn go_on(restored: Directory, dir: &Path) -> Result<(), Failure> {
    let options = Options::default().with_skipped_epochs(SKIPPED_EPOCHS);
    // No new time is made here, and no new store.
    let opened = Journal::open(
        Arc::new(restored),
        options,
        &mut |newest_ms| newest_ms,
        StoreId::default(),
        OpeningId(uuid::Uuid::new_v4().as_u128()),
        &mut |_| {},
        &mut |_, _| {},
    );
    opened.map_err(|error| store::refused(dir, &error))?;
    Ok(())
}

/// Reads a whole store; damage is a failure.
fn checked(
    files: &Directory,
    dir: &Path,
    doing: &'static str,
    out: Output,
) -> Result<Report, Failure> {
    let mut bar = Bar::new(doing, out.is_quiet);
    let report = check(files, &mut |progress| bar.show(progress));
    drop(bar);
    let report = report.map_err(|error| store::refused(dir, &error))?;
    match report.damage.first() {
        None => Ok(report),
        Some(damage) => {
            let dir = dir.display();
            Err(Failure::new(Exit::Store, format!("{dir} is damaged: {damage}"))
                .with_code("damaged")
                .with_hint(format!("see all of it with `handfast journal check {dir}`")))
        }
    }
}

fn copied(backup: &Directory, args: &Args, out: Output) -> Result<u64, Failure> {
    let data_dir = &args.data_dir;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("{}: {error}", data_dir.display()))
    };
    let snapshot = Snapshot::of(backup).map_err(|error| store::refused(&args.backup, &error))?;
    let to = Directory::open(data_dir).map_err(|error| failed(&error))?;
    let source = args.backup.canonicalize().unwrap_or_else(|_| args.backup.clone());
    let (mark_file, mark) = databases::restored_mark(&source);
    let mut bar = Bar::new("copying", out.is_quiet);
    let done = snapshot.copy_to(&to, &[(mark_file, &mark)], &mut |progress| {
        bar.show(progress);
        true
    });
    drop(bar);
    match done {
        Ok(_) => Ok(snapshot.bytes()),
        Err(error @ Error::NotEmpty { .. }) => Err(failed(&error)
            .with_code("not_empty")
            .with_hint("name an empty directory, or one that does not exist, with --data-dir")),
        Err(error) => Err(failed(&error)),
    }
}
