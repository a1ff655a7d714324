//! A random history of a journal on the crash disk, and what must be true of every image of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use handfast_core::ids::Lsn;
use handfast_core::record::Record;
use handfast_journal::files::crash::{CrashDisk, Image, Snapshot};
use handfast_journal::{Error, Group, Journal};

use super::*;

/// What the owner of the journal knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Acknowledged records.
    pub(crate) acked: BTreeMap<u64, Arc<Record>>,
    /// Those of them that may be gone, because their segment was dropped or compacted.
    pub(crate) gone: BTreeSet<u64>,
    /// The group that is under way.
    pub(crate) pending: Log,
    /// It is a checkpoint.
    pub(crate) rolling: bool,
    /// An opening is under way.
    pub(crate) opening: bool,
    pub(crate) epoch: u32,
}

pub(crate) type Shared = Arc<Mutex<Model>>;

pub(crate) fn lock(model: &Shared) -> MutexGuard<'_, Model> {
    model.lock().unwrap()
}

impl Model {
    fn last(&self) -> u64 {
        self.acked.keys().next_back().copied().unwrap_or(0)
    }

    /// Opens an image and compares. Every sync of that opening is looked at as well, as often as
    /// `deeper` says.
    pub(crate) fn check(&self, image: Image, seed: u64, deeper: u32, images: &Mutex<u64>) {
        *images.lock().unwrap() += 1;
        let disk = image.into_disk();
        if deeper > 0 {
            let model = Self { opening: true, ..self.clone() };
            let nested = Mutex::new(0);
            let count = Arc::new(Mutex::new(0u64));
            let total = count.clone();
            disk.before_each_sync(move |snapshot| {
                let seed = seed ^ (0x1000 * (*nested.lock().unwrap() + 1));
                *nested.lock().unwrap() += 1;
                model.check(snapshot.synced_only(), seed, deeper - 1, &total);
                model.check(snapshot.random(seed), seed, deeper - 1, &total);
            });
            self.check_disk(&disk, seed);
            disk.before_each_sync(|_| {});
            *images.lock().unwrap() += *count.lock().unwrap();
        } else {
            self.check_disk(&disk, seed);
        }
    }

