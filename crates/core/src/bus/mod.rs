//! The event bus: topics, publishing, subscriptions and their deliveries.
//!
//! It is part of the same machine as the coordinator because a transaction's events and
//! acknowledgements are part of its decision. It never decides about a transaction.
//!
//! What the log holds (topics, facts of subscriptions, producers) changes only in the fold,
//! `apply.rs`. Everything else (offsets handed out ahead, windows, leases, credit) is made anew
//! after a restart. A command that appends a record marks at once what the record will change, so
//! that the commands between append and fold see it.

mod acknowledge;
mod apply;
mod attach;
mod damaged;
mod dead;
mod deliver;
mod durable;
mod ending;
mod facts;
mod flow;
mod gap;
mod lease;
mod near;
mod needs;
mod parts;
mod producers;
mod progress;
mod publish;
mod refusals;
mod restate;
mod stage;
mod standing;
mod subscription;
mod subscriptions;
mod suspects;
#[cfg(test)]
mod tests;
mod timers;
mod topics;
mod window;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use self::attach::Streams;
use self::producers::Producers;
use self::subscription::Subscription;
use self::timers::Timers;
use self::topics::{ADMIN_BYTES, Topic};
use crate::command::{Caller, Command};
use crate::effects::Effects;
use crate::event::StagedEvent;
use crate::ids::{DeliveryToken, Lsn, Name, Now, Offset, SubscriptionId, TopicId};
use crate::limits::Limits;
use crate::output::Reply;
use crate::record::Record;
use crate::refusal::{Code, Refusal};

/// What one transaction has staged: checked, and taken from every quota, until the transaction
/// commits or fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Staged {
    /// Its events, in the order in which they were staged.
    pub(crate) events: Vec<StagedEvent>,
    /// The deliveries that it acknowledges; each waits for the decision.
    pub(crate) acknowledgements: Vec<(SubscriptionId, Offset)>,
    /// Bytes of the events.
    pub(crate) bytes: usize,
}

impl Staged {
    /// Events and acknowledgements: what a commit has to count.
    pub(crate) fn items(&self) -> usize {
        self.events.len() + self.acknowledgements.len()
    }
}

pub use parts::Part;

/// The bus.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bus {
    topics: BTreeMap<TopicId, Topic>,
    topic_names: BTreeMap<Name, TopicId>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    subscription_names: BTreeMap<Name, SubscriptionId>,
    producers: Producers,
    next_topic: TopicId,
    next_subscription: SubscriptionId,
    streams: Streams,
    /// Who waits for which fetch.
    fetches: BTreeMap<u64, SubscriptionId>,
    last_fetch: u64,
    timers: Timers,
    tokens: Tokens,
    staged_bytes: usize,
    /// Events staged in open transactions.
    staged_events: usize,
    /// The last record that the bus appended.
    last: Lsn,
    /// Recovery is over: what it found was taken up.
    taken_up: bool,
    /// Something has happened since recovery.
    awake: bool,
}

/// Makes the tokens of deliveries.
#[derive(Clone, Copy, Debug, Default)]
struct Tokens {
    epoch: u32,
    counter: u32,
}

impl Tokens {
    /// An epoch that was not known begins its numbers anew.
    fn enter(&mut self, epoch: u32) {
        if epoch > self.epoch {
            *self = Self { epoch, counter: 0 };
        }
    }

    /// The next token. After 2^32 deliveries in one epoch the numbers come again, rather than run
    /// into those of the next epoch: a token only has to differ from the others of its event.
    fn next(&mut self) -> DeliveryToken {
        self.counter = self.counter.wrapping_add(1);
        DeliveryToken(u64::from(self.epoch) << 32 | u64::from(self.counter))
    }
}

/// One command's surroundings.
struct Call<'a> {
    now: Now,
    limits: &'a Limits,
    room: Room,
    caller: Caller,
    effects: &'a mut Effects,
}

