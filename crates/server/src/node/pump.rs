//! The pump: the one thread that owns the core. It carries inputs in and outputs out, in batches.
//!
//! It knows no rule of the protocol, never reads or writes a file, and never waits for anything
//! but its own queue.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel as channel;
use handfast_core::command::{Caller, Command};
use handfast_core::event::StoredEvent;
use handfast_core::ids::{Holder, Lsn, Name, Now, Offset, SessionId, TransactionId};
use handfast_core::input::{Chain, Input};
use handfast_core::limits::{BATCH_BYTES, UPKEEP_BYTES};
use handfast_core::output::{Output, Reply};
use handfast_core::record::Record;
use handfast_core::{Core, Stats};
use handfast_journal::{Snapshot, Space};
use tokio::sync::{mpsc, oneshot, watch};

use super::clock::Clock;
use super::fetches::{self, Fetches};
use super::needs::Needs;
use super::readers::ReadJob;
use super::requests::{Place, Room};
use super::retention::Retention;
use super::session::{Flushed, Item, Outbox, Outboxes, is_later};
use super::stall::{LONGEST_WAIT, Stalls};
use super::unread::AllUnread;
use super::writer::{Groups, Keep, WriteJob, Written};

/// Inputs that are handled before outputs are carried out. Large enough that what is done once a
/// batch costs little, small enough that services, clients and the journal have work meanwhile.
const BATCH: usize = 256;
/// Records of a durable group that are told of at once.
const PIECE: u64 = 128;
/// How long records that nobody waits for may stay in memory, in milliseconds: BEGIN until its
/// COMMIT, END until somebody else's COMMIT.
const LAZY_MS: u64 = 5;
/// So many bytes of them are written at once.
const LAZY_BYTES: u64 = 1 << 20;
/// How often the journal's thread looks at the disk, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// The same while there is hardly room for new work: somebody may have made some.
const LOOK_SHORT_MS: u64 = 100;
/// How long the refusals of those who are to come again later may wait for each other, in
/// milliseconds.
const REFUSED_MS: u64 = 5;
/// The session of the unary calls.
pub(crate) const CALLS: SessionId = SessionId(0);
/// Bytes that the journal keeps free beyond what is reserved for accepted work, on a large disk.
const SPARE_BYTES: u64 = 64 << 20;
/// Not more than this share of a small one, as long as any one command fits.
const SPARE_SHARE: u64 = 16;
/// With less room than this, commands wait for the group that is being written, which brings more
/// if the disk has it. More than any one command takes.
const SHORT_BYTES: u64 = 2 * BATCH_BYTES as u64;
/// Any one command, what new work leaves alone, and a little more.
const LEAST_SPARE_BYTES: u64 = SHORT_BYTES + UPKEEP_BYTES + (4 << 20);

/// What a next segment has besides at least.
const LEAST_NEXT_BYTES: u64 = 1 << 20;

/// What reaches the pump.
#[derive(Debug)]
pub(crate) enum ToPump {
    SessionOpened {
        session: SessionId,
        outbox: Outbox,
    },
    SessionEnded(SessionId),
    Commands {
        session: SessionId,
        batch: Vec<(u64, Command)>,
        room: Room,
    },
    Call {
        command: Command,
        answer: oneshot::Sender<Reply>,
        room: Room,
        place: Place,
    },
    /// A session has read enough of what waited for it.
    CaughtUp(SessionId),
    Written(Written),
    Fetched {
        fetch: u64,
        events: Vec<StoredEvent>,
        next: Offset,
    },
    Chain {
        id: TransactionId,
        chain: Chain,
    },
    /// The events that a fetch wanted next are in a damaged place.
    Unreadable {
        fetch: u64,
        detail: String,
    },
    /// So are the records of a transaction.
    ChainUnreadable {
        id: TransactionId,
        detail: String,
    },
    /// What databases have said, and how they are.
    Databases(Vec<Input>),
    /// Databases with branches that are not finished.
    OpenDatabases(oneshot::Sender<Vec<(Name, usize)>>),
    Stats(oneshot::Sender<NodeStats>),
    /// What is durable, to be copied.
    Snapshot(oneshot::Sender<Result<Snapshot, String>>),
    /// Refuse new work; answered when nothing is deciding any more.
    Drain(oneshot::Sender<()>),
    /// End, after what is queued is durable.
    Stop,
    Fault(String),
}

