//! What the tests of the journal share: records that make sense, and opening with a collector.

pub(crate) mod every;
pub(crate) mod history;

use std::sync::Arc;

use bytes::Bytes;
use handfast_core::event::{Body, PlacedEvent, StagedEvent, StoredEvent};
use handfast_core::ids::{
    Digest, KeyHash, Lsn, Offset, OpeningId, ProducerId, StoreId, SubscriptionId, TopicId,
    TransactionId,
};
use handfast_core::output::{Fetch, Wanted};
use handfast_core::record::{
    Begin, CheckpointStart, Commit, End, IdempotencyKey, LocalItems, Published, Record,
    SegmentDropped, TransactionRestated,
};
use handfast_journal::files::Files;
use handfast_journal::{Error, Group, Journal, Options, Reader, Recovered};

pub(crate) const STORE: StoreId = StoreId(0x0192_0000_0000_7000_8000_0000_0000_0001);
/// What every opening of the tests is called: the journal only writes it down.
pub(crate) const OPENING: OpeningId = OpeningId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
pub(crate) const NOW: u64 = 1_700_000_000_000;

pub(crate) fn options() -> Options {
    Options::default()
        .with_segment_bytes(16 << 10)
        .with_preallocate_bytes(4 << 10)
        .with_recent_bytes(2 << 10)
}

pub(crate) type Log = Vec<(Lsn, Arc<Record>)>;

pub(crate) struct Opening {
    pub(crate) journal: Journal,
    pub(crate) recovered: Recovered,
    pub(crate) applied: Log,
}

pub(crate) fn open(files: impl Files) -> Result<Opening, Error> {
    open_with(Arc::new(files), options())
}

pub(crate) fn open_with(files: Arc<dyn Files>, options: Options) -> Result<Opening, Error> {
    let mut applied = Vec::new();
    let (journal, recovered) = Journal::open(
        files,
        options,
        &mut |_| NOW,
        STORE,
        OPENING,
        &mut |_| {},
        &mut |lsn, record| {
            applied.push((lsn, record));
        },
    )?;
    Ok(Opening { journal, recovered, applied })
}

/// An id that was made at a time.
pub(crate) fn id(ms: u64, number: u64) -> TransactionId {
    TransactionId((u128::from(ms) << 80) | (7 << 76) | (2 << 62) | u128::from(number))
}

pub(crate) fn body(seed: u64, length: usize) -> Bytes {
    (0..length).map(|i| (seed as usize * 31 + i * 7) as u8).collect::<Vec<_>>().into()
}

pub(crate) fn event(topic: u32, offset: u64, length: usize) -> PlacedEvent {
    PlacedEvent {
        topic: TopicId(topic),
        offset: Offset(offset),
        key: offset.is_multiple_of(2).then_some(KeyHash(offset)),
        body: Body::Here(body(offset + u64::from(topic) * 1000, length)),
    }
}

pub(crate) fn published(wall_ms: u64, events: Vec<PlacedEvent>) -> Arc<Record> {
    Arc::new(Record::Published(Published {
        producer: ProducerId(9),
        sequence: wall_ms,
        digest: Digest(wall_ms),
        wall_ms,
        events,
    }))
}

pub(crate) fn begin(
    id: TransactionId,
    wall_ms: u64,
    keyed: bool,
    local: Option<LocalItems>,
) -> Begin {
    let key = keyed.then(|| IdempotencyKey { key: format!("key {id}").into(), digest: 1 });
    Begin { id, wall_ms, deadline_ms: 30_000, key, participants: Vec::new(), local }
}

pub(crate) fn local_items(topic: u32, seeds: &[u64]) -> LocalItems {
    let events = seeds.iter().map(|seed| StagedEvent {
        topic: TopicId(topic),
        key: None,
        body: body(*seed, 50),
        size: 50,
    });
    LocalItems { events: events.collect(), acknowledged: vec![(SubscriptionId(1), Offset(2))] }
}

