//! Every record as bytes: its number, then its fields in the order given here.
//!
//! Numbers and orders are the format: they change only together with the format's version.

use handfast_core::record::{
    Abort, Acknowledged, Away, Begin, CheckpointStart, Commit, DeadLettered, DeadLettersTaken, End,
    GapAcknowledged, KeyBatch, KeyRestated, Opened, OpeningRestated, Operated, ProducerRestated,
    Published, Record, SegmentDropped, SubscriptionCreated, SubscriptionDeleted,
    SubscriptionRestated, SubscriptionSought, TopicAltered, TopicCreated, TopicDeleted,
    TopicRestated, TopicTruncated, TransactionRestated, UnseenRestated,
};

use super::parts::fields;
use super::{Codec, Input, Malformed};

macro_rules! records {
    ($($number:literal $name:ident),+ $(,)?) => {
        impl Codec for Record {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(fields) => {
                        out.push($number);
                        fields.put(out);
                    })+
                    Self::CheckpointEnd => out.push(CHECKPOINT_END),
                }
            }

            fn take(input: &mut Input) -> Result<Self, Malformed> {
                match input.byte()? {
                    $($number => Codec::take(input).map(Self::$name),)+
                    CHECKPOINT_END => Ok(Self::CheckpointEnd),
                    _ => Err(Malformed("an unknown kind of record")),
                }
            }
        }
    };
}

const CHECKPOINT_END: u8 = 25;
const END: u8 = 5;

/// Whether an encoded record is an END, without decoding it.
pub(crate) fn is_end(bytes: &[u8]) -> bool {
    bytes.first() == Some(&END)
}

records! {
    1 Opened,
    2 Begin,
    3 Commit,
    4 Abort,
    5 End,
    6 Published,
    7 TopicCreated,
    8 TopicAltered,
    9 TopicDeleted,
    10 TopicTruncated,
    11 SubscriptionCreated,
    12 SubscriptionSought,
    13 SubscriptionDeleted,
    14 Acknowledged,
    15 GapAcknowledged,
    16 DeadLettered,
    17 DeadLettersTaken,
    18 SegmentDropped,
    19 CheckpointStart,
    20 TransactionRestated,
    21 SubscriptionRestated,
    22 TopicRestated,
    23 ProducersRestated,
    24 KeysRestated,
    26 Operated,
    27 KeysEnded,
    28 UnseenRestated,
}

fields!(Opened { store, epoch, opening, wall_ms, newest_ms });
fields!(Begin { id, wall_ms, deadline_ms, key, participants, local });
fields!(Commit { id, previous, wall_ms, updaters, read_only, acknowledged, events });
fields!(Abort { id, previous, wall_ms, reason });
fields!(End { id, previous, wall_ms, committed, heuristic, why, noted, finished });
fields!(Published { producer, sequence, digest, wall_ms, events });
fields!(TopicCreated { topic, name, settings, wall_ms });
fields!(TopicAltered { topic, settings });
fields!(TopicDeleted { topic, gone });
fields!(TopicTruncated { topic, start, bytes });
fields!(SubscriptionCreated { subscription, name, topic, settings, start, wall_ms });
fields!(SubscriptionSought { subscription, offset });
fields!(SubscriptionDeleted { subscription, gone });
fields!(Acknowledged { subscription, ranges });
fields!(GapAcknowledged { subscription, to });
fields!(DeadLettered { subscription, offset, attempts, reason, wall_ms });
fields!(DeadLettersTaken { subscription, offsets, retry });
fields!(SegmentDropped { segment });
fields!(CheckpointStart {
    store,
    epoch,
    next_topic,
    next_subscription,
    segments,
    keys,
    openings,
    away
});
fields!(OpeningRestated { opening, epoch, lsn, newest_ms });
fields!(Away { until_ms, uncounted_ms });
fields!(KeyBatch { lsn, total, kept });
fields!(Operated { id, previous, note, noted, released, remark });
fields!(UnseenRestated { id, end, committed, wall_ms, why });
fields!(TransactionRestated {
    begin,
    begin_lsn,
    last,
    decision,
    decided_wall_ms,
    updaters,
    released,
    notes,
    noted
});
fields!(SubscriptionRestated { created, deleting, acknowledged, gap, dead, retried });
fields!(TopicRestated { created, deleting, start, end, bytes });
fields!(ProducerRestated { producer, floor, batches, wall_ms });
fields!(KeyRestated { key, id, committed, wall_ms });
