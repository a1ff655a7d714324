//! `handfast backup DIR`: a copy of the store of a server that goes on meanwhile.

use std::path::Path;

use handfast_journal::Progress;

use super::output::size;
use super::progress::Bar;
use super::{Failure, remote};

const HELP: &str = "The server writes DIR on its own machine: an absolute path of a directory that is empty or missing,
at best on another disk. It holds everything that was acknowledged before the command was given, and
nothing waits for it. What is there without this command having said so is not a backup.

Examples:
  handfast backup /backups/monday
  handfast journal check /backups/monday
  handfast restore /backups/monday --data-dir /var/lib/handfast";

/// Copy the store of a running server
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: remote::Args,
    /// Where to, on the server's machine: an absolute path, empty or missing
    #[arg(value_name = "DIR", value_parser = absolute)]
    dir: String,
}

fn absolute(text: &str) -> Result<String, String> {
    if Path::new(text).is_absolute() {
        return Ok(text.to_owned());
    }
    Err("expected an absolute path, because the server's directory is not this one".to_owned())
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    remote::run(&args.remote, async |server| {
        let mut bar = Bar::new("backing up", server.out.is_quiet);
        let asking = server.handfast.backup(args.dir.as_str(), |done, total| {
            bar.show(Progress { done, total });
        });
        let backup = asking.await;
        drop(bar);
        let backup = backup.map_err(remote::failure)?;
        let document = serde_json::json!({
            "directory": args.dir,
            "store": backup.store.to_string(),
            "durable_lsn": backup.durable_lsn,
            "bytes": backup.bytes,
        });
        server.out.result(&document, || {
            format!(
                "Backed up {} to {}, with everything up to record {}.",
                size(backup.bytes),
                args.dir,
                backup.durable_lsn
            )
        })
    })
}
