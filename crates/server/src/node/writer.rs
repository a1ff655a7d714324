//! The journal's thread: one group at a time, written and synced, then reported.
//!
//! The next group forms in the pump while this one syncs; there is no timer.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel as channel;
use handfast_core::ids::Lsn;
use handfast_core::record::Record;
use handfast_journal::{Error, Group, Journal, Sealing, SegmentSummary, Snapshot, Space};
use tokio::sync::oneshot;

use super::needs::Needs;
use super::pump::ToPump;

/// Work for the journal's thread.
#[derive(Debug)]
pub(crate) enum WriteJob {
    /// Make a group durable, then see to what is to be free.
    Group { group: Group, keep: Keep },
    /// Remove a segment; that it goes is durable.
    Drop(u64),
    /// Rewrite a segment that is mostly dead without its dead records.
    Compact { segment: u64, needs: Needs },
    /// See how the disk is now, and to what is to be free.
    Look(Keep),
    /// Say what is durable now, to be copied by somebody else. Not reported to the pump.
    Snapshot(oneshot::Sender<Result<Snapshot, String>>),
}

/// Bytes that are to be free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// In the segment that is written.
    pub(crate) free: u64,
    /// In it if there is no room for a next one: nothing for new work.
    pub(crate) least: u64,
    /// In the next one, for its checkpoint and what follows.
    pub(crate) next: u64,
    /// In that if there is little room.
    pub(crate) least_next: u64,
    /// In the next one besides, when this one is to be closed: what was accepted has its room in one
    /// segment, and takes it along.
    pub(crate) moves: u64,
}

/// What the journal's thread reports.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) through: Lsn,
    pub(crate) space: Space,
    pub(crate) records: u64,
    pub(crate) nanos: u64,
    /// A segment was begun.
    pub(crate) rolled: bool,
    /// It was a look at the disk.
    pub(crate) looked: bool,
    /// The segment that was to be rewritten, and there was no room for that.
    pub(crate) not_compacted: Option<u64>,
    /// Present when a segment was sealed or removed.
    pub(crate) segments: Option<Segments>,
}

/// The segments of the journal.
#[derive(Debug)]
pub(crate) struct Segments {
    /// What is known of the sealed ones, oldest first.
    pub(crate) sealed: Vec<Arc<SegmentSummary>>,
    /// The numbers of all, the active one last.
    pub(crate) numbers: Vec<u64>,
}

impl Segments {
    pub(crate) fn of(journal: &Journal) -> Self {
        Self { sealed: journal.sealed(), numbers: journal.segments() }
    }
}

/// Starts the thread. It ends when the sender of its jobs is dropped.
pub(crate) fn start(
    mut journal: Journal,
    pump: channel::Sender<ToPump>,
) -> io::Result<(channel::Sender<WriteJob>, JoinHandle<()>)> {
    let (sender, jobs) = channel::unbounded::<WriteJob>();
    let thread = thread::Builder::new().name("handfast-journal".into()).spawn(move || {
        let mut sealer = Sealer::default();
        for job in jobs {
            let message = match carry_out(&mut journal, &mut sealer, job) {
                Ok(None) => continue,
                Ok(Some(written)) => ToPump::Written(written),
                // Never retried: after a failed sync nobody knows what the disk holds.
                Err(error) => ToPump::Fault(error.to_string()),
            };
            let over = matches!(message, ToPump::Fault(_));
            if pump.send(message).is_err() || over {
                break;
            }
        }
        if let Err(error) = sealer.wait() {
            // The pump may be gone already; the next opening builds the index.
            let _ = pump.send(ToPump::Fault(error.to_string()));
        }
    })?;
    Ok((sender, thread))
}

/// Seals segments beside the journal's thread, which would otherwise keep commits waiting for it.
#[derive(Default)]
struct Sealer(Option<JoinHandle<Result<(), Error>>>);

impl Sealer {
    fn start(&mut self, sealing: Sealing) -> Result<(), Error> {
        self.wait()?;
        let thread = thread::Builder::new().name("handfast-seal".into());
        // Without a thread the next opening does it.
        self.0 = thread.spawn(|| sealing.finish()).ok();
        Ok(())
    }

    /// Nothing is being sealed any more.
    fn wait(&mut self) -> Result<(), Error> {
        // A panic was reported by its thread; what it has left undone, the next opening does.
        self.0.take().map_or(Ok(()), |thread| thread.join().unwrap_or(Ok(())))
    }

