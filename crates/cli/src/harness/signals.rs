//! Signals end what is under way, and whatever was started ends with the values that hold it.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::Problem;

/// Does the work, until it is done or a signal comes: then the work is dropped where it stands.
///
/// # Errors
/// The work's, or [`Problem::Interrupted`].
pub(crate) async fn or_interrupted<T>(
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::select! {
        result = work => result,
        signalled = interrupted() => Err(signalled.err().map_or(Problem::Interrupted, Into::into)),
    }
}

async fn interrupted() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
