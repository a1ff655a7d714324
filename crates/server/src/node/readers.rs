//! Readers: a small fixed pool of threads that read the journal, so that the pump never does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel as channel;
use handfast_core::event::StoredEvent;
use handfast_core::ids::{Offset, TopicId, TransactionId};
use handfast_core::output::Fetch;
use handfast_core::refusal::{Code, Refusal};
use handfast_journal::{Damage, Error, Reader};
use tokio::sync::oneshot;

use super::ended::EndedJob;
use super::pump::ToPump;

/// Threads of the pool.
const READERS: usize = 2;

/// So many bytes are checked at a time,
const CHECK_BYTES: u64 = 1 << 20;
/// and so long is the pause after them: 20 MiB a second at most.
const CHECK_PAUSE: Duration = Duration::from_millis(50);

/// Something to read.
#[derive(Debug)]
pub(crate) enum ReadJob {
    /// For the core.
    Fetch(Fetch),
    /// For the core.
    Chain(TransactionId),
    /// For somebody who reads without a subscription.
    Events(Fetch, oneshot::Sender<Found<(Vec<StoredEvent>, Offset)>>),
    /// The first event at or after a time.
    OffsetAt(TopicId, u64, oneshot::Sender<Found<Option<Offset>>>),
    /// Transactions that have ended.
    Ended(EndedJob),
}

/// What was read, or that it is in a damaged place.
pub(crate) type Found<T> = Result<T, Refusal>;

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
    // Damage of a sealed segment is told to whoever wanted to read there: everybody else goes on, and
    // nothing is guessed. In the newest segment, from which the next start begins, it is a fault.
    let fault = |error: Error| {
        let _ = pump.send(ToPump::Fault(error.to_string()));
    };
    match job {
        ReadJob::Fetch(fetch) => match reader.fetch(&fetch) {
            Ok((events, next)) => {
                let _ = pump.send(ToPump::Fetched { fetch: fetch.fetch, events, next });
            }
            Err(Error::Unreadable(damage)) => {
                let detail = told(&damage);
                let _ = pump.send(ToPump::Unreadable { fetch: fetch.fetch, detail });
            }
            Err(error) => fault(error),
        },
        ReadJob::Chain(id) => match reader.chain(id) {
            Ok(chain) => {
                let _ = pump.send(ToPump::Chain { id, chain });
            }
            Err(Error::Unreadable(damage)) => {
                let _ = pump.send(ToPump::ChainUnreadable { id, detail: told(&damage) });
            }
            Err(error) => fault(error),
        },
        // Whoever asked may have gone away; then nobody wants the answer.
        ReadJob::Events(fetch, answer) => match reader.fetch(&fetch) {
            Ok(found) => drop(answer.send(Ok(found))),
            Err(Error::Unreadable(damage)) => drop(answer.send(Err(refusal(&damage)))),
            Err(error) => fault(error),
        },
        ReadJob::OffsetAt(topic, wall_ms, answer) => match reader.offset_at(topic, wall_ms) {
            Ok(found) => drop(answer.send(Ok(found))),
            Err(Error::Unreadable(damage)) => drop(answer.send(Err(refusal(&damage)))),
            Err(error) => fault(error),
        },
        ReadJob::Ended(job) => match job.find(reader) {
            Ok(found) => drop(job.answer.send(Ok(found))),
            Err(Error::Unreadable(damage)) => drop(job.answer.send(Err(refusal(&damage)))),
            Err(error) => fault(error),
        },
    }
}

fn refusal(damage: &Damage) -> Refusal {
    Refusal::new(Code::Damaged, told(damage))
}

/// For the log too: whoever reads there may be a program that says nothing to anybody.
fn told(damage: &Damage) -> String {
    tracing::error!(segment = damage.segment, "the log is damaged: {damage}");
    damage.to_string()
}

/// Reads all sealed segments once, beside everything else and slower than the disk is, so that
/// damage is known before somebody needs what is there. It ends when `stop` is set.
pub(crate) fn start_check(reader: Reader, stop: Arc<AtomicBool>) -> io::Result<()> {
    let thread = thread::Builder::new().name("handfast-check".into());
    thread.spawn(move || {
        let mut ahead = 0;
        let done = reader.check(&mut |bytes| {
            ahead += bytes;
            if ahead >= CHECK_BYTES {
                ahead = 0;
                thread::sleep(CHECK_PAUSE);
            }
            !stop.load(Ordering::Relaxed)
        });
        if let Err(error) = done {
            tracing::warn!("the sealed segments were not all read: {error}");
        }
        for damage in reader.damage() {
            tracing::error!(segment = damage.segment, "the log is damaged: {damage}");
        }
    })?;
    Ok(())
}
