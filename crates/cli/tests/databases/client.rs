//! Each step of the client crate against the real server and real databases: once as it should go,
//! and once as it should not.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use handfast::database::{Error, LocalOptions, create_inbox};
use handfast::{Event, Handfast, State, SubscriptionSettings, Wait};
use sqlx::{MySqlPool, PgPool};

use crate::world::World;

const TAKE: &str = "UPDATE account SET amount = amount - 10 WHERE name = 'a'";
const GIVE: &str = "UPDATE account SET amount = amount + 10 WHERE name = 'a'";
/// No such table, in either database.
const WRONG: &str = "UPDATE nowhere SET amount = 0";

struct Application {
    world: World,
    hf: Handfast,
    orders: PgPool,
    ledger: MySqlPool,
}

impl Application {
    async fn new() -> Self {
        let world = World::new().await;
        let hf = Handfast::connect(world.url()).await.unwrap();
        let orders = PgPool::connect(&world.urls["orders"]).await.unwrap();
        let ledger = MySqlPool::connect(&world.urls["ledger"]).await.unwrap();
        Self { world, hf, orders, ledger }
    }
}

/// It returns when its events can be read.
fn read_at_once() -> LocalOptions {
    LocalOptions::new().with_wait(Wait::Finished)
}

fn made() -> Event {
    Event::new("made", "/test")
}

#[tokio::test]
async fn local_is_the_row_and_the_event() {
    let Application { world, hf, orders, ledger } = &Application::new().await;
    let done = hf.local_with("orders", orders, read_at_once(), async |db, tx| {
        sqlx::query(TAKE).execute(db).await?;
        tx.publish("made", made());
        Ok::<_, sqlx::Error>(())
    });
    assert!(done.await.unwrap().committed.is_some_and(|committed| committed.finished));
    let done = hf.local_with("ledger", ledger, read_at_once(), async |db, tx| {
        sqlx::query(GIVE).execute(db).await?;
        tx.publish("made", made());
        Ok::<_, sqlx::Error>(())
    });
    assert!(done.await.unwrap().committed.is_some_and(|committed| committed.finished));
    assert_eq!(world.balances().await, (90, 110));
    assert_eq!(world.events().await, 2);
}

#[tokio::test]
async fn local_that_fails_is_neither_the_row_nor_the_event() {
    let Application { world, hf, orders, ledger } = &Application::new().await;
    let failed = hf.local("orders", orders, async |db, tx| {
        sqlx::query(TAKE).execute(&mut *db).await?;
        tx.publish("made", made());
        sqlx::query(WRONG).execute(db).await?;
        Ok::<_, sqlx::Error>(())
    });
    assert!(matches!(failed.await, Err(Error::Work(_))));
    let failed = hf.local("ledger", ledger, async |db, tx| {
        sqlx::query(GIVE).execute(&mut *db).await?;
        tx.publish("made", made());
        sqlx::query(WRONG).execute(db).await?;
        Ok::<_, sqlx::Error>(())
    });
    assert!(matches!(failed.await, Err(Error::Work(_))));
    // A topic that is not there is found out before the database commits.
    let failed = hf.local("orders", orders, async |db, tx| {
        sqlx::query(TAKE).execute(db).await?;
        tx.publish("nowhere", made());
        Ok::<_, sqlx::Error>(())
    });
    let error = failed.await.unwrap_err();
    assert!(matches!(error, Error::Transaction(_)) && error.has_no_side_effects(), "{error}");
    assert_eq!(world.balances().await, (100, 100));
    assert_eq!(world.events().await, 0);
}

#[tokio::test]
async fn joined_databases_and_an_event_commit_together() {
    let Application { world, hf, orders, ledger } = &Application::new().await;
    let mut tx = hf.begin().await.unwrap();
    let id = tx.id();
    tx.join("orders", orders, async |db| sqlx::query(TAKE).execute(db).await).await.unwrap();
    tx.join("ledger", ledger, async |db| sqlx::query(GIVE).execute(db).await).await.unwrap();
    tx.publish("made", made()).await.unwrap();
    assert_eq!(world.balances().await, (100, 100), "nobody sees it before the decision");
    assert!(tx.commit().await.unwrap().finished);
    assert_eq!(world.balances().await, (90, 110));
    assert_eq!((world.events().await, world.prepared(id).await), (1, 0));
}

#[tokio::test]
async fn enlisted_databases_work_at_the_same_time() {
    let Application { world, hf, orders, ledger } = &Application::new().await;
    let mut tx = hf.begin().await.unwrap();
    let [first, second] = tx.enlist(["orders", "ledger"]).await.unwrap();
    tokio::try_join!(
        first.run(orders, async |db| sqlx::query(TAKE).execute(db).await),
        second.run(ledger, async |db| sqlx::query(GIVE).execute(db).await),
    )
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.balances().await, (90, 110));
}

