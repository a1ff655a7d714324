//! C21: begins that wait for a place.

use std::prelude::v1::*;

use alloc::vec;

use bytes::Bytes;

use super::bench::{Bench, CLIENT, SERVICE_A, X, begin, event, text};
use crate::command::{BeginRequest, BranchRequest, Command};
use crate::ids::{SessionId, TransactionId};
use crate::input::Input;
use crate::limits::{Limits, WAITING_BYTES, WAITING_MS, WORK_BYTES};
use crate::output::{Output, Reply};
use crate::record::{IdempotencyKey, Record};

const OTHER: SessionId = SessionId(2);

fn numbered(number: u128) -> TransactionId {
    TransactionId(X.0 + number)
}

fn plain(number: u128) -> BeginRequest {
    BeginRequest { branches: vec![], ..begin(numbered(number)) }
}

fn ask(bench: &mut Bench, session: SessionId, request: BeginRequest) -> Vec<Output> {
    bench.command(session, Command::Begin(Box::new(request)))
}

/// A server that takes so many, and has them.
fn full(places: usize) -> Bench {
    let limits = Limits { open_transactions: places, ..Limits::default() };
    let mut bench = Bench::with_limits(limits);
    for number in 0..places as u128 {
        assert_eq!(text(&ask(&mut bench, CLIENT, plain(number))), "append BEGIN");
    }
    bench.settle();
    bench
}

/// One of those that it has ends.
fn end(bench: &mut Bench, number: u128) -> Vec<Output> {
    let id = numbered(number);
    let mut outputs = bench.command(CLIENT, Command::Abort { id, detail: String::new() });
    outputs.extend(bench.settle());
    outputs
}

/// Which transactions have begun, in order.
fn begun(bench: &Bench) -> Vec<TransactionId> {
    let id = |record: &Record| match record {
        Record::Begin(begin) => Some(begin.id),
        _ => None,
    };
    bench.log.iter().filter_map(|(_, record)| id(record)).collect()
}

fn refused(outputs: &[Output]) -> usize {
    let refused = |output: &&Output| text(&[(*output).clone()]) == "refused too_many_transactions";
    outputs.iter().filter(refused).count()
}

#[test]
fn the_first_to_come_begins_when_a_place_is_free_and_the_others_are_refused_in_time() {
    let mut w = full(2);
    for number in 2..5 {
        assert_eq!(text(&ask(&mut w, CLIENT, plain(number))), "nothing");
    }
    assert_eq!(w.core.stats().waiting, 3);
    w.now.mono_ms += WAITING_MS - 1;
    let outputs = end(&mut w, 0);
    assert_eq!(refused(&outputs), 0);
    assert_eq!(begun(&w), [0, 1, 2].map(numbered));
    // Whoever comes now stands behind those who wait.
    assert_eq!(text(&ask(&mut w, CLIENT, plain(5))), "nothing");
    let late = "refused too_many_transactions, refused too_many_transactions";
    assert_eq!(text(&w.pass(1)), late);
    assert_eq!((w.core.stats().waiting, w.core.stats().open), (1, 2));
    end(&mut w, 1);
    assert_eq!(begun(&w), [0, 1, 2, 5].map(numbered));
}

#[test]
fn nobody_begins_who_has_waited_for_too_long() {
    let mut w = full(1);
    ask(&mut w, CLIENT, plain(1));
    // The clock went on, and nothing happened that would have told.
    w.now.mono_ms += 3_000;
    w.now.wall_ms += 3_000;
    assert_eq!(refused(&end(&mut w, 0)), 1);
    assert_eq!(begun(&w), [numbered(0)]);
    assert_eq!(w.core.stats().waiting, 0);
}

#[test]
fn as_many_begin_as_have_ended_and_each_is_checked_as_if_it_came_now() {
    let mut w = full(3);
    let key = IdempotencyKey { key: "k".into(), digest: 1 };
    let keyed = |number| BeginRequest { key: Some(key.clone()), ..plain(number) };
    let mut unknown = plain(4);
    unknown.events =
        vec![crate::event::EventRequest { topic: super::bench::name("no"), ..event() }];
    for request in [keyed(3), unknown, keyed(5), plain(6), plain(7)] {
        assert_eq!(text(&ask(&mut w, CLIENT, request)), "nothing");
    }
    for id in [0, 1, 2].map(numbered) {
        w.command(CLIENT, Command::Abort { id, detail: String::new() });
    }
    let outputs = w.settle();
    // 4 is refused for what is wrong with it, 5 is the same request as 3: neither takes a place.
    assert_eq!(begun(&w), [0, 1, 2, 3, 6, 7].map(numbered));
    let begun_by_key = |output: &Output| match output {
        Output::Reply { reply: Reply::Begun { id, repeated, .. }, .. } if *id == numbered(3) => {
            Some(*repeated)
        }
        _ => None,
    };
    assert_eq!(outputs.iter().filter_map(begun_by_key).collect::<Vec<_>>(), [false, true]);
    assert!(text(&outputs).contains("refused unknown_topic"), "{}", text(&outputs));
}

