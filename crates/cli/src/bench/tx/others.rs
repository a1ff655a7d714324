//! Transactions that are open while others are measured: begun, and then nobody asks for anything.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use handfast::{BeginOptions, Handfast, OpenTransaction};

use crate::harness::Problem;

/// Longer than any run, and the most that there is.
const DEADLINE: Duration = Duration::from_secs(3_600);
/// Calls at once.
const AT_ONCE: usize = 512;

/// The transactions, until they are aborted.
pub(super) struct Others(Vec<OpenTransaction>);

impl Others {
    pub(super) async fn begin(hf: &Handfast, number: u32) -> Result<Self, Problem> {
        let begin = |_| hf.begin_with(BeginOptions::new().with_deadline(DEADLINE));
        let open = stream::iter(0..number).map(begin).buffer_unordered(AT_ONCE);
        Ok(Self(open.try_collect().await?))
    }

    pub(super) async fn end(self) -> Result<(), Problem> {
        let abort = |tx: OpenTransaction| tx.abort("it was only there");
        let aborted = stream::iter(self.0).map(abort).buffer_unordered(AT_ONCE);
        aborted.try_for_each(|_| async { Ok(()) }).await?;
        Ok(())
    }
}
