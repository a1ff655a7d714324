//! Databases in distributed transactions, and MariaDB branches on their own sessions (MY3).

use handfast::database::{Error, Step};
use handfast::{BeginOptions, Code, Committed, Event, Handfast, OpenTransaction, TransactionError};
use handfast_core::ids::TransactionId;
use handfast_core::refusal::Refusal;
use handfast_database::{End, Finished, Holder, Outcome};
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{ids, v1};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool, PgPool};
use tokio::task::JoinHandle;

use crate::bench::{
    Maria, Pg, begun, branch, branch_ids, committed, failed, outcome, transaction, until,
};
use crate::fake::{Fake, Session};

const WORK: &str = "INSERT INTO work (id) VALUES ('a')";

type Ended = JoinHandle<Result<Committed, TransactionError>>;

async fn begin(fake: &mut Fake, hf: &Handfast, id: TransactionId) -> (OpenTransaction, Session) {
    begin_with(fake, hf, id, BeginOptions::new()).await
}

async fn begin_with(
    fake: &mut Fake,
    hf: &Handfast,
    id: TransactionId,
    options: BeginOptions,
) -> (OpenTransaction, Session) {
    let begin = tokio::spawn({
        let hf = hf.clone();
        async move { hf.begin_with(options).await }
    });
    let mut session = fake.sessions.recv().await.unwrap();
    let (request, _) = session.call().await;
    session.answer(request, begun(id, &[])).await;
    (begin.await.unwrap().unwrap(), session)
}

/// Answers an enlistment.
async fn enlist(session: &mut Session, id: TransactionId, all: &[&str]) {
    let (request, call) = session.call().await;
    let Call::Enlist(enlist) = call else { panic!("{call:?}") };
    let database = i32::from(v1::ParticipantKind::Database);
    assert!(enlist.branches.iter().all(|b| b.kind == database && b.work.is_none()), "{enlist:?}");
    let branches = u32::try_from(all.len()).unwrap();
    let counted = v1::Counted { branches, items: 0, branch_ids: branch_ids(id, all) };
    session.answer(request, Answer::Counted(counted)).await;
}

/// The next call that is no vote; votes are answered.
async fn call(session: &mut Session) -> (u64, Call) {
    loop {
        let mut others = Vec::new();
        for (request, call) in session.calls().await {
            match call {
                Call::Vote(vote) => {
                    assert!(vote.votes.iter().all(|vote| vote.connection != 0), "{vote:?}");
                    session.answer(request, Answer::Voted(v1::Voted {})).await;
                }
                other => others.push((request, other)),
            }
        }
        assert!(others.len() < 2, "{others:?}");
        if let Some(other) = others.pop() {
            return other;
        }
    }
}

async fn commit(session: &mut Session) -> (u64, v1::CommitRequest) {
    match call(session).await {
        (request, Call::Commit(commit)) => (request, commit),
        (_, call) => panic!("{call:?}"),
    }
}

async fn tell(session: &Session, id: TransactionId, database: &str, commit: bool) {
    let transaction_id = ids::transaction_bytes(id);
    let finish = v1::FinishBranch { transaction_id, database: database.to_owned(), commit };
    session.answer(0, Answer::Finish(finish)).await;
}

/// The client's report about a branch that it held.
async fn report(session: &mut Session, id: TransactionId, database: &str) -> bool {
    let (request, call) = session.call().await;
    let Call::BranchEnded(ended) = call else { panic!("{call:?}") };
    assert_eq!(ended.transaction_id, ids::transaction_bytes(id));
    assert_eq!(ended.database, database);
    session.answer(request, Answer::Voted(v1::Voted {})).await;
    ended.done
}

fn holder(vote: &v1::DatabaseVote) -> Holder {
    Holder { connection: vote.connection, server_start: vote.server_start_unix_s }
}

/// A row in both databases at the same time, and the commit.
fn both(mut tx: OpenTransaction, one: &PgPool, two: &MySqlPool) -> Ended {
    let (one, two) = (one.clone(), two.clone());
    tokio::spawn(async move {
        let [ledger, stock] = tx.enlist(["ledger", "stock"]).await?;
        let (one, two) = tokio::join!(
            ledger.run(&one, async |db| sqlx::query(WORK).execute(db).await),
            stock.run(&two, async |db| sqlx::query(WORK).execute(db).await),
        );
        one.expect("prepared");
        two.expect("prepared");
        tx.commit().await
    })
}

