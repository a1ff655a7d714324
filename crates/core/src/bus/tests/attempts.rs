//! Which deliveries are attempts that count (D1 to D10), one rule after the other.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::world::{World, name};
use crate::command::Command;
use crate::event::DeliveryRef;
use crate::ids::{Offset, SubscriptionId};
use crate::output::Reply;
use crate::record::{DeadLettered, SubscriptionSettings};
use crate::refusal::Code;

const LEASE: u64 = 1_000;

fn settings() -> SubscriptionSettings {
    SubscriptionSettings {
        lease_ms: LEASE,
        max_attempts: Some(3),
        backoff_ms: 100,
        backoff_max_ms: 100,
    }
}

/// So many events without keys, and one stream, number 7.
fn world(events: u64, credit: u32) -> World {
    let mut world = World::with_subscription(settings());
    world.subscribe(7, "s", credit);
    for _ in 0..events {
        world.publish("t", 0, "x");
    }
    world.settle();
    world
}

fn letters(world: &mut World) -> Vec<DeadLettered> {
    let list = Command::ListDeadLetters { subscription: name("s"), from: Offset(0), limit: 100 };
    match world.ask(1, list) {
        Reply::DeadLetters { letters, .. } => letters,
        other => panic!("{other:?}"),
    }
}

fn offsets(refs: &[DeliveryRef]) -> Vec<u64> {
    refs.iter().map(|delivery| delivery.offset.0).collect()
}

fn pass(world: &mut World, ms: u64) {
    world.pass(ms);
    world.settle();
}

fn silent(world: &World) -> usize {
    world.bus.streams.values().filter(|stream| stream.silent).count()
}

/// Ten connects of a consumer that died before it had touched anything made dead letters of ten
/// innocent events. It is nobody's judgement; the rule is D6.
#[test]
fn connects_that_die_are_no_attempts() {
    let mut world = World::with_subscription(SubscriptionSettings::default());
    for _ in 0..10 {
        world.publish("t", 0, "x");
    }
    world.settle();
    for session in 100..110 {
        world.subscribe(session, "s", 10);
        assert!(world.took().iter().all(|(_, attempt)| *attempt <= 2));
        world.end_session(session);
        pass(&mut world, 50);
    }
    assert_eq!(letters(&mut world), []);
    // Also if it goes on for as many of them as would kill each once.
    for session in 110..150 {
        world.subscribe(session, "s", 10);
        world.end_session(session);
        pass(&mut world, 60_000);
    }
    assert_eq!(letters(&mut world), []);
}

/// D7: the event that ends every stream it comes on is a dead letter in the end, and its
/// neighbours are not.
#[test]
fn the_event_that_kills_its_consumers_is_found() {
    let mut world = world(20, 20);
    let mut acknowledged = Vec::new();
    let mut session = 7;
    for _ in 0..200 {
        let mut died = false;
        for delivery in world.took_refs() {
            if delivery.offset == Offset(11) {
                died = true;
                break;
            }
            assert_eq!(world.answer(session, &[delivery]), []);
            acknowledged.push(delivery.offset.0);
        }
        if died {
            world.end_session(session);
            world.deliveries.clear();
            session += 1;
            world.subscribe(session, "s", 20);
        }
        pass(&mut world, 50);
    }
    let letters = letters(&mut world);
    assert_eq!(letters.iter().map(|letter| letter.offset.0).collect::<Vec<_>>(), [11]);
    assert_eq!(letters[0].attempts, 3);
    assert_eq!(letters[0].reason, "its stream ended before it was answered, and had nothing else");
    acknowledged.sort_unstable();
    let expected: Vec<u64> = (0..20).filter(|offset| *offset != 11).collect();
    assert_eq!(acknowledged, expected, "each once, in spite of the crashes");
}

/// A suspect does not stop what is new, also on the only stream, and does not wait for ever while
/// there is always something new.
#[test]
fn suspects_and_new_events_both_go_on() {
    let mut world = world(3, 3);
    for session in 7..9 {
        world.took();
        world.end_session(session);
        world.subscribe(session + 1, "s", 3);
    }
    let mut left: Vec<u64> = (0..3).collect();
    for round in 0..40 {
        world.publish("t", 0, "new");
        world.settle();
        let refs = world.took_refs();
        left.retain(|offset| !offsets(&refs).contains(offset));
        assert_eq!(world.answer(9, &refs), []);
        assert!(round < 10 || left.is_empty(), "{left:?}");
    }
    world.settle();
    let refs = world.took_refs();
    world.answer(9, &refs);
    assert_eq!(world.bus.subscriptions[&SubscriptionId(0)].facts.progress.floor(), Offset(43));
    assert_eq!(letters(&mut world), []);
}

