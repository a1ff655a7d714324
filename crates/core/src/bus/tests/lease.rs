//! Leases, failed attempts, streams that end.

use alloc::vec;

use super::world::{World, name};
use crate::command::Command;
use crate::ids::SubscriptionId;
use crate::output::Reply;
use crate::record::SubscriptionSettings;
use crate::refusal::Code;

fn settings() -> SubscriptionSettings {
    SubscriptionSettings {
        lease_ms: 1_000,
        max_attempts: Some(3),
        backoff_ms: 100,
        backoff_max_ms: 400,
    }
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
fn a_lease_that_runs_out_is_a_failed_attempt() {
    let mut world = delivered();
    let refs = world.took_refs();
    world.pass(999);
    world.settle();
    assert_eq!(world.took(), []);
    world.pass(1);
    assert_eq!(world.answer(7, &refs), [Code::DeliveryExpired]);
    world.pass(99);
    world.settle();
    assert_eq!(world.took(), []);
    world.pass(1);
    world.settle();
    assert_eq!(world.took(), [(0, 2)], "the failed one keeps its key");
}

#[test]
fn a_lease_can_be_extended() {
    let mut world = delivered();
    let refs = world.took_refs();
    for _ in 0..5 {
        world.pass(999);
        let reply = world.ask(7, Command::ExtendLease { deliveries: refs.clone() });
        assert_eq!(reply, Reply::Acknowledged { refused: vec![] });
    }
    assert_eq!(world.acknowledge(&refs), []);
    let Reply::Acknowledged { refused } =
        world.ask(7, Command::ExtendLease { deliveries: refs.clone() })
    else {
        panic!()
    };
    assert_eq!(refused[0].1.code, Code::DeliveryExpired);
}

#[test]
fn a_rejected_delivery_comes_again_after_a_pause_that_doubles() {
    let mut world = delivered();
    let first = world.took_refs()[0];
    assert_eq!(world.reject(first, false), Reply::Done);
    assert_eq!(
        world.refused(1, Command::Reject { delivery: first, reason: "again".into(), dead: false }),
        Code::DeliveryExpired
    );
    world.pass(100);
    world.settle();
    let second = world.took_refs()[0];
    assert!(second.token != first.token && second.offset == first.offset);
    world.reject(second, false);
    world.pass(199);
    world.settle();
    assert_eq!(world.took(), []);
    world.pass(1);
    world.settle();
    assert_eq!(world.took(), [(0, 3)]);
}

#[test]
fn the_end_of_a_stream_with_one_delivery_is_a_failed_attempt() {
    let mut world = delivered();
    let refs = world.took_refs();
    world.subscribe(8, "s", 10);
    world.end_session(7);
    assert_eq!(world.acknowledge(&refs), [Code::DeliveryExpired]);
    assert_eq!(world.took(), [], "the back-off follows what counts");
    world.pass(100);
    world.settle();
    assert_eq!(world.took(), [(0, 2)]);
    world.end_session(8);
    world.end_session(8);
    world.subscribe(9, "s", 10);
    world.pass(200);
    world.settle();
    assert_eq!(world.took(), [(0, 3)]);
    // An event that ends its streams is a dead letter in the end.
    world.end_session(9);
    world.subscribe(10, "s", 10);
    world.pass(0);
    world.settle();
    assert_eq!(world.took(), [(1, 1)]);
    let list =
        Command::ListDeadLetters { subscription: name("s"), from: Default::default(), limit: 9 };
    let Reply::DeadLetters { letters, .. } = world.ask(1, list) else { panic!() };
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].attempts, 3);
    assert!(letters[0].reason.starts_with("its stream ended"), "{}", letters[0].reason);
    world.check_fold();
}

#[test]
fn leases_that_ended_do_not_pile_up_behind_one_that_is_held() {
    let mut world = World::with_subscription(settings());
    world.subscribe(7, "s", 100);
    world.publish("t", 0, "held");
    world.settle();
    let held = world.took_refs();
    for key in 1..=10_000 {
        world.publish("t", key, "x");
        world.settle();
        let refs = world.took_refs();
        assert_eq!(world.acknowledge(&refs), []);
        let leases = &world.bus.subscriptions[&SubscriptionId(0)].leases;
        assert!(leases.in_line() <= 1_100, "{}", leases.in_line());
    }
    world.pass(1_000);
    assert_eq!(world.acknowledge(&held), [Code::DeliveryExpired], "it ran out at its time");
}

#[test]
fn a_lease_that_is_extended_often_at_one_time_stands_in_line_once() {
    let mut world = World::with_subscription(settings());
    world.subscribe(7, "s", 100);
    world.publish("t", 0, "x");
    world.publish("t", 1, "y");
    world.settle();
    let refs = world.took_refs();
    world.pass(10);
    world.ask(7, Command::ExtendLease { deliveries: vec![refs[0]; 5_000] });
    let leases = &world.bus.subscriptions[&SubscriptionId(0)].leases;
    assert!(leases.in_line() <= 3, "{}", leases.in_line());
}

#[test]
fn leases_that_begin_later_run_out_later() {
    let mut world = World::with_subscription(settings());
    for session in 7..10 {
        world.subscribe(session, "s", 1);
        world.publish("t", 0, "x");
        world.settle();
        world.pass(300);
    }
    let refs = world.took_refs();
    // The second ends early, the first is extended.
    assert_eq!(world.acknowledge(&refs[1..2]), []);
    world.ask(7, Command::ExtendLease { deliveries: refs[..1].to_vec() });
    world.pass(699);
    assert_eq!(world.bus.next_deadline(), Some(world.now.mono_ms + 1), "of the third");
    world.pass(1);
    let reply = world.ask(9, Command::ExtendLease { deliveries: vec![refs[2]] });
    assert!(matches!(reply, Reply::Acknowledged { refused } if refused.len() == 1));
    assert_eq!(world.acknowledge(&refs[..1]), [], "its lease is longer now");
}

#[test]
fn a_delivery_with_an_undurable_acknowledgement_is_not_redelivered() {
    let mut world = delivered();
    let refs = world.took_refs();
    world.send(7, Command::Acknowledge { deliveries: refs });
    world.pass(10_000);
    world.end_session(7);
    world.subscribe(8, "s", 10);
    assert_eq!(world.took(), [(1, 1)]);
}

#[test]
fn after_a_restart_attempts_count_anew_under_new_tokens() {
    let mut world = delivered();
    let before = world.took_refs();
    world.crash();
    world.subscribe(7, "s", 10);
    let after = world.took_refs();
    assert_eq!(after[0].offset, before[0].offset);
    assert!(after[0].token > before[0].token, "the epoch is the high half");
    assert_eq!(world.acknowledge(&before), [Code::DeliveryExpired]);
    assert_eq!(world.acknowledge(&after), []);
}