    fn check_disk(&self, disk: &CrashDisk, seed: u64) {
        let opened = open(disk.clone());
        let Opening { journal, recovered, applied } =
            opened.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let reader = journal.reader();
        for (lsn, record) in &self.acked {
            let found = reader.record(Lsn(*lsn)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            match found {
                Some(found) => assert_eq!(&found, record, "seed {seed}: record {lsn} is altered"),
                None => assert!(self.gone.contains(lsn), "seed {seed}: record {lsn} is lost"),
            }
        }
        assert!(recovered.epoch > self.epoch, "seed {seed}: the epoch did not rise");
        let last = self.last();
        let opened_lsn = recovered.next_lsn.0 - 1;
        assert!(opened_lsn > last, "seed {seed}: acknowledged records are lost");
        let extra: Vec<_> =
            (last + 1..opened_lsn).map(|lsn| reader.record(Lsn(lsn)).unwrap().unwrap()).collect();
        let begun = matches!(extra.first().map(|r| &**r), Some(Record::CheckpointStart(_)));
        if self.rolling && begun {
            assert!(extra.len() >= self.pending.len(), "seed {seed}: half a checkpoint");
        }
        let mut submitted = self.pending.iter();
        for record in extra {
            match submitted.next() {
                Some((_, submitted)) if *submitted == record => {}
                // An opening that was under way, or one more in a deeper image.
                _ => {
                    let is_opening = matches!(
                        &*record,
                        Record::Opened(_) | Record::CheckpointStart(_) | Record::CheckpointEnd
                    );
                    assert!(self.opening && is_opening, "seed {seed}: {record:?} was never sent");
                    submitted = [].iter();
                }
            }
        }
        let Record::CheckpointStart(_) = &*applied[0].1 else {
            panic!("seed {seed}: no checkpoint")
        };
        for pair in applied.windows(2) {
            assert_eq!(pair[0].0.0 + 1, pair[1].0.0, "seed {seed}: a hole");
        }
        for (lsn, record) in &applied {
            if let Some(acked) = self.acked.get(&lsn.0) {
                assert_eq!(record, acked, "seed {seed}: record {lsn} was applied altered");
            }
        }
    }
}

/// Runs a history; `at_each_sync` sees the disk before each sync, with what is known then.
pub(crate) fn run(
    seed: u64,
    steps: u64,
    mut at_each_sync: impl FnMut(&Snapshot, &Model) + Send + 'static,
) -> (CrashDisk, Model) {
    let disk = CrashDisk::new();
    let model: Shared = Arc::default();
    let seen = model.clone();
    disk.before_each_sync(move |snapshot| {
        let model = lock(&seen).clone();
        at_each_sync(snapshot, &model);
    });
    drive(&disk, &model, seed, steps).unwrap();
    let end = lock(&model).clone();
    (disk, end)
}

/// The history itself, which stops at the first error.
pub(crate) fn drive(disk: &CrashDisk, model: &Shared, seed: u64, steps: u64) -> Result<(), Error> {
    let mut random = Random(seed);
    let mut journal = reopen(disk, model)?;
    let mut offset = 0;
    for _ in 0..steps {
        match random.below(20) {
            0 => {
                drop(journal);
                journal = reopen(disk, model)?;
            }
            1 => roll_now(&mut journal, model)?,
            2 => drop_oldest(&mut journal, model)?,
            3 | 4 => compact(&mut journal, model, random.next())?,
            5 => {
                journal.reserve(random.below(20_000))?;
            }
            _ => {
                if journal.space().wants_roll {
                    roll_now(&mut journal, model)?;
                }
                let records = (0..=random.below(4)).map(|_| {
                    offset += 1;
                    let length = random.below(1500) as usize;
                    published(NOW + offset, vec![event(offset as u32 % 3, offset, length)])
                });
                let records = records.collect();
                submit(&mut journal, model, records, false)?;
            }
        }
    }
    Ok(())
}

fn reopen(disk: &CrashDisk, model: &Shared) -> Result<Journal, Error> {
    lock(model).opening = true;
    let Opening { journal, recovered, applied } = open(disk.clone())?;
    let mut model = lock(model);
    model.opening = false;
    model.epoch = recovered.epoch;
    for (lsn, record) in applied {
        model.acked.insert(lsn.0, record);
    }
    Ok(journal)
}

fn submit(
    journal: &mut Journal,
    model: &Shared,
    records: Vec<Arc<Record>>,
    roll: bool,
) -> Result<(), Error> {
    let records = placed(journal, records);
    {
        let mut model = lock(model);
        model.pending = records.clone();
        model.rolling = roll;
    }
    let done = journal.append(&Group { records: records.clone(), roll });
    if let Err(Error::NoSpace { .. }) = done {
        let mut model = lock(model);
        model.pending.clear();
        model.rolling = false;
    }
    done?;
    let mut model = lock(model);
    model.pending.clear();
    model.rolling = false;
    model.acked.extend(records.into_iter().map(|(lsn, record)| (lsn.0, record)));
    Ok(())
}

fn roll_now(journal: &mut Journal, model: &Shared) -> Result<(), Error> {
    let records = checkpoint(journal, vec![]);
    submit(journal, model, records, true)
}

fn drop_oldest(journal: &mut Journal, model: &Shared) -> Result<(), Error> {
    let sealed = journal.sealed();
    if sealed.len() < 3 {
        return Ok(());
    }
    let dropped = SegmentDropped { segment: sealed[0].segment };
    // From the moment the record may be durable the segment may go.
    lock(model).gone.extend(sealed[0].first.0..=sealed[0].last.0);
    submit(journal, model, vec![Arc::new(Record::SegmentDropped(dropped))], false)?;
    journal.drop_segment(sealed[0].segment)
}

fn compact(journal: &mut Journal, model: &Shared, choice: u64) -> Result<(), Error> {
    let sealed = journal.sealed();
    if sealed.is_empty() {
        return Ok(());
    }
    let chosen = &sealed[(choice % sealed.len() as u64) as usize];
    let dead = |lsn: Lsn| lsn.0 % 3 == choice % 3;
    lock(model).gone.extend((chosen.first.0..=chosen.last.0).filter(|lsn| dead(Lsn(*lsn))));
    journal.compact_segment(chosen.segment, &mut |lsn, _| !dead(lsn))?;
    Ok(())
}