/// A busy stream is emptied for a suspect.
#[test]
fn a_stream_that_never_rests_is_emptied_for_a_suspect() {
    let mut world = world(2, 2);
    for session in 7..9 {
        world.took();
        world.subscribe(session + 1, "s", 0);
        world.end_session(session);
        if session == 7 {
            world.credit(8, 2);
        }
    }
    for _ in 0..5 {
        world.publish("t", 0, "new");
    }
    // Now it has two suspects and five others, and always one of them under way.
    world.credit(9, 2);
    let mut seen = Vec::new();
    let mut held = world.took_refs();
    for _ in 0..20 {
        if held.is_empty() {
            break;
        }
        let delivery = held.remove(0);
        seen.push(delivery.offset.0);
        assert_eq!(world.answer(9, &[delivery]), []);
        held.extend(world.took_refs());
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
}

/// A receiver stood still for twelve leases: its deliveries were sent into its stream again and
/// again, and read as attempts 1, 2 and 3 at one instant.
#[test]
fn nothing_is_sent_again_into_a_stream_that_does_not_read() {
    let mut world = world(30, 100);
    let refs = world.took_refs();
    assert_eq!(refs.len(), 30);
    for _ in 0..12 {
        pass(&mut world, LEASE);
    }
    assert_eq!(world.took(), []);
    assert_eq!(silent(&world), 1);
    // It goes on, and answers what it has got.
    assert_eq!(world.answer(7, &refs).len(), 30, "they had returned");
    let again = core::mem::take(&mut world.deliveries);
    assert!(again.iter().all(|(_, delivery)| delivery.attempt == 1), "nobody has judged them");
    let again: Vec<DeliveryRef> = again.iter().map(|(_, d)| d.reference).collect();
    assert_eq!(offsets(&again), (0..30).collect::<Vec<_>>());
    assert_eq!(world.answer(7, &again), []);
    assert_eq!(letters(&mut world), []);
}

/// Somebody else takes over what a silent stream has.
#[test]
fn what_a_silent_stream_has_goes_to_others() {
    let mut world = world(5, 5);
    world.took();
    world.subscribe(8, "s", 10);
    assert_eq!(world.took(), []);
    pass(&mut world, LEASE);
    let refs = world.took_refs();
    assert_eq!(offsets(&refs), [0, 1, 2, 3, 4]);
    assert_eq!(world.answer(8, &refs), []);
}

/// D2: the lease of what waits behind others does not run while these are answered.
#[test]
fn what_waits_in_a_stream_waits_as_long_as_it_takes() {
    let mut world = world(100, 100);
    for delivery in world.took_refs() {
        pass(&mut world, LEASE - 1);
        assert_eq!(world.answer(7, &[delivery]), []);
    }
    assert_eq!(world.took(), []);
    assert_eq!(world.bus.subscriptions[&SubscriptionId(0)].tally.expired, 0);
}

/// D4: one handler of many hangs. Its lease ends, and nobody else's.
#[test]
fn one_hung_handler_loses_its_delivery_in_bounded_time() {
    let mut world = world(20, 4);
    let mut held = world.took_refs();
    let hung = held.remove(0);
    let mut came_again = false;
    for _ in 0..16 {
        let next = held.remove(0);
        came_again |= next.offset == Offset(0);
        assert_eq!(world.answer(7, &[next]), []);
        held.extend(world.took_refs());
        pass(&mut world, 100);
        held.extend(world.took_refs());
    }
    assert_eq!(world.answer(7, &[hung]), [Code::DeliveryExpired]);
    assert!(came_again);
    assert_eq!(world.bus.subscriptions[&SubscriptionId(0)].tally.expired, 1);
}

/// D4: a handler hangs on the same event every time.
#[test]
fn an_event_on_which_its_consumer_hangs_is_a_dead_letter() {
    let mut world = world(6, 6);
    for _ in 0..10 {
        for delivery in world.took_refs() {
            if delivery.offset == Offset(2) {
                // From here on the consumer does nothing, until somebody looks.
                pass(&mut world, 2 * LEASE);
                assert_eq!(world.answer(7, &[delivery]), [Code::DeliveryExpired]);
                break;
            }
            assert_eq!(world.answer(7, &[delivery]), []);
        }
        world.deliveries.retain(|(_, d)| d.reference.offset >= Offset(2));
        pass(&mut world, 200);
    }
    let letters = letters(&mut world);
    assert_eq!(letters.iter().map(|letter| letter.offset.0).collect::<Vec<_>>(), [2]);
    assert_eq!(letters[0].reason, "its lease was over before it was answered");
}

/// D10: who only extends does not keep for ever what waits behind.
#[test]
fn what_waits_behind_one_that_is_always_extended_returns() {
    let mut world = world(3, 3);
    let refs = world.took_refs();
    world.subscribe(8, "s", 3);
    for _ in 0..20 {
        assert_eq!(world.took(), []);
        pass(&mut world, LEASE / 2);
        world.ask(7, Command::ExtendLease { deliveries: vec![refs[0]] });
    }
    assert_eq!(world.took(), [(1, 1), (2, 1)]);
    assert_eq!(world.answer(7, &refs[..1]), [], "its own lease was always good");
}

/// D6: a transaction that had staged the acknowledgement failed. At once at first; not as fast as
/// one can for ever.
#[test]
fn a_transaction_that_fails_is_no_attempt() {
    let mut world = world(1, 1);
    let mut pauses = Vec::new();
    for id in 1..20 {
        let refs = world.took_refs();
        let staged = world.stage(id, vec![], &refs).expect("it is current");
        world.abort(staged);
        world.settle();
        let mut pause = 0;
        while world.deliveries.is_empty() && pause < 1_000 {
            pass(&mut world, 10);
            pause += 10;
        }
        assert_eq!(world.deliveries[0].1.attempt, 1);
        pauses.push(pause);
    }
    assert_eq!((pauses[0], pauses[1], pauses[18]), (0, 100, 100));
    assert_eq!(letters(&mut world), []);
}

#[test]
fn what_is_given_back_goes_to_others_and_takes_its_credit_along() {
    let mut world = world(4, 4);
    let refs = world.took_refs();
    let give = Command::GiveBack { deliveries: refs[2..].to_vec() };
    assert_eq!(world.ask(7, give.clone()), Reply::Acknowledged { refused: vec![] });
    assert_eq!(world.took(), [], "its credit is 2, and two are under way");
    let Reply::Acknowledged { refused } = world.ask(7, give) else { panic!() };
    assert_eq!(refused.len(), 2);
    world.subscribe(8, "s", 1);
    assert_eq!(world.took(), [(2, 1)]);
    world.credit(7, 1);
    assert_eq!(world.took(), [(3, 1)]);
    assert_eq!(world.answer(7, &refs[..2]), []);
}

/// D8: who is slow has what he can take up in a lease, and others get the rest.
#[test]
fn who_comes_later_has_something_to_do() {
    let mut world = world(400, 300);
    let mut held = world.took_refs();
    for _ in 0..320 {
        pass(&mut world, LEASE / 10);
        assert_eq!(world.answer(7, &[held.remove(0)]), []);
        held.extend(world.took_refs());
    }
    assert!((5..=12).contains(&held.len()), "about ten in a lease: {}", held.len());
    world.subscribe(8, "s", 300);
    assert_eq!(world.took().len(), 80 - held.len());
}

#[test]
fn every_dead_letter_has_a_reason() {
    let reasons = |world: &mut World| -> Vec<String> {
        letters(world).into_iter().map(|letter| letter.reason).collect()
    };
    let mut world = world(1, 1);
    let refs = world.took_refs();
    let reject =
        |delivery, reason: &str, dead| Command::Reject { delivery, reason: reason.into(), dead };
    world.ask(7, reject(refs[0], "no such account", false));
    pass(&mut world, 100);
    for _ in 0..2 {
        assert_eq!(world.took().len(), 1);
        pass(&mut world, LEASE);
        world.credit(7, 0);
        pass(&mut world, 100);
    }
    let expected = "its lease was over before it was answered; before that: no such account";
    assert_eq!(reasons(&mut world), [expected]);
    world.publish("t", 0, "y");
    world.settle();
    let refs = world.took_refs();
    world.ask(7, reject(refs[0], "", true));
    assert_eq!(reasons(&mut world)[1], "its subscriber rejected it and gave no reason");
    let tally = world.bus.subscriptions[&SubscriptionId(0)].tally;
    assert_eq!((tally.rejected, tally.expired, tally.lost, tally.dead), (2, 2, 0, 2));
}