    /// Hears of an error as soon as there is one.
    fn look(&mut self) -> Result<(), Error> {
        if self.0.as_ref().is_some_and(JoinHandle::is_finished) { self.wait() } else { Ok(()) }
    }
}

fn carry_out(
    journal: &mut Journal,
    sealer: &mut Sealer,
    job: WriteJob,
) -> Result<Option<Written>, Error> {
    let start = Instant::now();
    match &job {
        WriteJob::Group { .. } | WriteJob::Look(_) => sealer.look()?,
        WriteJob::Drop(_) | WriteJob::Compact { .. } | WriteJob::Snapshot(_) => sealer.wait()?,
    }
    let looked = matches!(job, WriteJob::Look(_));
    let mut rolled = false;
    let mut not_compacted = None;
    let (through, records, changed, keep) = match job {
        WriteJob::Group { group, keep } => {
            rolled = group.roll;
            if let Some(sealing) = journal.append_and_seal_later(&group)? {
                sealer.start(sealing)?;
            }
            let through = group.records.last().map_or(Lsn(0), |(lsn, _)| *lsn);
            (through, group.records.len() as u64, group.roll, Some(keep))
        }
        WriteJob::Drop(segment) => {
            journal.drop_segment(segment)?;
            (Lsn(0), 0, true, None)
        }
        WriteJob::Compact { segment, needs } => {
            let mut keep = |lsn, record: &Record| needs.record(lsn, record);
            let done = journal.compact_segment(segment, &mut keep);
            match &done {
                Err(Error::NoSpace { .. }) => not_compacted = Some(segment),
                // It is damaged, and stays as it is.
                Ok(_) | Err(Error::Unreadable(_)) => {}
                Err(_) => return done.map(|_| None),
            }
            tracing::info!(segment, ?done, "compacted");
            (Lsn(0), 0, true, None)
        }
        WriteJob::Look(keep) => {
            journal.look()?;
            (Lsn(0), 0, false, Some(keep))
        }
        WriteJob::Snapshot(answer) => {
            // Whoever asked may have gone away.
            let snapshot = journal.snapshot();
            let _ = answer.send(snapshot.map_err(|error| error.to_string()));
            return Ok(None);
        }
    };
    let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut space = journal.space();
    if let Some(Keep { free, least, next, least_next, moves }) = keep {
        let moves = if space.wants_roll { moves } else { 0 };
        let (next, least_next) = (next + moves, least_next + moves);
        if space.next < next {
            space = journal.prepare(next)?;
        }
        if space.next < least_next {
            space = journal.prepare(least_next)?;
        }
        // Without a next segment nothing is given back by closing this one: the rest of the disk is
        // kept for it, or all that is in this one could never go.
        let free = if space.next < least_next { least } else { free };
        if space.free < free {
            space = journal.reserve(free)?;
        }
    }
    let segments = changed.then(|| Segments::of(journal));
    Ok(Some(Written { through, space, records, nanos, rolled, looked, not_compacted, segments }))
}

/// Groups that wait for the journal's thread, oldest first. Records join the last one until it is
/// taken or full.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    waiting: VecDeque<Waiting>,
    /// Bytes of everything that waits, at most.
    bytes: u64,
}

#[derive(Debug)]
struct Waiting {
    group: Group,
    bytes: u64,
}

/// Bytes of records after which a group takes no more.
const GROUP_BYTES: u64 = 16 << 20;

impl Groups {
    pub(crate) fn push(&mut self, lsn: Lsn, record: Arc<Record>) {
        let bytes = record.size_bound();
        self.bytes += bytes;
        match self.waiting.back_mut() {
            Some(last) if !last.group.roll && last.bytes + bytes <= GROUP_BYTES => {
                last.bytes += bytes;
                last.group.records.push((lsn, record));
            }
            _ => {
                let group = Group { records: vec![(lsn, record)], roll: false };
                self.waiting.push_back(Waiting { group, bytes });
            }
        }
    }

    /// A whole checkpoint, which starts a new segment.
    pub(crate) fn push_roll(&mut self, records: Vec<(Lsn, Arc<Record>)>) {
        // It has a room of its own.
        self.waiting.push_back(Waiting { group: Group { records, roll: true }, bytes: 0 });
    }

    pub(crate) fn take(&mut self) -> Option<Group> {
        let Waiting { group, bytes } = self.waiting.pop_front()?;
        self.bytes -= bytes;
        Some(group)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A checkpoint waits already.
    pub(crate) fn has_roll(&self) -> bool {
        self.waiting.iter().any(|w| w.group.roll)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
