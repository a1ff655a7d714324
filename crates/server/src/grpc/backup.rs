//! Server.Backup: the store as it is, copied into a directory of this machine.
//!
//! The node says what is durable and goes on; a thread of its own reads and writes. When nobody
//! listens any more it stops, and removes what it has copied.

use std::path::{Path, PathBuf};

use handfast_core::refusal::{Code, Refusal};
use handfast_journal::files::Directory;
use handfast_journal::{Error, Progress, Snapshot};
use handfast_wire::edge::Edge;
use handfast_wire::{ids, status, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::stopped;
use super::stream::Frames;
use crate::node::Node;

/// Messages that wait for a slow client; progress beyond that is left out.
const QUEUE: usize = 4;

type Told = Result<v1::BackupProgress, Status>;

/// Starts a backup.
pub(super) async fn start(
    node: &Node,
    request: v1::BackupRequest,
) -> Result<Frames<v1::BackupProgress>, Status> {
    let directory = checked(request.directory, node.info().data_dir.as_deref())?;
    let snapshot = node.snapshot().await.map_err(stopped)?;
    let snapshot = snapshot.map_err(|error| Edge::Failed.status(error))?;
    let (tell, told) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let last = copy(&snapshot, &directory, &tell);
        // Nobody may be there to hear it.
        let _ = tell.blocking_send(last);
    });
    Ok(Box::pin(ReceiverStream::new(told)))
}

/// An absolute path outside the store.
fn checked(directory: String, data_dir: Option<&Path>) -> Result<PathBuf, Status> {
    let directory = PathBuf::from(directory);
    if !directory.is_absolute() {
        return Err(invalid("`directory`: expected an absolute path on the server's machine"));
    }
    // What is not there yet lies in the nearest one that is.
    let nearest = directory.ancestors().find_map(|above| above.canonicalize().ok());
    let store = data_dir.and_then(|store| store.canonicalize().ok());
    match (nearest, store) {
        (Some(nearest), Some(store)) if nearest.starts_with(&store) => {
            Err(invalid("`directory`: it is inside the data directory"))
        }
        _ => Ok(directory),
    }
}

fn invalid(detail: impl Into<String>) -> Status {
    status::status(Refusal::new(Code::InvalidArgument, detail.into()))
}

fn copy(snapshot: &Snapshot, directory: &Path, tell: &mpsc::Sender<Told>) -> Told {
    let shown = directory.display();
    let failed = |error: &dyn std::fmt::Display| Edge::Failed.status(format!("{shown}: {error}"));
    let files = Directory::open(directory).map_err(|error| failed(&error))?;
    let mut progress = |Progress { done, total }| {
        let message = v1::BackupProgress { done_bytes: done, total_bytes: total, backup: None };
        // One that does not fit is followed by another.
        let _ = tell.try_send(Ok(message));
        !tell.is_closed()
    };
    match snapshot.copy_to(&files, &[], &mut progress) {
        Ok(true) => {
            let bytes = snapshot.bytes();
            tracing::info!(directory = %shown, bytes, "backed up");
            let backup = v1::BackedUp {
                store_id: ids::store_bytes(snapshot.store()),
                durable_lsn: snapshot.last().map_or(0, |last| last.0),
            };
            Ok(v1::BackupProgress { done_bytes: bytes, total_bytes: bytes, backup: Some(backup) })
        }
        Ok(false) => Err(Edge::Cancelled.status("nobody listens any more")),
        Err(Error::NotEmpty { name }) => {
            Err(invalid(format!("`directory`: it is not empty, it holds {name:?}")))
        }
        Err(error @ Error::NoSpace { .. }) => {
            Err(status::status(Refusal::new(Code::NoSpace, format!("{shown}: {error}"))))
        }
        Err(error) => Err(failed(&error)),
    }
}