/// Bytes that may still be appended to the log, beyond what is kept for accepted work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// By new work.
    pub(crate) work: u64,
    /// By what makes room or ends work: never less.
    pub(crate) upkeep: u64,
}

impl Call<'_> {
    /// Refuses new work that would not fit into the log.
    fn need_space(&self, bytes: u64) -> Result<(), Refusal> {
        need(bytes, self.room.work)
    }

    /// Refuses what makes room or ends work only if the log has not even room for that.
    fn need_upkeep(&self, bytes: u64) -> Result<(), Refusal> {
        need(bytes, self.room.upkeep)
    }

    /// Refuses one more of what is counted, or what would not fit into the log.
    fn need_room(&self, most: usize, has: usize, what: &str) -> Result<(), Refusal> {
        if has >= most {
            let detail = format!("there are {has} {what}, at most {most}");
            return Err(Refusal::new(Code::LimitReached, detail));
        }
        self.need_space(ADMIN_BYTES)
    }
}

fn need(bytes: u64, room: u64) -> Result<(), Refusal> {
    if bytes > room {
        let detail = format!("{bytes} bytes do not fit into the log");
        return Err(Refusal::new(Code::NoSpace, detail));
    }
    Ok(())
}

/// An answer, and the record that it waits for.
struct Answer {
    after: Lsn,
    reply: Reply,
}

impl Answer {
    /// It reveals nothing.
    fn now(reply: Reply) -> Self {
        Self { after: Lsn(0), reply }
    }

    /// It reveals the record at `lsn`.
    fn after(lsn: Lsn, reply: Reply) -> Self {
        Self { after: lsn, reply }
    }
}

/// What one subscription may reach besides itself.
struct Reach<'a> {
    now: Now,
    topic_start: Offset,
    visible: Offset,
    streams: &'a mut Streams,
    fetches: &'a mut BTreeMap<u64, SubscriptionId>,
    last_fetch: &'a mut u64,
    timers: &'a mut Timers,
    tokens: &'a mut Tokens,
    last: &'a mut Lsn,
    effects: &'a mut Effects,
}

impl Reach<'_> {
    fn append(&mut self, record: Record) -> Lsn {
        *self.last = self.effects.append(record);
        *self.last
    }

    fn next_token(&mut self) -> DeliveryToken {
        self.tokens.next()
    }

    fn number_fetch(&mut self, id: SubscriptionId) -> u64 {
        *self.last_fetch += 1;
        self.fetches.insert(*self.last_fetch, id);
        *self.last_fetch
    }
}

impl Bus {
    /// A command of the bus (topics, publish, subscriptions, deliveries, dead letters).
    /// What does not fit into `room` is refused `no_space`.
    pub(crate) fn command(
        &mut self,
        now: Now,
        limits: &Limits,
        room: Room,
        caller: Caller,
        command: Command,
        effects: &mut Effects,
    ) {
        self.wake(effects);
        let mut call = Call { now, limits, room, caller, effects };
        match self.carry_out(&mut call, command) {
            Ok(Some(answer)) => effects.reply_when_durable(answer.after, caller, answer.reply),
            Ok(None) => {}
            // Most refusals come from what the bus has appended; none is hurt by waiting for it.
            Err(refusal) => effects.refuse_when_durable(self.last, caller, refusal),
        }
    }

    /// The last record that the bus appended. What it refuses to stage may be refused because of
    /// it, so the refusal waits until it is durable.
    pub(crate) fn last(&self) -> Lsn {
        self.last
    }

