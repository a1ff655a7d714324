//! The machine: one entrance for everything that happens, one fold for every record.
//!
//! It dispatches to the coordinator and the bus and holds no rule of either.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ages::Ages;
use crate::bus::{Bus, Part, Room};
use crate::command::Command;
use crate::coordinator::{Context, Coordinator, Counters, Resumed};
use crate::effects::Effects;
use crate::ids::{Lsn, Name, Now, Offset, StoreId, TopicId, TransactionId};
use crate::input::{Chain, Input};
use crate::limits::{Limits, UPKEEP_BYTES};
use crate::openings::Openings;
use crate::output::{Output, PublicState};
use crate::record::{CheckpointStart, Record, SegmentDropped, TopicSettings};
use crate::view::Standing;

/// The coordinator and the bus as one value. See the crate's documentation for the contract.
#[derive(Clone, Debug)]
pub struct Core {
    limits: Limits,
    store: StoreId,
    epoch: u32,
    openings: Openings,
    coordinator: Coordinator,
    bus: Bus,
    effects: Effects,
    ages: Ages,
    space: Space,
    draining: bool,
    now: Now,
}

/// Room in the log, as last told, and what was appended since.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    free: u64,
    low: bool,
}

/// The core while the log is read: records go in, nothing comes out.
#[derive(Debug)]
pub struct Recovery {
    core: Core,
    last: Lsn,
}

impl Recovery {
    /// An empty core before the first record.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let core = Core {
            limits,
            store: StoreId::default(),
            epoch: 0,
            openings: Openings::default(),
            coordinator: Coordinator::default(),
            bus: Bus::default(),
            effects: Effects::default(),
            ages: Ages::default(),
            space: Space::default(),
            draining: false,
            now: Now::default(),
        };
        Self { core, last: Lsn(0) }
    }

    /// The next record of the log, in order, from the newest checkpoint on.
    pub fn apply(&mut self, lsn: Lsn, record: &Record) {
        assert!(lsn > self.last, "{lsn} after {} (I16)", self.last);
        self.last = lsn;
        self.core.apply(lsn, record);
        if let Record::End(end) = record {
            self.core.coordinator.forget_ended(end.id);
        }
    }

    /// Records before the checkpoint that it refers to: read them when everything else was
    /// applied, and give them to [`Recovery::recall`] in this order.
    #[must_use]
    pub fn elsewhere(&self) -> Vec<Lsn> {
        self.core.coordinator.keys_elsewhere()
    }

    /// One of the records of [`Recovery::elsewhere`].
    ///
    /// # Panics
    /// If it is not the one that is due.
    pub fn recall(&mut self, lsn: Lsn, record: &Record) {
        let Record::KeysEnded(keys) = record else { panic!("{lsn} does not hold keys") };
        self.core.coordinator.recall_keys(lsn, keys);
    }

    /// Everything was read and is durable: the core takes up what is open (C16).
    ///
    /// # Panics
    /// If a record of [`Recovery::elsewhere`] was not given to [`Recovery::recall`], or the wall
    /// time is before that of the opening.
    #[must_use]
    pub fn finish(mut self, now: Now) -> Core {
        assert!(now.wall_ms >= self.core.now.wall_ms, "log time is behind the log");
        self.core.now = now;
        self.core.ages.start(now);
        self.core.effects = Effects::after(self.last);
        // What a restart has to append fits: its room was reserved when it was begun.
        self.core.with_coordinator(now, Coordinator::restart);
        self.core
    }
}

