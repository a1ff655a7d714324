//! Staging in transactions: the bus's YES, commit, abort, restart.

use alloc::vec;
use alloc::vec::Vec;

use super::world::{World, event, name};
use crate::command::Command;
use crate::event::Body;
use crate::ids::{Offset, SubscriptionId, TopicId};
use crate::record::{Record, SubscriptionSettings};
use crate::refusal::Code;

fn settings() -> SubscriptionSettings {
    SubscriptionSettings { lease_ms: 1_000, ..SubscriptionSettings::default() }
}

fn delivered() -> World {
    let mut world = World::with_subscription(settings());
    world.subscribe(7, "s", 100);
    world.publish("t", 1, "x");
    world.publish("t", 1, "y");
    world.settle();
    world
}

#[test]
fn events_of_a_transaction_get_their_offsets_at_commit() {
    let mut world = World::with_subscription(settings());
    world.subscribe(7, "s", 100);
    let slow = world.stage(1, vec![event("t", 0, "slow")], &[]).expect("it fits");
    let quick = world.stage(2, vec![event("t", 0, "quick")], &[]).expect("it fits");
    assert_eq!(world.bus.staged_bytes(), 9);
    world.commit(2, quick);
    world.accept();
    assert_eq!(world.took(), [], "nothing is visible before the decision is durable (I6)");
    world.settle();
    assert_eq!(world.took(), [(0, 1)]);
    world.commit(1, slow);
    world.settle();
    let body = world.deliveries[0].1.event.body.clone();
    assert_eq!(body, "slow");
    assert_eq!(world.bus.staged_bytes(), 0);
    assert_eq!(world.bus.topics[&TopicId(0)].reserved, 0);
    world.check_fold();
}

#[test]
fn staging_is_bounded_and_all_or_none() {
    let mut world = delivered();
    let refs = world.took_refs();
    world.limits.staged_bytes = 3;
    let two = vec![event("t", 0, "ab"), event("t", 0, "cd")];
    assert_eq!(world.stage(1, two, &refs), Err(Code::StagedBytesFull));
    assert_eq!(world.stage(1, vec![event("u", 0, "")], &refs), Err(Code::UnknownTopic));
    let mut other = refs[0];
    other.offset = Offset(1);
    assert_eq!(world.stage(1, vec![], &[refs[0], other]), Err(Code::DeliveryExpired));
    assert_eq!(world.stage(1, vec![], &[refs[0], refs[0]]), Err(Code::DeliveryStaged));
    assert_eq!(world.bus.staged_bytes(), 0);
    let staged = world.stage(1, vec![event("t", 0, "abc")], &refs).expect("it fits");
    assert_eq!(staged.items(), 2);
    assert_eq!(world.stage(2, vec![event("t", 0, "d")], &[]), Err(Code::StagedBytesFull));
    assert_eq!(world.stage(2, vec![], &refs), Err(Code::DeliveryStaged));
    world.abort(staged);
    assert_eq!(world.bus.staged_bytes(), 0);
}

#[test]
fn a_staged_acknowledgement_stops_the_lease() {
    let mut world = delivered();
    let refs = world.took_refs();
    let staged = world.stage(1, vec![], &refs).expect("it is current");
    world.pass(100_000);
    world.end_session(7);
    world.subscribe(8, "s", 10);
    assert_eq!(world.took(), []);
    assert_eq!(world.acknowledge(&refs), [Code::DeliveryStaged]);
    world.commit(1, staged);
    world.accept();
    assert_eq!(world.took(), []);
    world.settle();
    assert_eq!(world.took(), [(1, 1)]);
    world.check_fold();
}

#[test]
fn abort_returns_the_delivery_at_once() {
    let mut world = delivered();
    let refs = world.took_refs();
    let staged = world.stage(1, vec![], &refs).expect("it is current");
    world.abort(staged);
    assert_eq!(world.acknowledge(&refs), [Code::DeliveryExpired]);
    world.settle();
    assert_eq!(world.took(), [(0, 1)], "nobody has judged the event");
}

#[test]
fn a_seek_waits_for_staged_acknowledgements() {
    let mut world = delivered();
    let refs = world.took_refs();
    let staged = world.stage(1, vec![], &refs).expect("it is current");
    let to = crate::command::Start::Earliest;
    let seek = Command::Seek { subscription: name("s"), to };
    assert_eq!(world.refused(1, seek.clone()), Code::DeliveryStaged);
    world.commit(1, staged);
    world.settle();
    world.took();
    world.ask(1, seek);
    assert_eq!(world.took(), [(0, 1)]);
}

/// An open local transaction survives a restart with what it has staged: its events stay counted,
/// its deliveries stay bound and hold their keys, although the keys are known only when read.
#[test]
fn a_local_transaction_is_staged_again_after_a_restart() {
    for commit in [false, true] {
        let mut world = delivered();
        let refs = world.took_refs();
        let staged = world.stage(1, vec![event("t", 1, "z")], &refs).expect("it fits");
        world.begin_local(1, &staged);
        world.settle();
        world.crash();
        let begin = world.log.iter().find_map(|(_, record)| match record {
            Record::Begin(begin) => Some(begin.clone()),
            _ => None,
        });
        let staged = world.bus.restage(&begin.expect("BEGIN is durable"));
        assert_eq!(world.bus.staged_bytes(), 1);
        world.subscribe(7, "s", 10);
        world.pass(100_000);
        world.settle();
        assert_eq!(world.took(), [], "its key is held");
        if commit {
            world.commit(1, staged);
            world.settle();
            let commits = world.log.iter().filter_map(|(_, record)| match record {
                Record::Commit(commit) => Some(&commit.events[0].body),
                _ => None,
            });
            assert_eq!(commits.collect::<Vec<_>>(), [&Body::InBegin { item: 0, size: 1 }]);
            let refs = world.took_refs();
            assert_eq!(refs[0].offset, Offset(1));
            world.acknowledge(&refs);
            assert_eq!(world.took(), [(2, 1)]);
        } else {
            world.abort(staged);
            world.settle();
            assert_eq!(world.took(), [(0, 1)]);
        }
        assert_eq!(world.bus.staged_bytes(), 0);
        assert_eq!(world.bus.subscriptions[&SubscriptionId(0)].staged, 0);
        world.check_fold();
    }
}