    /// None: the command was answered already.
    fn carry_out(
        &mut self,
        call: &mut Call<'_>,
        command: Command,
    ) -> Result<Option<Answer>, Refusal> {
        let answer = match command {
            Command::CreateTopic { name, settings } => self.create_topic(call, name, settings)?,
            Command::AlterTopic { name, settings } => self.alter_topic(call, name, settings)?,
            Command::DeleteTopic { name } => self.delete_topic(call, &name)?,
            Command::ListTopics => self.list_topics(call),
            Command::Publish { producer, sequence, digest, events } => {
                self.publish(call, (producer, sequence), digest, events)?
            }
            Command::CreateSubscription { name, topic, start, settings } => {
                self.create_subscription(call, &name, &topic, start, settings)?
            }
            Command::Subscribe { subscription, credit } => {
                self.subscribe(call, &subscription, credit)?;
                return Ok(None);
            }
            Command::Credit { more } => {
                self.hear(call);
                self.add_credit(call, more)?
            }
            Command::Acknowledge { deliveries } => {
                self.hear(call);
                self.acknowledge(call, &deliveries)?
            }
            Command::Reject { delivery, reason, dead } => {
                self.hear(call);
                self.reject(call, &delivery, reason, dead)?
            }
            Command::ExtendLease { deliveries } => {
                self.hear(call);
                self.extend_leases(call, &deliveries)?
            }
            Command::GiveBack { deliveries } => {
                self.hear(call);
                self.give_back(call, &deliveries)?
            }
            Command::AcknowledgeGap { subscription, to } => {
                self.hear(call);
                self.acknowledge_gap(call, &subscription, to)?
            }
            Command::ListSubscriptions => self.list_subscriptions(call),
            Command::Seek { subscription, to } => self.seek(call, &subscription, to)?,
            Command::DeleteSubscription { subscription } => {
                self.delete_subscription(call, &subscription)?
            }
            Command::ListDeadLetters { subscription, from, limit } => {
                self.list_dead_letters(call, &subscription, from, limit)?
            }
            Command::TakeDeadLetters { subscription, offsets, retry } => {
                self.take_dead_letters(call, &subscription, offsets, retry)?
            }
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
            | Command::ListParticipants => unreachable!("the machine gives it to the coordinator"),
        };
        Ok(Some(answer))
    }

    /// Recovery is over when anything happens: what was staged and not restaged is gone.
    fn wake(&mut self, effects: &mut Effects) {
        self.take_up();
        if core::mem::replace(&mut self.awake, true) {
            return;
        }
        let subscriptions: Vec<SubscriptionId> = self.subscriptions.keys().copied().collect();
        for id in subscriptions {
            self.finish_subscription(id, effects);
        }
        let topics: Vec<TopicId> = self.topics.keys().copied().collect();
        for id in topics {
            self.finish_topic(id, effects);
        }
    }

    /// What was read in recovery is durable: visible, and to be delivered. Before the first record
    /// with events is made, so that none of its events counts among them.
    fn take_up(&mut self) {
        if core::mem::replace(&mut self.taken_up, true) {
            return;
        }
        for topic in self.topics.values_mut() {
            topic.visible = topic.end;
        }
        for subscription in self.subscriptions.values_mut() {
            let floor = subscription.facts.progress.floor();
            subscription.restart_at(&mut self.timers, floor);
        }
    }

    fn append(&mut self, effects: &mut Effects, record: Record) -> Lsn {
        self.last = effects.append(record);
        self.last
    }

    /// A subscription, and what it may reach.
    fn reach<'a>(
        &'a mut self,
        id: SubscriptionId,
        now: Now,
        effects: &'a mut Effects,
    ) -> Option<(&'a mut Subscription, Reach<'a>)> {
        let subscription = self.subscriptions.get_mut(&id)?;
        let topic = self.topics.get(&subscription.topic())?;
        let reach = Reach {
            now,
            topic_start: topic.start,
            visible: topic.visible,
            streams: &mut self.streams,
            fetches: &mut self.fetches,
            last_fetch: &mut self.last_fetch,
            timers: &mut self.timers,
            tokens: &mut self.tokens,
            last: &mut self.last,
            effects,
        };
        Some((subscription, reach))
    }
}