/// What the core wants of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseJob {
    /// Finish a branch; answered by [`Input::BranchFinished`].
    Finish {
        /// The transaction.
        id: TransactionId,
        /// Commit or roll back.
        commit: bool,
        /// The session that held it, if it is known.
        holder: Option<Holder>,
    },
    /// Look whether it is prepared, or whether its marker is visible; answered by
    /// [`Input::Verified`].
    Verify {
        /// The transaction.
        id: TransactionId,
        /// It is a local one: the marker.
        local: bool,
    },
    /// Find out by a tombstone how a local transaction ended; answered by [`Input::Resolved`].
    Resolve {
        /// The transaction.
        id: TransactionId,
        /// Nobody has asked: its stream ended, or its deadline passed.
        abandoned: bool,
    },
}

/// Figures of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStats {
    /// Of the core.
    pub core: Stats,
    /// Open sessions.
    pub sessions: usize,
    /// Commit groups made durable since the start.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// Records in the last one.
    pub last_group: u64,
    /// Nanoseconds spent writing and syncing groups.
    pub sync_nanos: u64,
    /// Bytes that can be appended without a new allocation.
    pub free_bytes: u64,
    /// The store is so full that new work is refused.
    pub low_space: bool,
    /// Segments of the journal.
    pub segments: usize,
    /// Times that a segment was rewritten without what nobody needs.
    pub compactions: u64,
    /// Places of the log that are known to be damaged.
    pub damaged: usize,
    /// Requests that were refused and may come again later.
    pub refused: u64,
    /// Bytes that streams have to read, about.
    pub unread_bytes: u64,
    /// How far the machine's clock is from log time, in milliseconds: negative if it is behind.
    pub clock_offset_ms: i64,
}

/// The pump's ends of the queues, and the room in the journal at the start.
pub(crate) struct Ends {
    pub(crate) inbox: channel::Receiver<ToPump>,
    pub(crate) writer: channel::Sender<WriteJob>,
    pub(crate) readers: channel::Sender<ReadJob>,
    pub(crate) databases: mpsc::UnboundedSender<(Name, DatabaseJob)>,
    pub(crate) durable: watch::Sender<u64>,
    /// How often this stood still for a while.
    pub(crate) paused: watch::Sender<u64>,
    pub(crate) keys_since_ms: Arc<AtomicU64>,
    pub(crate) space: Space,
    /// How many transactions may be open.
    pub(crate) open_transactions: usize,
    /// What sessions have to read.
    pub(crate) all_unread: Arc<AllUnread>,
}

/// The pump's thread.
pub(crate) struct Pump {
    core: Core,
    clock: Clock,
    ends: Ends,
    outboxes: Outboxes,
    fetches: Fetches,
    /// Unary calls that were refused and may come again later.
    refused_calls: u64,
    /// Unary calls that are not answered yet.
    calls: HashMap<u64, (oneshot::Sender<Reply>, Place)>,
    next_call: u64,
    groups: Groups,
    /// When records that wait are written even if nobody waits for them.
    lazy_until: Option<u64>,
    /// When those are told who were refused and are to come again later.
    refused_until: Option<u64>,
    /// Jobs that the journal's thread has and has not reported.
    writing: usize,
    /// When the journal's thread is to look at the disk again, on the monotonic clock; none: it
    /// is about to.
    look_at: Option<u64>,
    /// Bytes of the checkpoint that is on its way to the disk.
    rolling: Option<u64>,
    /// Bytes that the newest checkpoint took, or that one would take for which there was no room.
    checkpoint_bytes: u64,
    retention: Retention,
    stats: NodeStats,
    /// What sessions and callers want, while room in the log is short.
    deferred: VecDeque<ToPump>,
    draining: Vec<oneshot::Sender<()>>,
    stopping: bool,
    stalls: Stalls,
}

impl Pump {
    pub(crate) fn new(core: Core, clock: Clock, ends: Ends, retention: Retention) -> Self {
        let outboxes = Outboxes::new(ends.open_transactions, Arc::clone(&ends.all_unread));
        let fetches = Fetches::new(&ends.all_unread);
        Self {
            core,
            clock,
            ends,
            outboxes,
            fetches,
            refused_calls: 0,
            calls: HashMap::new(),
            next_call: 0,
            groups: Groups::default(),
            lazy_until: None,
            refused_until: None,
            writing: 0,
            look_at: Some(0),
            rolling: None,
            checkpoint_bytes: 0,
            retention,
            stats: NodeStats::default(),
            deferred: VecDeque::new(),
            draining: Vec::new(),
            stopping: false,
            stalls: Stalls::default(),
        }
    }

