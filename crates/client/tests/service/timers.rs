//! What the driver does without a message, by the caller's clock.

use handfast::service::{Branch, Recorded, ServiceStore, StoreStep};
use handfast_core::command::Command;
use handfast_core::output::ToService;

use crate::bookkeeper::{Bookkeeper, at, began, commit, open, prepare, x, yes};
use crate::conformance::SqliteFile;

fn inquire(id: u128) -> Command {
    Command::Inquire { id: x(id) }
}

#[test]
fn a_restart_asks_about_everything_in_doubt() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    let batch = [prepare(x(2), "yes"), prepare(x(1), "yes"), prepare(x(3), "yes"), commit(x(3))];
    driver.process(at(0), &batch).expect("processed");
    drop(driver);
    let mut driver = keeper.driver(open(&file.path()));
    assert_eq!(driver.start(at(0)).expect("started"), [inquire(1), inquire(2)]);
    // Not at once again, except after another start.
    assert_eq!(driver.tick(at(1)).expect("ticked"), []);
    assert_eq!(driver.start(at(2)).expect("started"), [inquire(1), inquire(2)]);
}

#[test]
fn more_in_doubt_than_a_page_is_asked_about_page_by_page() {
    let file = SqliteFile::new();
    let mut store = open(&file.path());
    let mut step = store.open_step().expect("a step");
    let recorded = Recorded::Prepared { work: b"yes".to_vec() };
    for id in 0..2_500 {
        let branch = Branch { recorded: recorded.clone(), began: None, at_unix_ms: 0 };
        step.save(x(id), &branch).expect("saved");
    }
    let _proof = step.commit().expect("committed");
    let mut driver = Bookkeeper::default().driver(store);
    let mut asked = driver.start(at(0)).expect("started");
    assert_eq!(asked.len(), 1_000);
    while driver.next_deadline_ms() == 0 {
        let more = driver.tick(at(0)).expect("ticked");
        assert!(more.len() <= 1_000);
        asked.extend(more);
    }
    assert_eq!(asked, (0..2_500).map(inquire).collect::<Vec<_>>());
}

#[test]
fn inquiries_follow_the_protocols_pauses() {
    let file = SqliteFile::new();
    let mut driver = Bookkeeper::default().driver(open(&file.path()));
    assert_eq!(driver.start(at(0)).expect("started"), []);
    assert_eq!(driver.process(at(0), &[prepare(x(1), "yes")]).expect("processed"), [yes(x(1))]);
    let (mut last, mut pauses) = (0, Vec::new());
    while pauses.len() < 6 {
        let now = driver.next_deadline_ms();
        if driver.tick(at(now)).expect("ticked").contains(&inquire(1)) {
            pauses.push(now - last);
            last = now;
        }
    }
    for (pause, middle) in pauses.into_iter().zip([5_000, 10_000, 20_000, 30_000, 30_000, 30_000]) {
        assert!((middle * 8 / 10..=middle * 12 / 10).contains(&pause), "{pause} for {middle}");
    }
    // The coordinator knows better when to ask.
    let pending = ToService::Pending { id: x(1), retry_after_ms: 700 };
    assert_eq!(driver.process(at(last), &[pending]).expect("processed"), []);
    assert!(!driver.tick(at(last + 699)).expect("ticked").contains(&inquire(1)));
    assert!(driver.tick(at(last + 700)).expect("ticked").contains(&inquire(1)));
}

#[test]
fn a_branch_that_another_process_prepared_is_asked_about_until_it_ends() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut one = keeper.driver(open(&file.path()));
    let mut other = keeper.driver(open(&file.path()));
    assert_eq!(other.start(at(0)).expect("started"), []);
    one.process(at(0), &[prepare(x(1), "yes"), prepare(x(2), "yes")]).expect("processed");
    drop(one);
    let mut asked = Vec::new();
    while other.next_deadline_ms() < 40_000 {
        asked.extend(other.tick(at(other.next_deadline_ms())).expect("ticked"));
    }
    asked.sort_by_key(|command| format!("{command:?}"));
    assert_eq!(asked, [inquire(1), inquire(2)]);
    // A third process ends one of them: the second one finds that out by itself.
    let mut third = keeper.driver(open(&file.path()));
    third.process(at(40_000), &[commit(x(1))]).expect("processed");
    for _ in 0..10 {
        let again = other.tick(at(other.next_deadline_ms())).expect("ticked");
        assert!(!again.contains(&inquire(1)));
    }
}

#[test]
fn outcomes_are_asked_about_after_a_minute_and_forgotten_when_told() {
    let file = SqliteFile::new();
    let mut driver = Bookkeeper::default().driver(open(&file.path()));
    driver.start(at(0)).expect("started");
    let batch: Vec<_> = (0..2_100).map(x).flat_map(|id| [prepare(id, "yes"), commit(id)]).collect();
    driver.process(at(0), &batch).expect("processed");
    driver.process(at(30_000), &[prepare(x(9_999), "yes")]).expect("processed");
    assert!(may_forget(&driver.tick(at(60_000)).expect("ticked")).is_empty());

    let mut now = 60_001;
    let mut asked = Vec::new();
    while asked.len() < 2_100 {
        now = now.max(driver.next_deadline_ms());
        let ids = may_forget(&driver.tick(at(now)).expect("ticked"));
        assert!(ids.len() <= 1_000);
        asked.extend(ids.clone());
        // An answer brings the next page at once.
        let full = ids.len() == 1_000;
        driver.process(at(now), &[ToService::Forget { ids }]).expect("processed");
        assert!(!full || driver.next_deadline_ms() <= now);
    }
    assert_eq!(asked, (0..2_100).map(x).collect::<Vec<_>>());
    for _ in 0..20 {
        now = now.max(driver.next_deadline_ms());
        assert!(may_forget(&driver.tick(at(now)).expect("ticked")).is_empty());
    }
}

/// Outcomes that the coordinator still needs must not keep the others from being forgotten.
#[test]
fn outcomes_that_may_not_be_forgotten_do_not_block_the_next_ones() {
    let file = SqliteFile::new();
    let mut driver = Bookkeeper::default().driver(open(&file.path()));
    driver.start(at(0)).expect("started");
    let batch: Vec<_> = (0..1_500).map(|id| ToService::Abort { id: x(id) }).collect();
    driver.process(at(0), &batch).expect("processed");
    let mut asked = Vec::new();
    while asked.len() < 1_500 {
        asked.extend(may_forget(&driver.tick(at(60_001)).expect("ticked")));
        let now = driver.next_deadline_ms();
        asked.extend(may_forget(&driver.tick(at(now + 60_001)).expect("ticked")));
    }
    assert_eq!(asked, (0..1_500).map(x).collect::<Vec<_>>());
}

fn may_forget(commands: &[Command]) -> Vec<handfast_core::ids::TransactionId> {
    let ids = commands.iter().filter_map(|command| match command {
        Command::MayForget { outcomes } => {
            // What was aborted before a prepare came has no place.
            let wrong = outcomes.iter().find(|(id, known)| known.is_some_and(|k| k != began(*id)));
            assert_eq!(wrong, None);
            Some(outcomes.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        }
        _ => None,
    });
    ids.flatten().collect()
}