/// I10: a repeat that has waited too long is told of the first, which has begun meanwhile.
#[test]
fn a_key_that_was_used_meanwhile_is_answered_and_not_refused() {
    let mut w = full(1);
    let key = IdempotencyKey { key: "k".into(), digest: 1 };
    let keyed = |number| BeginRequest { key: Some(key.clone()), ..plain(number) };
    let other = IdempotencyKey { digest: 2, ..key.clone() };
    ask(&mut w, CLIENT, keyed(1));
    w.now.mono_ms += 1;
    ask(&mut w, OTHER, keyed(2));
    ask(&mut w, OTHER, BeginRequest { key: Some(other), ..plain(3) });
    end(&mut w, 0);
    assert_eq!(begun(&w), [0, 1].map(numbered));
    assert_eq!(text(&w.pass(WAITING_MS)), "begun before, refused key_conflict");
}

/// Who waits for a place waits for the ENDs that make one.
#[test]
fn an_end_that_makes_a_place_is_waited_for() {
    let mut w = full(1);
    let abort = Command::Abort { id: numbered(0), detail: String::new() };
    w.command(CLIENT, abort);
    let decided = w.core.last();
    w.accept();
    w.input(Input::Durable { through: decided });
    assert_eq!(text(&w.accept()), "nothing");
    assert!(!w.core.awaits_durable(), "nobody waits for an END");
    ask(&mut w, CLIENT, plain(1));
    assert!(w.core.awaits_durable());
}

#[test]
fn one_alone_may_be_large() {
    let mut w = full(1);
    let work = Some(Bytes::from(vec![0; WORK_BYTES]));
    let branch = |n: usize| BranchRequest {
        work: work.clone(),
        ..super::bench::branch(&std::format!("s{n}"))
    };
    let branches = (0..=WAITING_BYTES / WORK_BYTES).map(branch).collect();
    let large = BeginRequest { branches, ..plain(1) };
    assert_eq!(text(&ask(&mut w, CLIENT, large)), "nothing");
    assert_eq!(text(&ask(&mut w, CLIENT, plain(2))), "refused too_many_transactions");
}

#[test]
fn no_more_wait_than_may() {
    let mut w = full(1);
    for number in 1..=Limits::default().waiting as u128 {
        assert_eq!(text(&ask(&mut w, CLIENT, plain(number))), "nothing");
    }
    let more = ask(&mut w, CLIENT, plain(1_000_000));
    assert_eq!(text(&more), "refused too_many_transactions");
    // Those whose time is over make room, however late the tick comes.
    w.now.mono_ms += WAITING_MS;
    let outputs = ask(&mut w, CLIENT, plain(1_000_001));
    assert_eq!((refused(&outputs), w.core.stats().waiting), (Limits::default().waiting, 1));

    let mut w = full(1);
    let work = Some(Bytes::from(vec![0; WORK_BYTES]));
    let large = |number| BeginRequest {
        branches: vec![BranchRequest { work: work.clone(), ..super::bench::branch("a") }],
        events: vec![],
        ..plain(number)
    };
    let fit = (WAITING_BYTES / WORK_BYTES) as u128;
    for number in 1..=fit {
        assert_eq!(text(&ask(&mut w, CLIENT, large(number))), "nothing");
    }
    let more = ask(&mut w, CLIENT, large(1_000_000));
    assert_eq!(text(&more), "refused too_many_transactions");
    // What they take is given back.
    assert_eq!(refused(&w.pass(WAITING_MS)), WAITING_BYTES / WORK_BYTES);
    assert_eq!(text(&ask(&mut w, CLIENT, large(2_000_000))), "nothing");
}

#[test]
fn what_waits_for_a_stream_that_has_ended_begins_no_more() {
    let mut w = full(1);
    for (session, number) in [(OTHER, 1), (CLIENT, 2), (OTHER, 3), (CLIENT, 4)] {
        let detached = BeginRequest { detached: true, ..plain(number) };
        assert_eq!(text(&ask(&mut w, session, detached)), "nothing");
    }
    let outputs = w.input(Input::SessionEnded { session: OTHER });
    assert_eq!((refused(&outputs), w.core.stats().waiting), (2, 2));
    end(&mut w, 0);
    end(&mut w, 2);
    assert_eq!(begun(&w), [0, 2, 4].map(numbered));
}

#[test]
fn nobody_waits_at_a_server_that_is_about_to_stop() {
    let mut w = full(1);
    ask(&mut w, CLIENT, plain(1));
    assert_eq!(text(&w.input(Input::Drain)), "refused draining");
    assert_eq!(text(&ask(&mut w, CLIENT, plain(2))), "refused draining");
    end(&mut w, 0);
    assert_eq!((w.core.stats().waiting, w.core.stats().open), (0, 0));
    assert_eq!(text(&ask(&mut w, SERVICE_A, plain(3))), "refused draining");
}
