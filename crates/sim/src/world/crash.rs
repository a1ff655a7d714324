//! The server ends and starts again from what is durable; checkpoints; and the comparison of
//! several recoveries of one log (I16).

use std::sync::Arc;

use handfast_core::ids::{Lsn, StoreId, Tick};
use handfast_core::input::Input;
use handfast_core::output::Output;
use handfast_core::record::{Abort, CheckpointStart, Opened, Reason, ReasonCode, Record};
use handfast_core::{Core, Recovery};

use super::owner::Life;
use super::{Disk, World};
use crate::fault::Fault;
use crate::invariants::Seen;

impl World {
    /// The server ends at once, and starts again.
    pub(super) fn crash(&mut self) {
        if self.checkers.violation.is_some() {
            return;
        }
        let left = self.disk.survivors(&self.facts, &mut self.rng);
        self.trace.line(format_args!("{} crash, {left} records are left", self.now.mono_ms));
        self.facts.crash(left);
        Disk::spoil(&mut self.facts, self.fault);
        self.disk = Disk::default();
        let streams = std::mem::take(&mut self.streams);
        for (session, stream) in streams {
            self.stream_lost(stream.peer, session);
        }
        self.fetches.clear();
        self.chains.clear();
        self.forget_database_work();
        self.see(&Seen::Crash);
        self.advance_downtime();
        self.copy_stopped();
        self.run_copies(5_000);
        self.start();
    }

    fn advance_downtime(&mut self) {
        let ms = if self.rng.percent(70) { self.rng.below(50) } else { self.rng.below(20_000) };
        self.advance(ms);
    }

    fn start(&mut self) {
        self.epoch += 1;
        let newest_ms = self.facts.newest_ms();
        self.now = match self.fault {
            Some(Fault::ClockTrusted) => self.clocks.open(0),
            _ => self.clocks.open(newest_ms),
        };
        self.facts.now = self.now;
        let (store, epoch, wall_ms) = (StoreId(1), self.epoch, self.now.wall_ms);
        let opening = self.new_opening();
        self.life = Life::new(opening);
        self.last_tick = Tick::first_of(wall_ms);
        let newest_ms =
            if self.fault == Some(Fault::AbsenceBelieved) { wall_ms } else { newest_ms };
        let opened = Opened { store, epoch, opening, wall_ms, newest_ms };
        self.facts.append(&Arc::new(Record::Opened(opened)));
        if self.fault == Some(Fault::CommitAbortedByRestart) {
            self.plant_abort();
        }
        let length = self.facts.log.len() as u64;
        self.facts.durable = length;
        self.facts.accepted = length;
        self.disk.told = (length, length);
        self.compare_recoveries();
        let from = self.newest_checkpoint();
        self.core = self.recover(from);
        self.drain();
        self.feed(Input::Space { free: 1 << 30, low: false });
        for at in 0..self.databases.len() {
            self.look_at(at);
        }
    }

    /// A core from the log, from this index on.
    fn recover(&mut self, from: usize) -> Core {
        let mut recovery = Recovery::new(self.facts.limits.clone());
        let skipped = match self.fault {
            Some(Fault::RecordSkippedInRecovery) => {
                Some(from + self.rng.index(self.facts.log.len() - from))
            }
            _ => None,
        };
        for (at, record) in self.facts.log.iter().enumerate().skip(from) {
            let lsn = Lsn(at as u64 + 1);
            if Some(at) == skipped {
                continue;
            }
            match &**record {
                Record::Begin(begin) if self.fault == Some(Fault::KeysForgotten) => {
                    let mut begin = begin.clone();
                    begin.key = None;
                    recovery.apply(lsn, &Record::Begin(begin));
                }
                Record::CheckpointStart(start) if self.fault == Some(Fault::KeysForgotten) => {
                    let start = CheckpointStart { keys: Vec::new(), ..start.clone() };
                    recovery.apply(lsn, &Record::CheckpointStart(start));
                }
                Record::KeysRestated(_) if self.fault == Some(Fault::KeysForgotten) => {}
                record => recovery.apply(lsn, record),
            }
        }
        for lsn in recovery.elsewhere() {
            let at = usize::try_from(lsn.0 - 1).expect("the log fits into memory");
            recovery.recall(lsn, &self.facts.log[at]);
        }
        recovery.finish(self.now)
    }