impl Core {
    /// Something happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        assert!(now.mono_ms >= self.now.mono_ms, "the monotonic clock went back");
        assert!(now.wall_ms >= self.now.wall_ms, "log time went back");
        self.now = now;
        match input {
            Input::Command { caller, command } => match command {
                Command::Begin(_)
                | Command::Enlist { .. }
                | Command::Stage { .. }
                | Command::Commit { .. }
                | Command::Abort { .. }
                | Command::Extend { .. }
                | Command::Status { .. }
                | Command::Show { .. }
                | Command::ListTransactions { .. }
                | Command::Attach { .. }
                | Command::Vote { .. }
                | Command::VoteFor { .. }
                | Command::BranchEnded { .. }
                | Command::Operate { .. }
                | Command::InquireBranch { .. }
                | Command::Finished { .. }
                | Command::NotKnown { .. }
                | Command::NotFinished { .. }
                | Command::Inquire { .. }
                | Command::MayForget { .. }
                | Command::ListParticipants => {
                    self.with_coordinator(now, |c, cx| c.command(cx, caller, command));
                }
                Command::CreateTopic { .. }
                | Command::AlterTopic { .. }
                | Command::DeleteTopic { .. }
                | Command::ListTopics
                | Command::Publish { .. }
                | Command::CreateSubscription { .. }
                | Command::Subscribe { .. }
                | Command::Credit { .. }
                | Command::Acknowledge { .. }
                | Command::Reject { .. }
                | Command::ExtendLease { .. }
                | Command::GiveBack { .. }
                | Command::AcknowledgeGap { .. }
                | Command::ListSubscriptions
                | Command::Seek { .. }
                | Command::DeleteSubscription { .. }
                | Command::ListDeadLetters { .. }
                | Command::TakeDeadLetters { .. } => {
                    let room = self.room_left();
                    let Self { limits, bus, effects, .. } = self;
                    bus.command(now, limits, room, caller, command, effects);
                }
            },
            Input::SessionEnded { session } => {
                self.with_coordinator(now, |c, cx| c.session_ended(cx, session));
                self.bus.session_ended(now, session, &mut self.effects);
            }
            Input::Behind { session, behind } => {
                self.bus.behind(now, session, behind, &mut self.effects);
            }
            Input::Accepted { through } => self.accepted(now, through),
            Input::Lost { lsn } | Input::Unknown { lsn } => {
                if let Some(record) = self.effects.take_lost(lsn) {
                    self.with_coordinator(now, |c, cx| c.append_failed(cx, record));
                }
            }
            Input::Durable { through } => self.made_durable(now, through),
            Input::Chain { id, chain } => self.chain(now, id, &chain),
            Input::Fetched { fetch, events, next } => {
                self.bus.fetched(now, fetch, events, next, &mut self.effects);
            }
            Input::Unreadable { fetch, detail } => {
                self.bus.unreadable(now, fetch, &detail, &mut self.effects);
            }
            Input::ChainUnreadable { id, detail } => {
                self.with_coordinator(now, |c, cx| c.chain_unreadable(cx, id, &detail));
            }
            Input::Space { free, low } => {
                self.space = Space { free, low };
                self.effects.reset_appended();
            }
            Input::Expire { topic, to, bytes } => {
                self.bus.expire(topic, to, bytes, &mut self.effects);
            }
            Input::Database { name, up } => {
                self.with_coordinator(now, |c, cx| c.database(cx, &name, up));
            }
            Input::Claimed { name, asked_ms } => {
                self.with_coordinator(now, |c, cx| c.claimed(cx, &name, asked_ms));
            }
            Input::Paused => self.coordinator.paused(now),
            Input::DatabaseRefused { name, local, distributed } => {
                self.coordinator.database_refused(name, local, distributed);
            }
            Input::DatabaseGone { name } => self.coordinator.database_gone(&name),
            Input::BranchFinished { id, database, report } => {
                self.with_coordinator(now, |c, cx| c.database_finished(cx, id, &database, report));
            }
            Input::Verified { id, database, found } => {
                self.with_coordinator(now, |c, cx| c.verified(cx, id, &database, found));
            }
            Input::Resolved { id, resolution } => {
                self.with_coordinator(now, |c, cx| c.resolved(cx, id, resolution));
            }
            Input::CommitGone { id, database } => {
                self.with_coordinator(now, |c, cx| c.commit_gone(cx, id, database));
            }
            Input::Drain => {
                self.draining = true;
                self.with_coordinator(now, Coordinator::refuse_all_waiting);
            }
            Input::Tick => {
                self.with_coordinator(now, Coordinator::tick);
                self.bus.tick(now, &self.limits, &mut self.effects);
            }
        }
        // One by one, because each takes of the room in the log.
        while self.coordinator.can_admit(&self.limits) {
            self.with_coordinator(now, Coordinator::admit);
        }
        if self.coordinator.waiting() > 0 {
            // A place is free when an END is durable, for which nobody else may wait.
            self.effects.await_durable(self.effects.last());
        }
    }

    /// The next effect to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.effects.poll()
    }

    /// The monotonic time at which [`Input::Tick`] is due, if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.coordinator.next_deadline().into_iter().chain(self.bus.next_deadline()).min()
    }

    /// Appends the state as it is accepted, as the start of a new segment of the log: from here
    /// on a recovery can begin. `segments` are those that exist besides the new one.
    ///
    /// # Panics
    /// If a record was appended and is not accepted yet: it would be neither before nor in it.
    pub fn checkpoint(&mut self, segments: Vec<u64>) {
        assert!(self.checkpoint_within(segments, u64::MAX).is_ok(), "everything fits");
    }

    /// The same if it takes at most `room` bytes; says how many it takes, at most.
    ///
    /// # Errors
    /// The bytes that it would take: nothing was appended.
    ///
    /// # Panics
    /// As [`Core::checkpoint`].
    pub fn checkpoint_within(&mut self, segments: Vec<u64>, room: u64) -> Result<u64, u64> {
        assert!(self.effects.all_accepted(), "a checkpoint between an append and its place");
        let (next_topic, next_subscription) = self.bus.next_ids();
        let mut records = Vec::new();
        records.push(Record::CheckpointStart(CheckpointStart {
            store: self.store,
            epoch: self.epoch,
            next_topic,
            next_subscription,
            segments,
            keys: self.coordinator.key_batches(),
            openings: self.openings.restate(),
            away: self.ages.left(self.now),
        }));
        self.bus.restate(&mut records);
        self.coordinator.restate(&mut records);
        records.push(Record::CheckpointEnd);
        let bytes = records.iter().map(Record::size_bound).sum();
        if bytes > room {
            return Err(bytes);
        }
        self.bus.begin_segment();
        for record in records {
            self.effects.append(record);
        }
        Ok(bytes)
    }

    /// Appends that a segment is about to be removed; it may be when this is durable.
    pub fn drop_segment(&mut self, segment: u64) -> Lsn {
        self.effects.append(Record::SegmentDropped(SegmentDropped { segment }))
    }

    /// How far the log is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.effects.durable()
    }

    /// Something waits for records that were made to be durable. Without it they may stay in memory
    /// for a moment, so that one write carries more.
    #[must_use]
    pub fn awaits_durable(&self) -> bool {
        self.effects.is_awaited()
    }

    /// The last record that was made.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.effects.last()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// This opening's epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The openings of the store that the log contains, this one last.
    #[must_use]
    pub fn openings(&self) -> &Openings {
        &self.openings
    }

    /// The public state of a transaction that is open.
    #[must_use]
    pub fn public_state(&self, id: TransactionId) -> Option<PublicState> {
        self.coordinator.public_state(id, self.effects.durable())
    }

    /// Topics with what retention needs to know of them.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicBounds> {
        self.bus.bounds()
    }

    /// Every dead letter: its event has to stay readable.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<(TopicId, Offset)> {
        self.bus.dead_letters()
    }

    /// What happened before this Unix time in milliseconds is older than that, and nothing else is.
    /// Time in which no server ran counts only as fast as this one runs since.
    #[must_use]
    pub fn older_than(&self, now: Now, age_ms: u64) -> u64 {
        self.ages.before(now, age_ms)
    }

    /// Databases with branches that are not finished, and how many.
    #[must_use]
    pub fn open_databases(&self) -> Vec<(Name, usize)> {
        self.coordinator.open_databases()
    }

    /// Where BEGIN of the oldest open transaction is.
    #[must_use]
    pub fn oldest_open(&self) -> Option<Lsn> {
        self.coordinator.oldest_open()
    }

    /// Records that checkpoints refer to instead of restating them: they have to stay readable.
    #[must_use]
    pub fn referred(&self) -> Vec<Lsn> {
        self.coordinator.key_batches().iter().map(|batch| batch.lsn).collect()
    }

    /// The phase of an open transaction, for tests.
    #[cfg(test)]
    pub(crate) fn phase_of(&self, id: TransactionId) -> Option<alloc::string::String> {
        self.coordinator.phase(id).map(|phase| alloc::format!("{phase:?}"))
    }

    /// Everything that is known of an open transaction, for tests.
    #[cfg(test)]
    pub(crate) fn transaction_of(&self, id: TransactionId) -> Option<alloc::string::String> {
        self.coordinator.transaction(id).map(|tx| alloc::format!("{tx:?}"))
    }

    /// The branch of a service is bound to a durable state, for tests.
    #[cfg(test)]
    pub(crate) fn is_bound(&self, id: TransactionId, service: &Name) -> bool {
        let tx = self.coordinator.transaction(id);
        tx.is_some_and(|tx| {
            tx.branches.iter().any(|b| b.participant.name == *service && b.state_id.is_some())
        })
    }

    /// Bytes that have to stay free in the log for what was accepted: staged events, and the
    /// records that open transactions will still need.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.bus.reserved_bytes() + self.coordinator.reserved_bytes()
    }

    /// What this start has found open.
    #[must_use]
    pub fn resumed(&self) -> Resumed {
        self.coordinator.resumed()
    }

    /// Figures for people and metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            open: self.coordinator.open(),
            deciding: self.coordinator.deciding(),
            waiting: self.coordinator.waiting(),
            attention: self.coordinator.in_attention(),
            unseen: self.coordinator.unseen(),
            keys: self.coordinator.keys(),
            instances: self.coordinator.instances(),
            standings: self.bus.standings(self.effects.durable()),
            staged_bytes: self.bus.staged_bytes(),
            work_bytes: self.coordinator.work_bytes(),
            uncounted_ms: self.ages.left_ms(self.now),
            counters: self.coordinator.counters(),
        }
    }

    /// The one fold, live and in recovery.
    fn apply(&mut self, lsn: Lsn, record: &Record) {
        match record {
            Record::Opened(opened) => {
                self.store = opened.store;
                self.epoch = opened.epoch;
                self.openings.opened(lsn, opened);
                self.now.wall_ms = opened.wall_ms;
                self.ages.apply_opened(opened);
            }
            Record::CheckpointStart(start) => {
                self.store = start.store;
                self.epoch = start.epoch;
                self.openings = Openings::restated(&start.openings);
                self.ages.apply_start(start);
            }
            _ => {}
        }
        self.coordinator.apply(lsn, record);
        self.bus.apply(lsn, record);
    }

    fn accepted(&mut self, now: Now, through: Lsn) {
        // Accepting one record may append others; those are accepted by their own input.
        while let Some((lsn, record)) = self.effects.next_accepted(through) {
            if is_restated(&record) {
                continue;
            }
            self.apply(lsn, &record);
            self.with_coordinator(now, |c, cx| c.accepted(cx, lsn, &record));
        }
    }

    fn made_durable(&mut self, now: Now, through: Lsn) {
        while let Some((lsn, record)) = self.effects.next_durable(through) {
            if is_restated(&record) {
                continue;
            }
            self.bus.durable(now, lsn, &record, &mut self.effects);
            self.with_coordinator(now, |c, cx| c.durable(cx, &record));
            // Before the next record says more: answers about a transaction keep their order (I4).
            self.effects.release();
        }
        self.effects.release();
    }

    fn chain(&mut self, now: Now, id: TransactionId, chain: &Chain) {
        self.with_coordinator(now, |c, cx| {
            c.adopt(cx, id, chain);
            c.chain_read(cx, id, chain);
        });
    }

    /// How far back idempotency keys reach: those of transactions that ended before this Unix time
    /// in milliseconds may be forgotten.
    #[must_use]
    pub fn keys_since_ms(&self) -> u64 {
        self.coordinator.keys_since_ms()
    }

    /// Bytes that new work may take in the log as it is.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room_left().work
    }

    /// New work leaves something for what makes room and for what ends work.
    fn room_left(&self) -> Room {
        let taken = self.effects.appended_bytes() + self.reserved();
        let upkeep = self.space.free.saturating_sub(taken);
        let work = if self.space.low { 0 } else { upkeep.saturating_sub(UPKEEP_BYTES) };
        Room { work, upkeep }
    }

    fn with_coordinator<T>(
        &mut self,
        now: Now,
        step: impl FnOnce(&mut Coordinator, &mut Context<'_>) -> T,
    ) -> T {
        let room = self.room_left();
        let Self { limits, store, epoch, coordinator, bus, effects, ages, draining, .. } = self;
        let (life, draining) = ((*store, *epoch), *draining);
        let mut cx = Context { now, life, ages, limits, bus, effects, room, draining };
        step(coordinator, &mut cx)
    }
}