#[tokio::test]
async fn when_one_database_fails_the_other_is_rolled_back() {
    let Application { world, hf, orders, ledger } = &Application::new().await;
    for fails_in_mariadb in [true, false] {
        let mut tx = hf.begin().await.unwrap();
        let id = tx.id();
        tx.publish("made", made()).await.unwrap();
        let (first, second) = if fails_in_mariadb { (TAKE, WRONG) } else { (WRONG, GIVE) };
        let [one, two] = tx.enlist(["orders", "ledger"]).await.unwrap();
        let one = one.run(orders, async |db| sqlx::query(first).execute(db).await).await;
        let two = two.run(ledger, async |db| sqlx::query(second).execute(db).await).await;
        // The one after the failure is not even begun, or rolled back.
        assert!(one.is_err() != fails_in_mariadb && two.is_err(), "{one:?}, {two:?}");
        let error = tx.commit().await.unwrap_err();
        assert!(error.has_no_side_effects(), "{error}");
        world.until(async || hf.show(id).await.unwrap().ended_wall_ms).await;
        assert_eq!(hf.status(id).await.unwrap().state, State::Failed);
        world.until(async || (world.prepared(id).await == 0).then_some(())).await;
    }
    assert_eq!(world.balances().await, (100, 100));
    assert_eq!(world.events().await, 0);
}

/// Consumes, writes and publishes. The work fails the first time, after it has written: the event
/// comes again, and all of it is there once.
#[tokio::test]
async fn processed_events_take_effect_once_although_the_work_failed_before() {
    let Application { world, hf, orders, ledger } = &Application::new().await;
    create_inbox(orders).await.unwrap();
    create_inbox(ledger).await.unwrap();
    hf.create_topic("moved", handfast::TopicSettings::new()).await.unwrap();
    let settings = || SubscriptionSettings::new().with_max_attempts(None);
    let open = |name: &'static str| hf.subscribe(name).on("moved").with_settings(settings()).open();
    let (mut take, mut give) = (open("take").await.unwrap(), open("give").await.unwrap());
    hf.publish("moved", made()).await.unwrap();
    let (first, second) = (AtomicU32::new(0), AtomicU32::new(0));
    let fails_at_first = |calls: &AtomicU32| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Err(sqlx::Error::Protocol("not yet".to_owned())),
        _ => Ok(()),
    };
    let taking = take.process("orders", orders, async |_, db, tx| {
        sqlx::query(TAKE).execute(db).await?;
        tx.publish("made", made());
        fails_at_first(&first)
    });
    let giving = give.process("ledger", ledger, async |_, db, _| {
        sqlx::query(GIVE).execute(db).await?;
        fails_at_first(&second)
    });
    // Both acknowledged: nothing is left to do.
    let done = world.until(async || {
        let backlog = async |name| hf.subscription(name).await.unwrap().backlog;
        (backlog("take").await + backlog("give").await == 0).then_some(())
    });
    tokio::select! {
        gap = taking => panic!("{gap:?}"),
        gap = giving => panic!("{gap:?}"),
        () = done => {}
    }
    assert_eq!((first.into_inner(), second.into_inner()), (2, 2));
    assert_eq!(world.balances().await, (90, 110));
    assert_eq!(world.events().await, 1);
}

/// Work that never succeeds leaves nothing but a dead letter: no row, no event, nothing in the inbox.
#[tokio::test]
async fn processed_events_whose_work_always_fails_leave_only_a_dead_letter() {
    let Application { world, hf, orders, ledger } = &Application::new().await;
    create_inbox(orders).await.unwrap();
    create_inbox(ledger).await.unwrap();
    hf.create_topic("moved", handfast::TopicSettings::new()).await.unwrap();
    let (first, longest) = (Duration::from_millis(10), Duration::from_millis(10));
    let settings =
        || SubscriptionSettings::new().with_max_attempts(Some(2)).with_backoff(first, longest);
    let open = |name: &'static str| hf.subscribe(name).on("moved").with_settings(settings()).open();
    let (mut take, mut give) = (open("take").await.unwrap(), open("give").await.unwrap());
    hf.publish("moved", made()).await.unwrap();
    let taking = take.process("orders", orders, async |_, db, tx| {
        sqlx::query(TAKE).execute(&mut *db).await?;
        tx.publish("made", made());
        sqlx::query(WRONG).execute(db).await.map(drop)
    });
    let giving = give.process("ledger", ledger, async |_, db, tx| {
        sqlx::query(GIVE).execute(&mut *db).await?;
        tx.publish("made", made());
        sqlx::query(WRONG).execute(db).await.map(drop)
    });
    let dead = world.until(async || {
        let dead = async |name| hf.dead_letters(name, 0, 10).await.unwrap().len();
        (dead("take").await + dead("give").await == 2).then_some(())
    });
    tokio::select! {
        gap = taking => panic!("{gap:?}"),
        gap = giving => panic!("{gap:?}"),
        () = dead => {}
    }
    assert_eq!(world.balances().await, (100, 100));
    assert_eq!(world.events().await, 0);
    let rows = "SELECT count(*) FROM handfast_inbox";
    let (one,): (i64,) = sqlx::query_as(rows).fetch_one(orders).await.unwrap();
    let (other,): (i64,) = sqlx::query_as(rows).fetch_one(ledger).await.unwrap();
    assert_eq!((one, other), (0, 0));
}