    /// The index of the newest complete checkpoint, or 0.
    fn newest_checkpoint(&self) -> usize {
        let log = &self.facts.log;
        let end = log.iter().rposition(|record| matches!(**record, Record::CheckpointEnd));
        let before = end.map(|end| &log[..end]).unwrap_or_default();
        let start = before.iter().rposition(|r| matches!(**r, Record::CheckpointStart(_)));
        start.unwrap_or_default()
    }

    fn compare_recoveries(&mut self) {
        let newest = self.newest_checkpoint();
        let mut once = restated(self.recover(0), self);
        let mut again = restated(self.recover(newest), self);
        if newest > 0 {
            // What is remembered for a time only: the whole log knows of more.
            for records in [&mut once, &mut again] {
                records.retain(|record| !matches!(**record, Record::ProducersRestated(_)));
                // The whole log does not say how long openings lasted.
                for record in records.iter_mut() {
                    if let Record::CheckpointStart(start) = &**record {
                        let start = CheckpointStart { away: Vec::new(), ..start.clone() };
                        *record = Arc::new(Record::CheckpointStart(start));
                    }
                }
            }
        }
        let differs = once.iter().zip(&again).find(|(a, b)| a != b);
        let difference = match differs {
            Some((a, b)) => Some(format!("whole log: {a:?}; from {newest}: {b:?}")),
            None if once.len() != again.len() => {
                let more = once.get(again.len()).or(again.get(once.len()));
                Some(format!("{} and {} records, {more:?}", once.len(), again.len()))
            }
            None => None,
        };
        self.see(&Seen::Recovered(difference.as_deref()));
    }

    /// The server writes a checkpoint, when it may.
    pub(super) fn checkpoint(&mut self) {
        if self.facts.accepted == self.facts.log.len() as u64 {
            self.trace.line(format_args!("{} checkpoint", self.now.mono_ms));
            self.core.checkpoint(Vec::new());
            self.drain();
            // It is one group of the log, or several that count only together.
            self.accept_all();
        }
    }

    fn plant_abort(&mut self) {
        let open = self.facts.chains.iter().find_map(|(id, chain)| {
            let (lsn, committed) = chain.decision?;
            (committed && chain.end.is_none()).then_some((*id, lsn))
        });
        if let Some((id, previous)) = open {
            let reason = Reason::new(ReasonCode::CoordinatorRestarted, "planted", true);
            let wall_ms = self.now.wall_ms;
            let record = Arc::new(Record::Abort(Abort { id, previous, wall_ms, reason }));
            self.facts.append(&record);
            let lsn = Lsn(self.facts.log.len() as u64);
            self.see(&Seen::Appended(lsn, &record));
        }
    }
}

/// What a core makes of itself in a checkpoint, once it has taken up what was open.
fn restated(mut core: Core, world: &World) -> Vec<Arc<Record>> {
    let mut records = Vec::new();
    core.handle(world.now, Input::Space { free: 1 << 30, low: false });
    for checkpoint in [false, true] {
        if checkpoint {
            records.clear();
            core.checkpoint(Vec::new());
        }
        loop {
            let before = records.len();
            while let Some(output) = core.poll_output() {
                if let Output::Append { record, .. } = output {
                    records.push(record);
                }
            }
            if checkpoint || records.len() == before {
                break;
            }
            let through = core.last();
            core.handle(world.now, Input::Accepted { through });
        }
    }
    records
}
