//! Readers: a small fixed pool of threads that read the journal, so that the pump never does.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel as channel;
use handfast_core::event::StoredEvent;
use handfast_core::ids::{Offset, TopicId, TransactionId};
use handfast_core::output::Fetch;
use handfast_journal::Reader;
use tokio::sync::oneshot;

use super::pump::ToPump;

/// Threads of the pool.
const READERS: usize = 2;

/// Something to read.
#[derive(Debug)]
pub(crate) enum ReadJob {
    /// For the core.
    Fetch(Fetch),
    /// For the core.
    Chain(TransactionId),
    /// For somebody who reads without a subscription.
    Events(Fetch, oneshot::Sender<(Vec<StoredEvent>, Offset)>),
    /// The first event at or after a time.
    OffsetAt(TopicId, u64, oneshot::Sender<Option<Offset>>),
}

/// Starts the pool. It ends when the sender of its jobs is dropped.
pub(crate) fn start(
    reader: &Reader,
    pump: &channel::Sender<ToPump>,
) -> io::Result<(channel::Sender<ReadJob>, Vec<JoinHandle<()>>)> {
    let (sender, jobs) = channel::unbounded::<ReadJob>();
    let mut threads = Vec::new();
    for n in 0..READERS {
        let (reader, pump, jobs) = (reader.clone(), pump.clone(), jobs.clone());
        let thread = thread::Builder::new()
            .name(format!("handfast-read-{n}"))
            .spawn(move || jobs.iter().for_each(|job| read(&reader, &pump, job)))?;
        threads.push(thread);
    }
    Ok((sender, threads))
}

fn read(reader: &Reader, pump: &channel::Sender<ToPump>, job: ReadJob) {
    // A reader that cannot read what was acknowledged stops the node: going on would mean to
    // answer by guessing.
    let fault = |error: handfast_journal::Error| {
        let _ = pump.send(ToPump::Fault(error.to_string()));
    };
    match job {
        ReadJob::Fetch(fetch) => match reader.fetch(&fetch) {
            Ok((events, next)) => {
                let _ = pump.send(ToPump::Fetched { fetch: fetch.fetch, events, next });
            }
            Err(error) => fault(error),
        },
        ReadJob::Chain(id) => match reader.chain(id) {
            Ok(chain) => {
                let _ = pump.send(ToPump::Chain { id, chain });
            }
            Err(error) => fault(error),
        },
        // Whoever asked may have gone away; then nobody wants the answer.
        ReadJob::Events(fetch, answer) => match reader.fetch(&fetch) {
            Ok(found) => drop(answer.send(found)),
            Err(error) => fault(error),
        },
        ReadJob::OffsetAt(topic, wall_ms, answer) => match reader.offset_at(topic, wall_ms) {
            Ok(found) => drop(answer.send(found)),
            Err(error) => fault(error),
        },
    }
}