/// A row in MariaDB, and the commit.
fn stock(mut tx: OpenTransaction, pool: &MySqlPool) -> Ended {
    let pool = pool.clone();
    tokio::spawn(async move {
        tx.join("stock", &pool, async |db| sqlx::query(WORK).execute(db).await)
            .await
            .expect("prepared");
        tx.commit().await
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_databases_are_prepared_at_once_and_mariadb_s_is_finished_on_its_own_session() {
    let (pg, maria) = (Pg::new().await, Maria::new().await);
    for commits in [false, true] {
        let (mut fake, id) = (Fake::start(), transaction());
        let hf = fake.connect().await;
        let (tx, mut session) = begin(&mut fake, &hf, id).await;
        let ended = both(tx, &pg.pool, &maria.pool);
        enlist(&mut session, id, &["ledger", "stock"]).await;
        let (request, asked) = commit(&mut session).await;
        assert_eq!((asked.branches, asked.items), (2, 0));
        let mut votes = asked.votes;
        votes.sort_by(|a, b| a.database.cmp(&b.database));
        let [ledger, stock] = &votes[..] else { panic!("{votes:?}") };
        assert!(ledger.vouched && !ledger.finishes && ledger.connection == 0);
        assert!(stock.vouched && stock.finishes && stock.connection != 0);
        let (in_pg, in_maria) = (branch(id, "ledger"), branch(id, "stock"));
        assert_eq!(pg.database.prepared(&[in_pg]).await.unwrap(), [true]);
        assert!(maria.is_prepared(&in_maria).await);
        assert!(maria.lives(stock.connection).await);

        tell(&session, id, "stock", commits).await;
        assert!(report(&mut session, id, "stock").await);
        let (end, marker) =
            if commits { (End::Commit, Some(Outcome::Committed)) } else { (End::Abort, None) };
        assert_eq!(maria.database.outcomes(&[in_maria]).await.unwrap(), [marker]);
        assert!(!maria.is_prepared(&in_maria).await);
        assert_eq!(pg.database.finish(&in_pg, end, None).await, Finished::Done);
        let answer = if commits { committed(id) } else { failed(id, "voted_no") };
        session.answer(request, answer).await;
        assert_eq!(ended.await.unwrap().is_ok(), commits);

        let again: u64 =
            sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&maria.pool).await.unwrap();
        assert_eq!(again, stock.connection, "the session is back in the pool");
        assert_eq!(pg.count("SELECT count(*) FROM work").await, i64::from(commits));
        assert_eq!(maria.count("SELECT COUNT(*) FROM work").await, i64::from(commits));
    }
}

/// One message begins the transaction and enlists its databases, and the commit counts them.
#[tokio::test(flavor = "multi_thread")]
async fn databases_take_part_from_the_beginning() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    let (hf, pool) = (hf.clone(), pg.pool.clone());
    let ended = tokio::spawn(async move {
        let (tx, [ledger]) = hf.begin_across(["ledger"], BeginOptions::new()).await?;
        ledger.run(&pool, async |db| sqlx::query(WORK).execute(db).await).await.expect("prepared");
        tx.commit().await
    });
    let mut session = fake.sessions.recv().await.unwrap();
    let (request, call) = session.call().await;
    let Call::Begin(begin) = call else { panic!("{call:?}") };
    let names: Vec<&str> = begin.branches.iter().map(|b| b.participant.as_str()).collect();
    assert_eq!(names, ["ledger"]);
    session.answer(request, begun(id, &["ledger"])).await;
    let (request, asked) = commit(&mut session).await;
    assert_eq!((asked.branches, asked.votes.len()), (1, 1));
    assert_eq!(pg.database.prepared(&[branch(id, "ledger")]).await.unwrap(), [true]);
    session.answer(request, committed(id)).await;
    assert!(ended.await.unwrap().is_ok_and(|committed| committed.finished));

    // The transaction of the same key has ended: there is nothing to take part in.
    let again = tokio::spawn({
        let hf = fake.connect().await;
        async move { hf.begin_across(["ledger"], BeginOptions::new().with_key("k")).await.map(drop) }
    });
    let mut session = fake.sessions.recv().await.unwrap();
    let (request, _) = session.call().await;
    let Answer::Begun(mut ended) = begun(id, &[]) else { unreachable!() };
    ended.repeated = true;
    session.answer(request, Answer::Begun(ended)).await;
    let error = again.await.unwrap().unwrap_err();
    assert!(matches!(&error, TransactionError::Refused(r) if r.is(Code::Closed)), "{error:?}");
}

/// The client decides nothing: it closes the session, and the server finishes the branch.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_stream_is_lost_the_session_is_closed() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (tx, mut session) = begin(&mut fake, &hf, id).await;
    let ended = stock(tx, &maria.pool);
    enlist(&mut session, id, &["stock"]).await;
    let (_, asked) = commit(&mut session).await;
    let branch = branch(id, "stock");
    session.cut().await;
    let holder = holder(&asked.votes[0]);
    until("the session is closed", || async { !maria.lives(holder.connection).await }).await;
    assert!(maria.is_prepared(&branch).await, "nothing was decided");
    assert_eq!(maria.pool.size(), 0);
    let finished = maria.database.finish(&branch, End::Commit, Some(holder)).await;
    assert_eq!(finished, Finished::Done);
    // The answer is looked up on the next stream.
    let mut session = fake.sessions.recv().await.unwrap();
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Get(_)), "{call:?}");
    session.answer(request, committed(id)).await;
    ended.await.unwrap().unwrap();
    assert_eq!(maria.count("SELECT COUNT(*) FROM work").await, 1);
}

