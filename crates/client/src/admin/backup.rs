//! Asks a server to copy its store while it goes on.

use handfast_core::ids::StoreId;
use handfast_wire::{Malformed, ids, v1};
use tokio::time::{Instant, timeout_at};

use crate::client::Handfast;
use crate::error::{Error, Fault};

/// A backup that is complete and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedUp {
    /// The store in it.
    pub store: StoreId,
    /// It holds everything up to this place of the journal, and with it everything that was
    /// acknowledged before the call.
    pub durable_lsn: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

impl Handfast {
    /// Copies the store, as it is now, into a directory on the server's machine: an absolute path
    /// of a directory that is empty or missing. `progress` hears bytes that were copied and bytes
    /// in all. Each step of it is bounded by the time limit, not the whole.
    ///
    /// Cancel safe: when it is dropped the server stops, and removes what it has copied.
    ///
    /// # Errors
    /// `invalid_argument`: not such a directory; `no_space`; a fault: there may be a backup if it
    /// was the last answer that was lost, which `handfast journal check` says.
    pub async fn backup(
        &self,
        directory: impl Into<String>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<BackedUp, Error> {
        let connection = self.connection();
        let mut stub = connection.server();
        let request = v1::BackupRequest { directory: directory.into() };
        let mut stream = connection.once(stub.backup(request)).await?;
        loop {
            let next = timeout_at(Instant::now() + connection.limit, stream.message()).await;
            let next = next.map_err(|_| Fault::TimedOut { after: connection.limit, sent: true })?;
            let next = next.map_err(|status| Error::from_status(&status, &connection.url, true))?;
            let Some(message) = next else {
                let problem = "the server ended the backup before it was complete".to_owned();
                return Err(Fault::Lost { problem }.into());
            };
            progress(message.done_bytes, message.total_bytes);
            if let Some(backup) = message.backup {
                return Ok(read(&backup, message.total_bytes)?);
            }
        }
    }
}

fn read(message: &v1::BackedUp, bytes: u64) -> Result<BackedUp, Malformed> {
    let store = ids::store_id("store_id", &message.store_id)?;
    Ok(BackedUp { store, durable_lsn: message.durable_lsn, bytes })
}