/// See [`Core::topics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicBounds {
    /// The topic.
    pub topic: TopicId,
    /// How long it keeps events.
    pub settings: TopicSettings,
    /// The first offset that is still there.
    pub start: Offset,
    /// Bytes of its events.
    pub bytes: u64,
    /// Bytes for which it had no room when it last refused events.
    pub wanted: u64,
    /// Its events in the newest segment of the log, oldest first, as far as it has a limit to keep.
    pub parts: Vec<Part>,
}

/// Part of a checkpoint: live, it says nothing new.
fn is_restated(record: &Arc<Record>) -> bool {
    matches!(
        **record,
        Record::CheckpointStart(_)
            | Record::CheckpointEnd
            | Record::TransactionRestated(_)
            | Record::UnseenRestated(_)
            | Record::SubscriptionRestated(_)
            | Record::TopicRestated(_)
            | Record::ProducersRestated(_)
            | Record::KeysRestated(_)
    )
}

/// See [`Core::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Open transactions.
    pub open: usize,
    /// Of those, decided ones that are not finished.
    pub deciding: usize,
    /// Of those, ones that a person should look at.
    pub attention: usize,
    /// Transactions that have ended otherwise than decided, and nobody has said that it was seen.
    pub unseen: usize,
    /// Begins that wait for a place among the open transactions.
    pub waiting: usize,
    /// Idempotency keys that are kept.
    pub keys: usize,
    /// Attached instances of services.
    pub instances: usize,
    /// Subscriptions by how they stand, in the order of [`Standing::ALL`].
    pub standings: [u32; Standing::ALL.len()],
    /// Bytes of staged events.
    pub staged_bytes: usize,
    /// Bytes of work that wait for votes.
    pub work_bytes: usize,
    /// Milliseconds in which no server ran and that do not count for ages yet.
    pub uncounted_ms: u64,
    /// Counted since the start.
    pub counters: Counters,
}
