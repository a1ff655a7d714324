//! What the server says about itself while the demo runs. A server that was killed says nothing,
//! which is shown as that and never as zero.

use std::time::Duration;

use handfast::{Error, Handfast, State};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::ledger::{SUBSCRIPTION, TOPIC};
use super::plan::Side;
use crate::harness::Problem;

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(150);
/// A question that is not answered by then is not answered.
const LIMIT: Duration = Duration::from_millis(400);
/// The most transactions that are counted.
const MOST: u32 = 1_000;
/// Everybody has to be there within this time.
const ATTACHING: Duration = Duration::from_secs(60);

/// Open transactions by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) preparing: usize,
    pub(super) committing: usize,
    /// Failed, and not everybody has been told yet.
    pub(super) failed: usize,
}

impl Open {
    pub(super) fn all(self) -> usize {
        self.preparing + self.committing + self.failed
    }
}

/// Connects to a server that is there, or will be in a moment.
pub(super) async fn connect(url: String) -> Result<Handfast, Error> {
    Handfast::builder(url).with_time_limit(LIMIT).with_wait_for_server(ATTACHING).connect().await
}

/// Counts open transactions; none: the server does not answer.
pub(super) async fn open(hf: &Handfast) -> Option<Open> {
    let mut open = Open::default();
    for transaction in hf.transactions(None, MOST).await.ok()? {
        match transaction.state {
            State::Preparing => open.preparing += 1,
            State::Committing => open.committing += 1,
            State::Failed => open.failed += 1,
            State::Committed => {}
        }
    }
    Some(open)
}

/// Events that the subscriber has not acknowledged; none: the server does not answer.
pub(super) async fn backlog(hf: &Handfast) -> Option<u64> {
    hf.subscription(SUBSCRIPTION).await.ok().map(|subscription| subscription.backlog)
}

/// Keeps counting, until the task is ended.
pub(super) fn keep_counting(hf: Handfast) -> (watch::Receiver<Option<Open>>, JoinHandle<()>) {
    let (tell, told) = watch::channel(None);
    let task = tokio::spawn(async move {
        loop {
            let open = open(&hf).await;
            if tell.send(open).is_err() {
                return;
            }
            sleep(PAUSE).await;
        }
    });
    (told, task)
}

/// Waits until both services have this many instances and the subscriber is there.
pub(super) async fn everybody(hf: &Handfast, instances: usize) -> Result<(), Problem> {
    let give_up = Instant::now() + ATTACHING;
    loop {
        let participants = hf.participants().await.unwrap_or_default();
        let is_full = |side: Side| {
            participants
                .iter()
                .any(|p| p.name.as_str() == side.name() && p.instances.len() >= instances)
        };
        let subscription = hf.subscription(SUBSCRIPTION).await;
        let is_read = subscription.is_ok_and(|subscription| subscription.subscribers > 0);
        if is_read && Side::BOTH.into_iter().all(is_full) {
            return Ok(());
        }
        if Instant::now() > give_up {
            let problem = format!(
                "not everybody has come within {ATTACHING:?}: {instances} instances each of east \
                 and west, and a subscriber of {TOPIC}"
            );
            return Err(Problem::Part(problem));
        }
        sleep(PAUSE).await;
    }
}
