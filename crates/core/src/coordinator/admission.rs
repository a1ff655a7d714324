//! C21: a begin for which there is no place among the open transactions waits a moment for one.
//!
//! Places become free in groups, with a sync, while begins come one by one. If each that finds none
//! were refused at once, a server that is asked for more than it can do would have places empty
//! much of the time. The line is bounded in number, bytes and time, and keeps the order of arrival.
//!
//! A begin that waits has no effect, and its id has been told to nobody: nothing else can name it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;

use crate::command::{BeginRequest, Caller};
use crate::ids::SessionId;
use crate::limits::{Limits, WAITING_BYTES, WAITING_MS};
use crate::refusal::{Code, Refusal};

use super::{Context, Coordinator};

/// Those who wait, who came first in front. After each input it is empty, or no place is free.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<Waiting>,
    /// Bytes of events and work that they carry.
    bytes: usize,
}

/// One begin.
#[derive(Clone, Debug)]
struct Waiting {
    caller: Caller,
    request: Box<BeginRequest>,
    /// Of events and work that it carries.
    bytes: usize,
    until_ms: u64,
}

impl Line {
    /// One alone may be as large as it likes.
    fn has_room_for(&self, bytes: usize, limits: &Limits) -> bool {
        let is_alone = self.waiting.is_empty() && limits.waiting > 0;
        is_alone || self.waiting.len() < limits.waiting && self.bytes + bytes <= WAITING_BYTES
    }

    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.bytes;
        self.waiting.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.bytes;
        Some(waiting)
    }

    /// When the first one has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.until_ms)
    }
}

impl Coordinator {
    /// C21: the request comes back if there is a place for it. Otherwise it waits, or is refused if
    /// too many do.
    pub(super) fn wait_for_place(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        request: Box<BeginRequest>,
    ) -> Option<Box<BeginRequest>> {
        // Whoever comes while the server is about to stop hears that at once.
        if cx.draining || self.transactions.len() < cx.limits.open_transactions {
            return Some(request);
        }
        // Those whose time is over take nobody's place in the line, however late the tick comes.
        self.refuse_late(cx);
        let bytes = request.payload_bytes();
        if self.line.has_room_for(bytes, cx.limits) {
            let until_ms = cx.now.mono_ms + WAITING_MS;
            self.line.push(Waiting { caller, request, bytes, until_ms });
        } else {
            self.refuse_too_many(cx, caller);
        }
        None
    }

    /// Begins that wait for a place.
    pub(crate) fn waiting(&self) -> usize {
        self.line.waiting.len()
    }

    /// Somebody waits, and a place is free.
    pub(crate) fn can_admit(&self, limits: &Limits) -> bool {
        !self.line.waiting.is_empty() && self.transactions.len() < limits.open_transactions
    }

    /// C21: the first of those who wait begins, like one that comes now: its key may have been used
    /// meanwhile.
    pub(crate) fn admit(&mut self, cx: &mut Context<'_>) {
        // However late this comes, nobody begins who has waited for too long: a begin that is much
        // younger than its id might ask for first votes that P2 refuses.
        self.refuse_late(cx);
        if let Some(Waiting { caller, request, .. }) = self.line.pop() {
            self.begin(cx, caller, request);
        }
    }

    /// C21: those who have waited long enough are refused.
    pub(super) fn refuse_late(&mut self, cx: &mut Context<'_>) {
        while self.line.next_deadline().is_some_and(|at| at <= cx.now.mono_ms) {
            if let Some(waiting) = self.line.pop() {
                self.refuse_waiting(cx, waiting);
            }
        }
    }

    /// C21: the server is about to stop, which those who wait hear at once.
    pub(crate) fn refuse_all_waiting(&mut self, cx: &mut Context<'_>) {
        while let Some(Waiting { caller, request, .. }) = self.line.pop() {
            self.begin(cx, caller, request);
        }
    }

    /// What waits for a stream that has ended begins no more.
    pub(super) fn refuse_waiting_of(&mut self, cx: &mut Context<'_>, session: SessionId) {
        for _ in 0..self.line.waiting.len() {
            let Some(waiting) = self.line.pop() else { return };
            if waiting.caller.session == session {
                self.refuse_waiting(cx, waiting);
            } else {
                self.line.push(waiting);
            }
        }
    }

    /// A key may have been used while it waited: then the answer is what has come of that (I10).
    fn refuse_waiting(&mut self, cx: &mut Context<'_>, waiting: Waiting) {
        let Waiting { caller, request, .. } = waiting;
        if !self.is_known(cx, caller, &request) {
            self.refuse_too_many(cx, caller);
        }
    }

    fn refuse_too_many(&self, cx: &mut Context<'_>, caller: Caller) {
        let detail = format!("{} transactions are open", self.transactions.len());
        cx.effects.refuse(caller, Refusal::new(Code::TooManyTransactions, detail));
    }
}