/// The stream is lost between the prepare and the vote: what is prepared then is not held either.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_prepared_after_the_stream_was_lost_is_not_held() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (mut tx, mut session) = begin(&mut fake, &hf, id).await;
    let enlisting = tokio::spawn(async move {
        let branches = tx.enlist(["stock"]).await;
        (tx, branches)
    });
    enlist(&mut session, id, &["stock"]).await;
    let (tx, branches) = enlisting.await.unwrap();
    let [stock] = branches.unwrap();
    session.cut().await;
    // Another stream: the end of the first is known by then.
    let status = tokio::spawn({
        let hf = hf.clone();
        async move { hf.status(id).await }
    });
    let mut session = fake.sessions.recv().await.unwrap();
    let (request, _) = session.call().await;
    session.answer(request, failed(id, "client_gone")).await;
    status.await.unwrap().unwrap();

    stock.run(&maria.pool, async |db| sqlx::query(WORK).execute(db).await).await.unwrap();
    until("the session is closed", || async { maria.pool.size() == 0 }).await;
    let error = tx.commit().await.unwrap_err();
    let TransactionError::Failed { reason, .. } = &error else { panic!("{error}") };
    assert_eq!(reason.code, "client_gone");
}

/// The server took over and ended the session: the client's own attempt harms nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_server_has_ended_is_reported_and_discarded() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (tx, mut session) = begin(&mut fake, &hf, id).await;
    let ended = stock(tx, &maria.pool);
    enlist(&mut session, id, &["stock"]).await;
    let (request, asked) = commit(&mut session).await;
    let branch = branch(id, "stock");
    let finished = maria.database.finish(&branch, End::Commit, Some(holder(&asked.votes[0]))).await;
    assert_eq!(finished, Finished::Done);
    tell(&session, id, "stock", true).await;
    assert!(!report(&mut session, id, "stock").await, "it was not done here");
    assert_eq!(maria.pool.size(), 0, "discarded");
    session.answer(request, committed(id)).await;
    ended.await.unwrap().unwrap();
    assert_eq!(maria.count("SELECT COUNT(*) FROM work").await, 1);
}