    /// Runs until the node is stopped; the error is a fault of the journal.
    pub(crate) fn run(mut self) -> Result<(), String> {
        self.tell_space();
        // What comes first waits until what is to be free is.
        self.look();
        self.carry_out();
        loop {
            let Some(first) = self.next_message() else { return Ok(()) };
            self.notice_stall();
            let mut inputs = 0;
            if let Some(message) = first {
                inputs += self.take(message)?;
            }
            self.take_deferred()?;
            while inputs < BATCH {
                let Ok(message) = self.ends.inbox.try_recv() else { break };
                inputs += self.take(message)?;
            }
            let now = self.clock.now();
            if self.core.next_deadline().is_some_and(|at| at <= now.mono_ms) {
                self.core.handle(now, Input::Tick);
            }
            self.keep_house();
            // Before the answers: who reads one sees a reach that is no longer than it was for it.
            self.ends.keys_since_ms.store(self.core.keys_since_ms(), Ordering::Relaxed);
            self.carry_out();
            if self.finished() {
                return Ok(());
            }
        }
    }

    /// The next message, or nothing when the core's deadline comes first. None: everybody who
    /// could send one is gone.
    fn next_message(&mut self) -> Option<Option<ToPump>> {
        let house = self.retention.next_ms();
        let due = self.core.next_deadline().into_iter().chain(self.lazy_until).chain(self.look_at);
        let fetch = self.fetches.is_waiting().then(|| self.clock.now().mono_ms + fetches::PAUSE_MS);
        let at = due.chain(self.refused_until).chain(fetch).chain([house]).min().unwrap_or(house);
        let wait = self.clock.until(at).min(LONGEST_WAIT);
        self.stalls.waits(wait);
        match self.ends.inbox.recv_timeout(wait) {
            Ok(message) => Some(Some(message)),
            Err(channel::RecvTimeoutError::Timeout) => Some(None),
            Err(channel::RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Whoever stood still does not know what has happened meanwhile: before anything else.
    fn notice_stall(&mut self) {
        let Some(stood) = self.stalls.is_over() else { return };
        tracing::warn!("stood still for {stood:.1?}: databases are claimed anew");
        self.core.handle(self.clock.now(), Input::Paused);
        self.ends.paused.send_modify(|count| *count += 1);
    }

    /// Takes a message in; says how many inputs it was.
    fn take(&mut self, message: ToPump) -> Result<usize, String> {
        let now = self.clock.now();
        let mut inputs = 1;
        match message {
            ToPump::SessionOpened { session, outbox } => self.outboxes.insert(session, outbox),
            // Everything from outside keeps its order.
            ToPump::SessionEnded(_) | ToPump::Commands { .. } | ToPump::Call { .. }
                if self.is_short() || !self.deferred.is_empty() =>
            {
                self.deferred.push_back(message);
            }
            ToPump::SessionEnded(session) => {
                self.outboxes.remove(session);
                self.core.handle(now, Input::SessionEnded { session });
            }
            ToPump::Commands { session, mut batch, room } => {
                inputs = batch.len();
                let mut commands = batch.drain(..);
                while let Some((request, command)) = commands.next() {
                    let caller = Caller { session, request };
                    self.core.handle(now, Input::Command { caller, command });
                    if self.is_short() && commands.len() > 0 {
                        let batch = commands.collect();
                        self.deferred.push_back(ToPump::Commands { session, batch, room });
                        return Ok(inputs);
                    }
                }
                drop(room);
            }
            ToPump::CaughtUp(session) => {
                if self.outboxes.has_caught_up(session) {
                    self.core.handle(now, Input::Behind { session, behind: false });
                }
            }
            ToPump::Call { command, answer, room, place } => {
                self.next_call += 1;
                self.calls.insert(self.next_call, (answer, place));
                let caller = Caller { session: CALLS, request: self.next_call };
                self.core.handle(now, Input::Command { caller, command });
                drop(room);
            }
            ToPump::Written(written) => self.written(written),
            ToPump::Fetched { fetch, events, next } => {
                self.fetches.done(fetch);
                self.core.handle(now, Input::Fetched { fetch, events, next });
            }
            ToPump::Unreadable { fetch, detail } => {
                self.fetches.done(fetch);
                self.core.handle(now, Input::Unreadable { fetch, detail });
            }
            ToPump::ChainUnreadable { id, detail } => {
                self.core.handle(now, Input::ChainUnreadable { id, detail });
            }
            ToPump::Chain { id, chain } => self.core.handle(now, Input::Chain { id, chain }),
            ToPump::Databases(said) => {
                inputs = said.len();
                for input in said {
                    self.core.handle(now, input);
                }
            }
            ToPump::OpenDatabases(answer) => {
                // Whoever asked may have gone away.
                let _ = answer.send(self.core.open_databases());
            }
            ToPump::Stats(answer) => {
                self.stats.core = self.core.stats();
                self.stats.sessions = self.outboxes.len();
                self.stats.free_bytes = self.ends.space.free;
                self.stats.low_space = self.ends.space.low || self.is_full();
                self.stats.segments = self.retention.count();
                self.stats.unread_bytes = self.ends.all_unread.bytes() as u64;
                self.stats.refused = self.refused_calls + self.outboxes.refusals();
                self.stats.clock_offset_ms = self.clock.offset_ms();
                // Whoever asked may have gone away.
                let _ = answer.send(self.stats);
            }
            ToPump::Snapshot(answer) => {
                // If the thread has ended, so has this, and whoever asked hears that.
                let _ = self.ends.writer.send(WriteJob::Snapshot(answer));
            }
            ToPump::Drain(answer) => {
                self.core.handle(now, Input::Drain);
                self.draining.push(answer);
            }
            ToPump::Stop => self.stopping = true,
            ToPump::Fault(error) => return Err(error),
        }
        Ok(inputs)
    }

    /// There is hardly room for new work, and a group is on its way that will bring more. When
    /// there is none the room is as it is, and the core refuses what does not fit.
    fn is_short(&self) -> bool {
        self.is_more_coming() && !self.ends.space.low && !self.has_room()
    }

    /// A group is on its way, after which the room is known anew.
    fn is_more_coming(&self) -> bool {
        self.writing > 0 || self.core.durable() < self.core.last()
    }

    /// New work is refused although the disk is not nearly full: what is left of it is kept for what
    /// was accepted.
    fn is_full(&self) -> bool {
        !self.is_more_coming() && !self.has_room()
    }

    /// There is room for any one command.
    fn has_room(&self) -> bool {
        self.core.room() >= SHORT_BYTES
    }

    /// Takes up what had to wait for room.
    fn take_deferred(&mut self) -> Result<(), String> {
        for message in std::mem::take(&mut self.deferred) {
            self.take(message)?;
        }
        Ok(())
    }

    fn written(&mut self, written: Written) {
        self.writing -= 1;
        self.ends.space = written.space;
        if written.rolled {
            self.rolling = None;
        }
        if let Some(segments) = written.segments {
            self.retention.changed(segments);
        }
        if let Some(segment) = written.not_compacted {
            self.retention.not_compacted(segment, self.ends.space.left);
        }
        if written.looked {
            if self.ends.space.wants_roll {
                // It did not fit; there may be less of it by now.
                self.checkpoint_bytes -= self.checkpoint_bytes / 8;
            }
            let pause = if self.has_room() { LOOK_MS } else { LOOK_SHORT_MS };
            self.look_at = Some(self.clock.now().mono_ms + pause);
        }
        if written.records > 0 {
            self.stats.groups += 1;
            self.stats.records += written.records;
            self.stats.last_group = written.records;
            self.stats.sync_nanos += written.nanos;
            // Before somebody begins who has waited for a place: it may need the room.
            self.tell_space();
            // In pieces: those who hear of the first work while the others are told.
            while self.core.durable() < written.through {
                let through = written.through.min(Lsn(self.core.durable().0 + PIECE));
                self.core.handle(self.clock.now(), Input::Durable { through });
                if through < written.through {
                    self.tell();
                }
            }
            self.ends.durable.send_replace(written.through.0);
            self.retention.durable(written.through);
        }
        self.tell_space();
    }

    /// What new work may take: what is free beyond what waits to be written.
    fn tell_space(&mut self) {
        let Space { free, next, .. } = self.ends.space;
        // Some of it may be written behind the checkpoint.
        let free = self.rolling.map_or(free, |bytes| free.min(next.saturating_sub(bytes)));
        let free = free.saturating_sub(self.groups.bytes());
        self.core.handle(self.clock.now(), Input::Space { free, low: self.ends.space.low });
    }

    /// Carries out everything that the core wants, and hands over the next group.
    fn carry_out(&mut self) {
        self.tell();
        if self.writing == 0 {
            self.roll_if_full();
            if self.is_group_due()
                && let Some(group) = self.groups.take()
            {
                let keep = self.keep();
                self.write(WriteJob::Group { group, keep });
            }
        }
    }

    /// What the journal is to keep free: for everything that was accepted, for what makes room and
    /// for new work. The next segment has a checkpoint's room, and that of what was accepted only
    /// while it is about to begin: with a million open transactions it is more than a GiB.
    fn keep(&self) -> Keep {
        let total = self.ends.space.total;
        let spare = (total / SPARE_SHARE).clamp(LEAST_SPARE_BYTES, SPARE_BYTES);
        let (reserved, checkpoint) = (self.core.reserved(), self.checkpoint_bytes);
        Keep {
            free: reserved + spare,
            least: reserved + UPKEEP_BYTES,
            next: checkpoint + spare / 2 + UPKEEP_BYTES,
            least_next: checkpoint + UPKEEP_BYTES + LEAST_NEXT_BYTES,
            moves: reserved,
        }
    }

    /// Carries out everything that the core wants, and sends what sessions are to see.
    fn tell(&mut self) {
        loop {
            let appended = self.drain();
            match appended {
                // One machine: a record has its place as soon as it is in the queue.
                Some(through) => {
                    self.core.handle(self.clock.now(), Input::Accepted { through });
                }
                None => {
                    self.tell_refused();
                    while let Some(fetch) = self.fetches.next() {
                        self.read(ReadJob::Fetch(fetch));
                    }
                    let Flushed { over, behind } = self.outboxes.flush();
                    if over.is_empty() && behind.is_empty() {
                        break;
                    }
                    for session in behind {
                        let behind = Input::Behind { session, behind: true };
                        self.core.handle(self.clock.now(), behind);
                    }
                    for session in over {
                        self.core.handle(self.clock.now(), Input::SessionEnded { session });
                    }
                }
            }
        }
    }

    /// Tells those who were refused, some milliseconds after the first of them.
    fn tell_refused(&mut self) {
        if !self.outboxes.has_refusals() {
            return;
        }
        let now_ms = self.clock.now().mono_ms;
        let until_ms = *self.refused_until.get_or_insert(now_ms + REFUSED_MS);
        if now_ms >= until_ms || self.stopping {
            self.refused_until = None;
            self.outboxes.tell_refused();
        }
    }

    /// The records that wait go to the journal now, and not with later ones.
    fn is_group_due(&mut self) -> bool {
        if self.groups.is_empty() {
            self.lazy_until = None;
            return false;
        }
        let now_ms = self.clock.now().mono_ms;
        let until_ms = *self.lazy_until.get_or_insert(now_ms + LAZY_MS);
        let due = self.core.awaits_durable()
            || now_ms >= until_ms
            || self.groups.bytes() >= LAZY_BYTES
            || self.groups.has_roll()
            || self.stopping
            || !self.deferred.is_empty();
        if due {
            self.lazy_until = None;
        }
        due
    }

    /// Takes the outputs; says up to where records were appended.
    fn drain(&mut self) -> Option<Lsn> {
        let mut appended = None;
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Append { lsn, record } => {
                    self.groups.push(lsn, record);
                    appended = Some(lsn);
                }
                Output::Reply { to: Caller { session: CALLS, request }, reply } => {
                    if let Some((answer, _place)) = self.calls.remove(&request) {
                        self.refused_calls += u64::from(is_later(&reply));
                        // Whoever asked may have gone away.
                        let _ = answer.send(reply);
                    }
                }
                Output::Reply { to, reply } => {
                    self.outboxes.push(to.session, Item::Reply { request: to.request, reply });
                }
                Output::ToService { session, message } => {
                    self.outboxes.push(session, Item::ToService(message));
                }
                Output::Deliver { session, delivery } => {
                    self.outboxes.push(session, Item::Deliver(delivery));
                }
                Output::Gap { session, gap } => self.outboxes.push(session, Item::Gap(gap)),
                Output::EndSession { session, refusal } => {
                    self.outboxes.push(session, Item::End(refusal));
                }
                Output::Fetch(fetch) => self.fetches.push(fetch),
                Output::ReadChain { id } => self.read(ReadJob::Chain(id)),
                Output::Attention { id, detail } => {
                    tracing::warn!(transaction = %id, "needs attention: {detail}");
                }
                Output::Trouble { id, participant, commit, detail } => {
                    let told = if commit { "commit" } else { "abort" };
                    // A stranger's words, so quoted.
                    tracing::warn!(
                        transaction = %id, service = %participant, reason = ?detail,
                        "a service could not {told} and tries again"
                    );
                }
                Output::AttentionOver { id } => {
                    tracing::info!(transaction = %id, "attention is over: it has ended as decided");
                }
                Output::FinishOnSession { session, id, database, commit } => {
                    self.outboxes.push(session, Item::Finish { id, database, commit });
                }
                Output::FinishBranch { id, database, commit, holder } => {
                    self.ask_database(database, DatabaseJob::Finish { id, commit, holder });
                }
                Output::Verify { id, database, local } => {
                    self.ask_database(database, DatabaseJob::Verify { id, local });
                }
                Output::Resolve { id, database, abandoned } => {
                    self.ask_database(database, DatabaseJob::Resolve { id, abandoned });
                }
            }
        }
        appended
    }

    /// A full segment is closed: the core's state starts the next one.
    fn roll_if_full(&mut self) {
        // What was accepted has its room behind the checkpoint too, whatever the disk has by then.
        // Without it the segment goes on, and is closed when there is room.
        let accepted = self.core.reserved() + self.groups.bytes() + UPKEEP_BYTES;
        let room = self.ends.space.next.saturating_sub(accepted);
        let fits = room > 0 && room >= self.checkpoint_bytes;
        if !self.ends.space.wants_roll || !fits || self.groups.has_roll() {
            return;
        }
        self.ends.space.wants_roll = false;
        let numbers = self.retention.numbers();
        match self.core.checkpoint_within(numbers, room) {
            Ok(bytes) => {
                self.checkpoint_bytes = bytes;
                self.rolling = Some(bytes);
            }
            Err(bytes) => {
                self.checkpoint_bytes = bytes;
                self.look_at = self.look_at.map(|_| 0);
                return;
            }
        }
        let mut records: Vec<(Lsn, Arc<Record>)> = Vec::new();
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Append { lsn, record } => records.push((lsn, record)),
                other => unreachable!("a checkpoint only appends, not {other:?}"),
            }
        }
        if let Some((through, _)) = records.last() {
            let through = *through;
            self.groups.push_roll(records);
            self.core.handle(self.clock.now(), Input::Accepted { through });
        }
    }

    /// Retention and removal of segments, now and then.
    fn keep_house(&mut self) {
        let now = self.clock.now();
        if self.retention.is_due(now) {
            self.outboxes.hurry();
            for input in self.retention.expired(now, &self.core) {
                self.core.handle(now, input);
            }
            if let Some(segment) = self.retention.removable(&self.core, now) {
                let lsn = self.core.drop_segment(segment);
                self.retention.removing(segment, lsn);
            } else if let Some((segment, needs)) = self.compactable(now) {
                self.stats.compactions += 1;
                self.write(WriteJob::Compact { segment, needs });
            }
        }
        if let Some(segment) = self.retention.removed() {
            self.write(WriteJob::Drop(segment));
        }
        // Also when nothing is written: who is refused for want of room writes nothing.
        if self.look_at.is_some_and(|at| now.mono_ms >= at) {
            self.look();
        }
    }

    fn compactable(&mut self, now: Now) -> Option<(u64, Needs)> {
        self.retention.compactable(&self.core, now, self.ends.space.left)
    }

    /// Has the journal's thread look at the disk.
    fn look(&mut self) {
        self.look_at = None;
        self.write(WriteJob::Look(self.keep()));
    }

    fn ask_database(&self, database: Name, job: DatabaseJob) {
        // With nobody to ask there is no answer, and the core asks again.
        let _ = self.ends.databases.send((database, job));
    }

    fn write(&mut self, job: WriteJob) {
        self.writing += 1;
        // If the thread has ended it has sent its fault before, which ends the pump.
        let _ = self.ends.writer.send(job);
    }

    fn read(&self, job: ReadJob) {
        // The pool lives as long as the pump.
        let _ = self.ends.readers.send(job);
    }

    /// Stopping, and everything is durable; answers who waits for the decisions on the way.
    fn finished(&mut self) -> bool {
        if !self.draining.is_empty() && self.core.stats().deciding == 0 {
            for answer in self.draining.drain(..) {
                let _ = answer.send(());
            }
        }
        self.stopping && self.writing == 0 && self.groups.is_empty()
    }
}
