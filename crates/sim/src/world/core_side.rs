//! Between the world and the core: inputs go in, outputs come out and are carried out, streams
//! carry messages, the log answers.

use handfast_core::command::{Caller, Command};
use handfast_core::event::StoredEvent;
use handfast_core::ids::{Lsn, Offset, SessionId};
use handfast_core::input::{Chain, Input};
use handfast_core::output::{Output, Wanted};
use handfast_core::record::Record;

use super::{Disk, Down, Peer, Stream, World};
use crate::fault::Fault;
use crate::invariants::{Seen, Violation};

/// A run that takes more inputs goes round in circles.
const MOST_INPUTS: u64 = 60_000;

impl World {
    /// The core is given an input, and all that follows from it is carried out.
    pub(super) fn feed(&mut self, mut input: Input) {
        if self.checkers.violation.is_some() {
            return;
        }
        self.inputs += 1;
        if self.inputs > MOST_INPUTS {
            let what = "the world does not come to rest".to_string();
            self.checkers.violation = Some(Violation { invariant: "I13", what });
            return;
        }
        self.spoil_input(&mut input);
        self.trace.line(format_args!("{} > {input:?}", self.now.mono_ms));
        self.facts.input(&input);
        self.see(&Seen::Input(&input));
        if self.fault == Some(Fault::CountsIgnored) {
            self.ignore_counts(&mut input);
        }
        self.count_attempts(&input);
        self.core.handle(self.now, input);
        self.drain();
        self.facts.stats = self.core.stats();
        self.see(&Seen::Handled);
    }

