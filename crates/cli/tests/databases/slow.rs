//! A database that hangs delays only what takes part in it (I14): transactions over others commit and
//! are finished meanwhile.

use std::time::Duration;

use handfast::database::Error;
use handfast::{Event, Handfast};
use handfast_wire::v1::{TransactionState as State, Wait};
use sqlx::PgPool;

use crate::world::World;

const SHORT: Duration = Duration::from_millis(200);
/// Transactions over the database that answers.
const OTHERS: i64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_delays_only_its_own_transactions() {
    let (world, network) = World::with_network().await;
    let hf = Handfast::connect(world.url()).await.unwrap();
    hf.create_topic("made", handfast::TopicSettings::new()).await.unwrap();
    let pool = PgPool::connect(&world.urls["orders"]).await.unwrap();

    // One that is prepared in both, one that only it can say the end of, and one nobody decides.
    let both = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&both).await;
    world.prepare_ledger(&both).await;
    let undecided = world.begin(&["ledger"]).await.unwrap();
    network.stop();
    let local = world.begin_local("ledger", SHORT).await.unwrap();
    let outcome = world.commit_vouched(&both, Wait::Decided).await.unwrap();
    assert_eq!(outcome.state(), State::Committing);
    world.until(async || (world.balance_of_orders().await == 90).then_some(())).await;

    // Local ones and distributed ones over the other, each to its end.
    for done in 1..=OTHERS {
        let local = hf.local("orders", &pool, async |db, tx| {
            let take = "UPDATE account SET amount = amount - 1 WHERE name = 'a'";
            sqlx::query(take).execute(db).await?;
            tx.publish("made", Event::new("made", "/test"));
            Ok::<_, sqlx::Error>(())
        });
        local.await.unwrap_or_else(|error: Error<sqlx::Error>| panic!("{done}: {error}"));
        let begun = world.begin(&["orders"]).await.unwrap();
        world.prepare_orders(&begun).await;
        let outcome = world.commit_vouched(&begun, Wait::Finished).await.unwrap();
        assert_eq!(outcome.state(), State::Committed, "finished, and not only decided");
    }
    assert_eq!(world.balance_of_orders().await, 90 - 11 * OTHERS);
    assert_eq!(world.show(&both).await.state(), State::Committing);
    assert_eq!(world.show(&local).await.state(), State::Preparing);
    for waits in [&both, &undecided, &local] {
        assert_eq!(world.show(waits).await.ended_unix_ms, None);
    }

    network.go_on();
    assert_eq!(world.ended(&both).await.state(), State::Committed);
    assert_eq!(world.balances_of_ledger().await, 110);
    assert_eq!(world.ended(&local).await.state(), State::Failed);
    world.abort(&undecided).await.unwrap();
    assert_eq!(world.ended(&undecided).await.state(), State::Failed);
    assert_eq!(world.events().await, usize::try_from(OTHERS).unwrap());
}
