//! What a step of the core wants done: outputs at once, records to append, and outputs that wait
//! for a record to be durable.
//!
//! Holding back is done here and nowhere else, so that no handler can tell too early (I6).

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use crate::command::Caller;
use crate::ids::Lsn;
use crate::output::{Output, Reply};
use crate::record::Record;
use crate::refusal::Refusal;

/// The effects of the core, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    /// Ready to be carried out.
    ready: VecDeque<Output>,
    /// Not durable yet, by LSN.
    held: VecDeque<(Lsn, Output)>,
    /// The last LSN that was handed out.
    last: Lsn,
    /// The last LSN that is accepted.
    accepted: Lsn,
    /// The last LSN that is durable.
    durable: Lsn,
    /// The last LSN of which something waits to be durable.
    awaited: Lsn,
    /// Appended, not accepted yet.
    appended: VecDeque<(Lsn, Arc<Record>)>,
    /// Accepted, not durable yet.
    undurable: VecDeque<(Lsn, Arc<Record>)>,
    /// Bytes of the records appended since the room in the log was last told.
    appended_bytes: u64,
}

impl Effects {
    /// Effects after recovery: everything up to `last` is durable.
    pub(crate) fn after(last: Lsn) -> Self {
        Self { last, accepted: last, durable: last, ..Self::default() }
    }

    /// Appends a record that something waits for, and says where it will be.
    pub(crate) fn append(&mut self, record: Record) -> Lsn {
        self.append_again(Arc::new(record))
    }

    /// Appends a record that did not find its place before.
    pub(crate) fn append_again(&mut self, record: Arc<Record>) -> Lsn {
        let lsn = self.push(record);
        self.await_durable(lsn);
        lsn
    }

    /// Appends a record whose being durable nobody waits for yet: it may go to the disk together
    /// with what comes after it.
    pub(crate) fn append_lazily(&mut self, record: Record) -> Lsn {
        self.push(Arc::new(record))
    }

    fn push(&mut self, record: Arc<Record>) -> Lsn {
        self.last = Lsn(self.last.0 + 1);
        self.appended_bytes += record.size_bound();
        self.appended.push_back((self.last, Arc::clone(&record)));
        self.ready.push_back(Output::Append { lsn: self.last, record });
        self.last
    }

    /// Something waits for the record at `lsn` to be durable.
    pub(crate) fn await_durable(&mut self, lsn: Lsn) {
        self.awaited = self.awaited.max(lsn);
    }

    /// Records are appended that something waits for.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited > self.durable
    }

    /// Bytes appended since [`Effects::reset_appended`], at most.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// The room in the log is known anew.
    pub(crate) fn reset_appended(&mut self) {
        self.appended_bytes = 0;
    }

    /// Every record that was made has its place in the log.
    pub(crate) fn all_accepted(&self) -> bool {
        self.appended.is_empty()
    }

    /// The last LSN that was handed out.
    pub(crate) fn last(&self) -> Lsn {
        self.last
    }

    /// The last LSN that is durable.
    pub(crate) fn durable(&self) -> Lsn {
        self.durable
    }

    /// Something that reveals nothing.
    pub(crate) fn emit(&mut self, output: Output) {
        self.ready.push_back(output);
    }

    /// Something that reveals the record at `lsn` (and, as the log is a sequence, all before it).
    pub(crate) fn emit_when_durable(&mut self, lsn: Lsn, output: Output) {
        if lsn <= self.durable {
            self.ready.push_back(output);
            return;
        }
        self.await_durable(lsn);
        // Nearly always the newest record: the walk from the back ends at once.
        let place = self.held.iter().rposition(|(l, _)| *l <= lsn).map_or(0, |i| i + 1);
        self.held.insert(place, (lsn, output));
    }

    /// Answers a caller at once.
    pub(crate) fn reply(&mut self, to: Caller, reply: Reply) {
        self.emit(Output::Reply { to, reply });
    }

    /// Answers a caller when the record at `lsn` is durable.
    pub(crate) fn reply_when_durable(&mut self, lsn: Lsn, to: Caller, reply: Reply) {
        self.emit_when_durable(lsn, Output::Reply { to, reply });
    }

    /// Refuses a call. What is refused because of something that is not durable yet has to wait
    /// for it like any other answer: see [`Effects::refuse_when_durable`].
    pub(crate) fn refuse(&mut self, to: Caller, refusal: Refusal) {
        self.reply(to, Reply::Refused(refusal));
    }

    /// Refuses a call by something that the record at `lsn` says.
    pub(crate) fn refuse_when_durable(&mut self, lsn: Lsn, to: Caller, refusal: Refusal) {
        self.reply_when_durable(lsn, to, Reply::Refused(refusal));
    }

    /// The next record that has become accepted, if all up to `through` are.
    pub(crate) fn next_accepted(&mut self, through: Lsn) -> Option<(Lsn, Arc<Record>)> {
        let (lsn, _) = *self.appended.front().filter(|(lsn, _)| *lsn <= through)?;
        let (_, record) = self.appended.pop_front()?;
        self.accepted = lsn;
        self.undurable.push_back((lsn, Arc::clone(&record)));
        Some((lsn, record))
    }

    /// Takes a record that was not written out of the queue.
    pub(crate) fn take_lost(&mut self, lsn: Lsn) -> Option<Arc<Record>> {
        let at = self.appended.iter().position(|(l, _)| *l == lsn)?;
        self.appended.remove(at).map(|(_, record)| record)
    }

    /// The next record that has become durable, if all up to `through` are. What waited for it is
    /// released by [`Effects::release`], after its handler has run.
    pub(crate) fn next_durable(&mut self, through: Lsn) -> Option<(Lsn, Arc<Record>)> {
        self.undurable.front().filter(|(lsn, _)| *lsn <= through)?;
        let (lsn, record) = self.undurable.pop_front()?;
        self.durable = lsn;
        Some((lsn, record))
    }

    /// Makes ready what waited for durable records.
    pub(crate) fn release(&mut self) {
        while self.held.front().is_some_and(|(lsn, _)| *lsn <= self.durable) {
            if let Some((_, output)) = self.held.pop_front() {
                self.ready.push_back(output);
            }
        }
    }

    /// The next output to carry out.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.ready.pop_front()
    }
}
