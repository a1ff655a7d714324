//! Local transactions: L1 to L9 from the application's side.

use handfast::Event;
use handfast::database::{Error, LocalTransaction};
use handfast_wire::raw::transaction_request::Call;
use sqlx::PgConnection;

use crate::bench::{Pg, begin_local, committed, transaction};
use crate::fake::Fake;

const WORK: &str = "INSERT INTO work (id) VALUES ('a')";

#[tokio::test(flavor = "multi_thread")]
async fn a_local_transaction_commits_and_its_events_with_it() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    let pool = pg.pool.clone();
    let local = tokio::spawn(async move {
        hf.local("orders", &pool, async |db, tx| {
            sqlx::query(WORK).execute(db).await?;
            tx.publish("placed", Event::new("order.placed", "/shop"));
            Ok::<_, sqlx::Error>(7)
        })
        .await
    });
    let mut session = fake.sessions.recv().await.unwrap();
    let begin = begin_local(&mut session, id).await;
    assert_eq!((begin.database.as_str(), begin.events.len()), ("orders", 1));
    let (request, call) = session.call().await;
    let Call::Commit(commit) = call else { panic!("{call:?}") };
    assert!(commit.vouched);
    assert_eq!(pg.count("SELECT count(*) FROM work").await, 1);
    assert_eq!(pg.count("SELECT count(*) FROM handfast_branch").await, 1);
    session.answer(request, committed(id)).await;
    assert_eq!(local.await.unwrap().unwrap(), 7);
}