/// The closure ends the branch itself: the prepare fails, and the connection with it (MY11).
#[tokio::test(flavor = "multi_thread")]
async fn an_xa_error_discards_the_connection_and_fails_the_transaction() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (mut tx, mut session) = begin(&mut fake, &hf, id).await;
    let xid = branch(id, "stock").xid();
    let pool = maria.pool.clone();
    let joined = tokio::spawn(async move {
        let joined = tx
            .join("stock", &pool, async |db| {
                let meddle = format!("XA END {xid}; XA ROLLBACK {xid}");
                sqlx::raw_sql(AssertSqlSafe(meddle)).execute(db).await
            })
            .await;
        (tx, joined)
    });
    enlist(&mut session, id, &["stock"]).await;
    let (_, call) = session.call().await;
    let Call::Abort(abort) = call else { panic!("{call:?}") };
    assert!(abort.detail.starts_with("stock: prepare in the database stock"), "{abort:?}");
    let (tx, joined) = joined.await.unwrap();
    let error = joined.unwrap_err();
    assert!(matches!(&error, Error::Database(failure) if failure.step == Step::Prepare), "{error}");
    assert_eq!(maria.pool.size(), 0, "discarded");
    let error = tx.commit().await.unwrap_err();
    let TransactionError::Failed { reason, .. } = &error else { panic!("{error}") };
    assert_eq!((reason.code.as_str(), reason.participant.as_str()), ("aborted", "stock"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_closure_fails_the_transaction() {
    let (mut fake, pg, maria, id) =
        (Fake::start(), Pg::new().await, Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (mut tx, mut session) = begin(&mut fake, &hf, id).await;
    let (one, two) = (pg.pool.clone(), maria.pool.clone());
    let joined = tokio::spawn(async move {
        let [ledger, stock] = tx.enlist(["ledger", "stock"]).await.unwrap();
        stock.run(&two, async |db| sqlx::query(WORK).execute(db).await).await.unwrap();
        let error = ledger.run(&one, async |_| Err::<(), _>("no money")).await.unwrap_err();
        (tx, error)
    });
    enlist(&mut session, id, &["ledger", "stock"]).await;
    let (_, call) = call(&mut session).await;
    assert!(matches!(&call, Call::Abort(abort) if abort.detail.starts_with("ledger")), "{call:?}");
    let (tx, error) = joined.await.unwrap();
    assert_eq!(error, Error::Work("no money"));
    // What MariaDB had prepared was voted for, so it waits for the order.
    tell(&session, id, "stock", false).await;
    assert!(report(&mut session, id, "stock").await);
    let branch = branch(id, "stock");
    until("it is rolled back", || async { !maria.is_prepared(&branch).await }).await;
    until("its connection is back", || async { maria.pool.num_idle() == 1 }).await;
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, TransactionError::Failed { .. }), "{error}");
    assert_eq!(maria.count("SELECT COUNT(*) FROM work").await, 0);
}

/// PG4: what cannot be prepared.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_postgresql_refuses_says_why() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    let (mut tx, mut session) = begin(&mut fake, &hf, id).await;
    let pool = pg.pool.clone();
    let joined = tokio::spawn(async move {
        tx.join("ledger", &pool, async |db| {
            sqlx::raw_sql("CREATE TEMP TABLE t (n int)").execute(db).await
        })
        .await
    });
    enlist(&mut session, id, &["ledger"]).await;
    let error = joined.await.unwrap().unwrap_err();
    let Error::Database(failure) = &error else { panic!("{error}") };
    assert!(failure.message.contains("temporary"), "{failure}");
    until("the connection is back", || async { pg.pool.num_idle() == pg.pool.size() as usize })
        .await;
    let (_, call) = session.call().await;
    assert!(matches!(call, Call::Abort(_)), "{call:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_was_not_run_is_never_committed() {
    let (mut fake, id) = (Fake::start(), transaction());
    let hf = fake.connect().await;
    let (mut tx, mut session) = begin(&mut fake, &hf, id).await;
    let ended = tokio::spawn(async move {
        let [_stock] = tx.enlist(["stock"]).await?;
        tx.commit().await
    });
    enlist(&mut session, id, &["stock"]).await;
    let (_, call) = session.call().await;
    assert!(matches!(call, Call::Abort(_)), "{call:?}");
    let error = ended.await.unwrap().unwrap_err();
    let TransactionError::Failed { reason, .. } = &error else { panic!("{error}") };
    assert_eq!((reason.code.as_str(), reason.participant.as_str()), ("incomplete", "stock"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_dropped_waits_for_the_order_to_roll_back() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (mut tx, mut session) = begin(&mut fake, &hf, id).await;
    let pool = maria.pool.clone();
    let joined = tokio::spawn(async move {
        tx.join("stock", &pool, async |db| sqlx::query(WORK).execute(db).await).await.unwrap();
    });
    enlist(&mut session, id, &["stock"]).await;
    let (_, call) = call(&mut session).await;
    joined.await.unwrap();
    assert!(matches!(call, Call::Abort(_)), "{call:?}");
    let branch = branch(id, "stock");
    assert!(maria.is_prepared(&branch).await);
    tell(&session, id, "stock", false).await;
    assert!(report(&mut session, id, "stock").await);
    assert!(!maria.is_prepared(&branch).await);
    until("its connection is back", || async { maria.pool.num_idle() == 1 }).await;
}

/// Another branch failed first: this one is prepared all the same, never voted for, and rolled
/// back on its own session without being told to.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_prepared_after_the_failure_is_rolled_back() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (mut tx, mut session) = begin(&mut fake, &hf, id).await;
    let pool = maria.pool.clone();
    let joined = tokio::spawn(async move {
        let [stock] = tx.enlist(["stock"]).await.unwrap();
        stock
            .run(&pool, async |db| {
                drop(tx);
                sqlx::query(WORK).execute(db).await
            })
            .await
    });
    enlist(&mut session, id, &["stock"]).await;
    let (_, call) = session.call().await;
    assert!(matches!(call, Call::Abort(_)), "{call:?}");
    let error = joined.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Transaction(TransactionError::Failed { .. })), "{error}");
    let branch = branch(id, "stock");
    until("it is rolled back", || async { !maria.is_prepared(&branch).await }).await;
    until("its connection is back", || async { maria.pool.num_idle() == 1 }).await;
}