pub(crate) fn commit(
    id: TransactionId,
    previous: Lsn,
    wall_ms: u64,
    events: Vec<PlacedEvent>,
) -> Arc<Record> {
    Arc::new(Record::Commit(Commit {
        id,
        previous,
        wall_ms,
        updaters: Vec::new(),
        read_only: Vec::new(),
        events,
        acknowledged: Vec::new(),
    }))
}

pub(crate) fn end(id: TransactionId, previous: Lsn, wall_ms: u64) -> Arc<Record> {
    Arc::new(Record::End(End {
        id,
        previous,
        wall_ms,
        committed: true,
        heuristic: false,
        why: String::new(),
        noted: false,
        finished: Vec::new(),
    }))
}

pub(crate) fn restated(begin: Begin, begin_lsn: Lsn, last: Lsn) -> Record {
    Record::TransactionRestated(Box::new(TransactionRestated {
        begin,
        begin_lsn,
        last,
        decision: None,
        decided_wall_ms: 0,
        updaters: Vec::new(),
        released: vec![],
        notes: vec![],
        noted: false,
    }))
}

/// Gives records the next places.
pub(crate) fn placed(journal: &Journal, records: Vec<Arc<Record>>) -> Log {
    let first = journal.next_lsn().0;
    (first..).map(Lsn).zip(records).collect()
}

pub(crate) fn append(journal: &mut Journal, records: Vec<Arc<Record>>) -> Result<Log, Error> {
    let records = placed(journal, records);
    journal.append(&Group { records: records.clone(), roll: false })?;
    Ok(records)
}

/// A checkpoint of the segments that there are, with something in it.
pub(crate) fn checkpoint(journal: &Journal, state: Vec<Record>) -> Vec<Arc<Record>> {
    let start = Record::CheckpointStart(CheckpointStart {
        store: STORE,
        epoch: journal.epoch(),
        next_topic: TopicId(100),
        next_subscription: SubscriptionId(100),
        segments: journal.segments(),
        keys: Vec::new(),
        openings: Vec::new(),
        away: Vec::new(),
    });
    let end = Record::CheckpointEnd;
    [start].into_iter().chain(state).chain([end]).map(Arc::new).collect()
}

pub(crate) fn roll(journal: &mut Journal, state: Vec<Record>) -> Result<Log, Error> {
    let records = placed(journal, checkpoint(journal, state));
    journal.append(&Group { records: records.clone(), roll: true })?;
    Ok(records)
}

pub(crate) fn drop_segment(journal: &mut Journal, segment: u64) -> Result<Log, Error> {
    let dropped = Arc::new(Record::SegmentDropped(SegmentDropped { segment }));
    let log = append(journal, vec![dropped])?;
    journal.drop_segment(segment)?;
    Ok(log)
}

pub(crate) fn range(topic: u32, from: u64, to: u64, max_events: u32, max_bytes: u32) -> Fetch {
    let wanted = Wanted::Range { from: Offset(from), to: Offset(to), max_events };
    Fetch { fetch: 1, topic: TopicId(topic), wanted, max_bytes }
}

pub(crate) fn offsets(topic: u32, offsets: &[u64], max_bytes: u32) -> Fetch {
    let wanted = Wanted::Offsets(offsets.iter().copied().map(Offset).collect());
    Fetch { fetch: 1, topic: TopicId(topic), wanted, max_bytes }
}

/// All events of a topic, fetched in small steps.
pub(crate) fn all_events(reader: &Reader, topic: u32, to: u64) -> Result<Vec<StoredEvent>, Error> {
    let mut events = Vec::new();
    let mut from = 0;
    while from < to {
        let (more, next) = reader.fetch(&range(topic, from, to, 7, 1000))?;
        events.extend(more);
        assert!(next.0 > from, "a fetch makes progress");
        from = next.0;
    }
    Ok(events)
}

/// The splitmix64 generator.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