    /// Carries out what the core wants done.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            if let Some(output) = self.spoil_output(output) {
                self.carry_out(output);
            }
            while let Some(output) = self.planted.pop_front() {
                self.carry_out(output);
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        self.trace.line(format_args!("{} < {output:?}", self.now.mono_ms));
        if let Output::Append { lsn, record } = &output {
            Disk::append(&mut self.facts, *lsn, record);
            self.see(&Seen::Appended(*lsn, record));
        }
        let asked = self.facts.output(&output);
        self.see(&Seen::Output(&output, asked.as_ref()));
        match output {
            Output::Append { .. }
            | Output::Attention { .. }
            | Output::Trouble { .. }
            | Output::AttentionOver { .. } => {}
            Output::Reply { to, reply } => self.down(to.session, Down::Reply(to.request, reply)),
            Output::ToService { session, message } => self.down(session, Down::ToService(message)),
            Output::Deliver { session, delivery } => self.down(session, Down::Deliver(*delivery)),
            Output::Gap { session, gap } => self.down(session, Down::Gap(gap)),
            Output::EndSession { session, .. } => self.down(session, Down::End),
            Output::Fetch(fetch) => self.fetches.push_back(fetch),
            Output::ReadChain { id } => self.chains.push_back(id),
            Output::FinishBranch { id, database, commit, .. } => {
                self.finishes.push((id, database, commit));
            }
            Output::FinishOnSession { session, id, database, commit } => {
                self.down(session, Down::Finish { id, database, commit });
            }
            Output::Verify { id, database, local } => self.verifies.push((id, database, local)),
            Output::Resolve { id, database, .. } => self.resolves.push((id, database)),
        }
    }

    fn down(&mut self, session: SessionId, message: Down) {
        if let Some(stream) = self.streams.get_mut(&session).filter(|s| !s.broken) {
            stream.down.push_back(message);
        }
    }

    /// A new stream.
    pub(super) fn open(&mut self, peer: Peer) -> SessionId {
        self.last_session += 1;
        let session = SessionId(self.last_session);
        self.streams.insert(session, Stream::new(peer));
        session
    }

    /// Puts a command on a stream; says its number.
    pub(super) fn send(&mut self, session: SessionId, command: Command) -> u64 {
        self.last_request += 1;
        if let Some(stream) = self.streams.get_mut(&session) {
            stream.up.push_back((self.last_request, command));
        }
        self.last_request
    }

    /// The first message on its way to the server arrives, or its end does.
    pub(super) fn deliver_up(&mut self, session: SessionId) {
        let Some(stream) = self.streams.get_mut(&session) else { return };
        match stream.up.pop_front() {
            Some((request, command)) => {
                let caller = Caller { session, request };
                self.feed(Input::Command { caller, command });
            }
            None if stream.broken => {
                self.streams.remove(&session);
                self.feed(Input::SessionEnded { session });
            }
            None => {}
        }
    }

    /// The first message on its way from the server arrives.
    pub(super) fn deliver_down(&mut self, session: SessionId) {
        let Some(stream) = self.streams.get_mut(&session) else { return };
        let peer = stream.peer;
        let Some(message) = stream.down.pop_front() else { return };
        if matches!(message, Down::End) {
            return self.break_stream(session);
        }
        match peer {
            Peer::Client(at) => self.client_told(at, message),
            Peer::Instance(service, at) => self.instance_told(service, at, message),
            Peer::Subscriber(at) => self.subscriber_told(at, message),
            Peer::Publisher(at) => self.publisher_told(at, &message),
        }
    }

    /// A stream breaks: of what is under way, a first part arrives in each direction.
    pub(super) fn break_stream(&mut self, session: SessionId) {
        let Some(stream) = self.streams.get_mut(&session) else { return };
        let (peer, arrives) = (stream.peer, self.rng.index(stream.down.len() + 1));
        let reaches = self.rng.index(stream.up.len() + 1);
        self.trace.line(format_args!("{} {session} of {peer:?} breaks", self.now.mono_ms));
        stream.up.truncate(reaches);
        for _ in 0..arrives {
            let next = self.streams.get(&session).and_then(|s| s.down.front());
            if next.is_some_and(|m| !matches!(m, Down::End)) {
                self.deliver_down(session);
            }
        }
        if let Some(stream) = self.streams.get_mut(&session) {
            let left = std::mem::take(&mut stream.down);
            stream.broken = true;
            if let Peer::Instance(service, at) = peer {
                self.left_unread(service, at, left);
            }
        }
        self.stream_lost(peer, session);
    }

    /// Its peer notices that a stream is gone.
    pub(super) fn stream_lost(&mut self, peer: Peer, session: SessionId) {
        match peer {
            Peer::Client(at) => self.client_lost(at, session),
            Peer::Instance(service, at) => self.instance_lost(service, at, session),
            Peer::Subscriber(at) => self.subscriber_lost(at, session),
            Peer::Publisher(at) => self.publisher_lost(at, session),
        }
    }

    /// Records get their place.
    pub(super) fn accept(&mut self) {
        if Disk::accept(&mut self.facts, &mut self.rng) {
            self.tell_accepted();
        }
    }

    /// All records get their place.
    pub(super) fn accept_all(&mut self) {
        self.facts.accepted = self.facts.log.len() as u64;
        self.tell_accepted();
    }

    fn tell_accepted(&mut self) {
        let through = Lsn(self.facts.accepted);
        if through.0 > self.disk.told.0 {
            self.disk.told.0 = through.0;
            self.feed(Input::Accepted { through });
            if self.fault == Some(Fault::SyncNotWaitedFor) && self.rng.percent(30) {
                self.disk.told.1 = through.0;
                self.feed(Input::Durable { through });
            }
        }
    }

    /// The group that is being written is on disk.
    pub(super) fn sync(&mut self) {
        if self.disk.sync(&mut self.facts) && self.facts.durable > self.disk.told.1 {
            self.disk.told.1 = self.facts.durable;
            self.feed(Input::Durable { through: Lsn(self.facts.durable) });
        }
    }

    /// Everything that was appended becomes durable.
    pub(super) fn settle_disk(&mut self) -> bool {
        let mut moved = false;
        while self.facts.durable < self.facts.log.len() as u64 {
            if self.checkers.violation.is_some() {
                return false;
            }
            moved = true;
            self.accept();
            self.disk.write(&self.facts);
            self.sync();
        }
        moved
    }

    /// The reader answers the oldest fetch.
    pub(super) fn answer_fetch(&mut self) {
        let Some(fetch) = self.fetches.pop_front() else { return };
        let start = self.facts.durable_start(fetch.topic);
        let stored = |offset: &Offset| {
            let placed = self.facts.events.get(&(fetch.topic, *offset))?;
            let visible = self.facts.is_durable(placed.lsn) && *offset >= start;
            let wall_ms = self.facts.record(placed.lsn).map_or(0, wall_ms);
            visible.then(|| StoredEvent {
                offset: *offset,
                key: placed.key,
                transaction: placed.transaction,
                wall_ms,
                body: placed.body.clone(),
            })
        };
        let (mut events, next): (Vec<StoredEvent>, Offset) = match &fetch.wanted {
            Wanted::Range { from, to, max_events } => {
                let most = (*max_events as usize).min(1 + self.rng.index(4));
                let offsets = self.facts.events.range((fetch.topic, *from)..(fetch.topic, *to));
                let all = offsets.filter_map(|((_, offset), _)| stored(offset));
                let events: Vec<StoredEvent> = all.take(most).collect();
                let next = match events.last() {
                    Some(last) if events.len() == most => Offset(last.offset.0 + 1),
                    Some(_) | None => *to,
                };
                (events, next)
            }
            Wanted::Offsets(offsets) => {
                let most = 1 + self.rng.index(4);
                (offsets.iter().filter_map(stored).take(most).collect(), Offset(0))
            }
        };
        if self.fault == Some(Fault::BytesChanged)
            && self.rng.percent(5)
            && let Some(event) = events.first_mut()
        {
            event.body = bytes::Bytes::from_static(b"damaged");
        }
        self.feed(Input::Fetched { fetch: fetch.fetch, events, next });
    }

    /// The reader answers the oldest question about a transaction.
    pub(super) fn answer_chain(&mut self) {
        let Some(id) = self.chains.pop_front() else { return };
        let durable = self.facts.log.iter().take(self.facts.durable as usize);
        let of_it = (1..).zip(durable).filter(|(_, record)| {
            record.transaction() == Some(id) && !matches!(***record, Record::TransactionRestated(_))
        });
        let records = of_it.map(|(lsn, record)| (Lsn(lsn), (**record).clone())).collect();
        // Now and then the part of the log that could tell is not at hand.
        let whole = self.healing || self.rng.percent(90);
        self.feed(Input::Chain { id, chain: Chain { records, whole } });
    }

    /// Retention offers to forget some events.
    pub(super) fn retention(&mut self) {
        let topic = handfast_core::ids::TopicId(self.rng.below(2) as u32);
        let end =
            self.facts.events.range((topic, Offset(0))..).take_while(|((t, _), _)| *t == topic);
        let Some(((_, last), _)) = end.last() else { return };
        let to = Offset(self.rng.below(last.0 + 2));
        self.feed(Input::Expire { topic, to, bytes: 10 });
    }
}

fn wall_ms(record: &Record) -> u64 {
    match record {
        Record::Commit(commit) => commit.wall_ms,
        Record::Published(published) => published.wall_ms,
        _ => 0,
    }
}