/// The votes were not taken, so no order to roll back comes: the server's word that it failed is
/// enough.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_without_orders_the_session_rolls_back_and_is_closed() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (tx, mut session) = begin(&mut fake, &hf, id).await;
    let ended = stock(tx, &maria.pool);
    enlist(&mut session, id, &["stock"]).await;
    let (request, _) = commit(&mut session).await;
    session.answer(request, failed(id, "deadline_passed")).await;
    ended.await.unwrap().unwrap_err();
    let branch = branch(id, "stock");
    until("it is rolled back", || async { !maria.is_prepared(&branch).await }).await;
    until("its connection is closed", || async { maria.pool.size() == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_refused_is_aborted() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (tx, mut session) = begin(&mut fake, &hf, id).await;
    let ended = stock(tx, &maria.pool);
    enlist(&mut session, id, &["stock"]).await;
    let (request, _) = commit(&mut session).await;
    let refusal = Refusal::new(Code::NotAParticipant, "no database");
    session.answer(request, Answer::Refusal(refusal.into())).await;
    ended.await.unwrap().unwrap_err();
    let (_, call) = call(&mut session).await;
    assert!(matches!(call, Call::Abort(_)), "{call:?}");
    tell(&session, id, "stock", false).await;
    let branch = branch(id, "stock");
    until("it is rolled back", || async { !maria.is_prepared(&branch).await }).await;
}

/// No stream would bring the decision: the session is closed, and the vote names it all the same,
/// so that the server makes sure that it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_detached_transaction_holds_no_session() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let detached = BeginOptions::new().detached();
    let (tx, mut session) = begin_with(&mut fake, &hf, id, detached).await;
    let ended = stock(tx, &maria.pool);
    enlist(&mut session, id, &["stock"]).await;
    let (request, asked) = commit(&mut session).await;
    let vote = &asked.votes[0];
    assert!(!vote.finishes && vote.connection != 0);
    until("the session is gone", || async { !maria.lives(vote.connection).await }).await;
    let branch = branch(id, "stock");
    let finished = maria.database.finish(&branch, End::Commit, Some(holder(vote))).await;
    assert_eq!(finished, Finished::Done);
    session.answer(request, committed(id)).await;
    ended.await.unwrap().unwrap();
}

/// A client that goes away right after its decision still finishes what it holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_is_dropped_finishes_what_it_holds() {
    let (mut fake, maria, id) = (Fake::start(), Maria::new().await, transaction());
    let hf = fake.connect().await;
    let (tx, mut session) = begin(&mut fake, &hf, id).await;
    let ended = stock(tx, &maria.pool);
    enlist(&mut session, id, &["stock"]).await;
    let (request, _) = commit(&mut session).await;
    drop(hf);
    session.answer(request, outcome(id, v1::TransactionState::Committing)).await;
    ended.await.unwrap().unwrap();
    tell(&session, id, "stock", true).await;
    assert!(report(&mut session, id, "stock").await);
    session.end().await;
    assert_eq!(maria.count("SELECT COUNT(*) FROM work").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_services_and_events_are_one_transaction() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    let (mut tx, mut session) = begin(&mut fake, &hf, id).await;
    let pool = pg.pool.clone();
    let ended = tokio::spawn(async move {
        tx.call("payments", "take 100").await?;
        let written = tx.join("ledger", &pool, async |db| sqlx::query(WORK).execute(db).await);
        assert_eq!(written.await.expect("prepared").rows_affected(), 1);
        tx.publish("transfers", Event::new("made", "/bank")).await?;
        tx.commit().await
    });
    let counted = |branches, items| {
        Answer::Counted(v1::Counted { branches, items, branch_ids: branch_ids(id, &["ledger"]) })
    };
    for (branches, items) in [(1, 0), (2, 0), (2, 1)] {
        let (request, _) = session.call().await;
        session.answer(request, counted(branches, items)).await;
    }
    let (request, asked) = commit(&mut session).await;
    assert_eq!((asked.branches, asked.items, asked.votes.len()), (2, 1, 1));
    session.answer(request, committed(id)).await;
    ended.await.unwrap().unwrap();
    let branch = branch(id, "ledger");
    assert_eq!(pg.database.finish(&branch, End::Commit, None).await, Finished::Done);
    assert_eq!(pg.count("SELECT count(*) FROM work").await, 1);
}

/// One frame decides many branches; each is finished on its own session and reported.
#[tokio::test(flavor = "multi_thread")]
async fn many_branches_are_finished_together() {
    const MANY: usize = 24;
    let (mut fake, maria) = (Fake::start(), Maria::new().await);
    let hf = fake.connect().await;
    let many = u32::try_from(MANY).unwrap();
    let pool = MySqlPoolOptions::new().max_connections(many).connect(&maria.url).await.unwrap();
    let run = |n: usize| {
        let (hf, pool) = (hf.clone(), pool.clone());
        tokio::spawn(async move {
            let mut tx = hf.begin().await?;
            let insert = format!("INSERT INTO work (id) VALUES ('{n}')");
            let insert = async |db: &mut MySqlConnection| {
                sqlx::raw_sql(AssertSqlSafe(insert)).execute(db).await
            };
            tx.join("stock", &pool, insert).await.expect("prepared");
            tx.commit().await
        })
    };
    let runs: Vec<Ended> = (0..MANY).map(run).collect();
    let mut session = fake.sessions.recv().await.unwrap();
    let (mut asked, mut reported) = (Vec::new(), 0);
    while reported < MANY {
        for (request, call) in session.calls().await {
            match call {
                Call::Begin(_) => session.answer(request, begun(transaction(), &[])).await,
                Call::Enlist(enlist) => {
                    let id = ids::transaction_id("id", &enlist.transaction_id).unwrap();
                    let branch_ids = branch_ids(id, &["stock"]);
                    let counted = v1::Counted { branches: 1, items: 0, branch_ids };
                    session.answer(request, Answer::Counted(counted)).await;
                }
                Call::Vote(_) => session.answer(request, Answer::Voted(v1::Voted {})).await,
                Call::Commit(commit) => asked.push((request, commit.transaction_id)),
                Call::BranchEnded(ended) => {
                    assert!(ended.done);
                    reported += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        if asked.len() == MANY {
            let mut replies = Vec::new();
            for (request, transaction_id) in asked.drain(..) {
                let id = ids::transaction_id("id", &transaction_id).unwrap();
                let database = "stock".to_owned();
                let finish = v1::FinishBranch { transaction_id, database, commit: true };
                let results = [(0, Answer::Finish(finish)), (request, committed(id))];
                replies.extend(results.map(|(request, result)| v1::TransactionReply {
                    request,
                    result: Some(result),
                }));
            }
            session.send(v1::TransactionReplyFrame { replies }).await;
        }
    }
    for run in runs {
        run.await.unwrap().unwrap();
    }
    assert_eq!(maria.count("SELECT COUNT(*) FROM work").await, i64::from(many));
    until("they are back", || async { pool.num_idle() == MANY }).await;
}
