//! Requests about transactions and events become the commands that were meant, and what is not
//! well-formed is refused with the field's name.

use std::collections::BTreeMap;

use handfast_core::command::{
    Act, BeginRequest, BranchRequest, Command, CommitRequest, DatabaseVote, Start, Wait,
};
use handfast_core::event::{DeliveryRef, EventRequest};
use handfast_core::ids::{
    DeliveryToken, Holder, Lsn, Name, Offset, ProducerId, SubscriptionId, TopicId, TransactionId,
};
use handfast_core::limits::{BATCH_ITEMS, BRANCHES, KEY_BYTES};
use handfast_core::output::{Outcome, PublicState, Reply};
use handfast_core::record::{
    End, Participant, ParticipantKind, SubscriptionSettings, TopicSettings,
};
use handfast_core::refusal::{Code, Refusal};
use handfast_wire::bytes::Bytes;
use handfast_wire::ended::{self, Ending};
use handfast_wire::events::{self, Read, StartAt};
use handfast_wire::prost::Message;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::subscriptions::{self, NewSubscription, Sent};
use handfast_wire::transactions::{self, Door};
use handfast_wire::{digest, event, hash, ids, participants, raw, v1};

const ID: TransactionId = TransactionId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_e5f6);

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn body(id: &str) -> Bytes {
    let value = v1::event_attribute::Attr::CeString("k".into());
    let event = v1::Event {
        id: id.into(),
        source: "/s".into(),
        r#type: "t".into(),
        attributes: BTreeMap::from([(
            event::PARTITION_KEY.into(),
            v1::EventAttribute { attr: Some(value) },
        )]),
        ..v1::Event::default()
    };
    event.encode_to_vec().into()
}

fn an_event(id: &str) -> EventRequest {
    EventRequest { topic: name("orders"), key: Some(hash::key_hash("k")), body: body(id) }
}

fn a_branch() -> BranchRequest {
    let participant = Participant { name: name("payments"), kind: ParticipantKind::Service };
    BranchRequest { participant, work: Some(Bytes::from_static(b"charge")) }
}

fn a_delivery() -> DeliveryRef {
    DeliveryRef {
        subscription: SubscriptionId(3),
        offset: Offset(4),
        token: DeliveryToken(1 << 32),
    }
}

fn begin_message() -> raw::BeginRequest {
    raw::BeginRequest {
        idempotency_key: "order-7".into(),
        deadline_ms: 5_000,
        detached: false,
        branches: vec![a_branch().into()],
        events: vec![an_event("1").into()],
        acknowledgements: vec![a_delivery().into()],
    }
}

fn begun(call: Call, door: Door) -> BeginRequest {
    match transactions::command(call, ID, door) {
        Ok(Command::Begin(request)) => *request,
        other => panic!("{other:?}"),
    }
}

fn refused(call: Call) -> Refusal {
    transactions::command(call, ID, Door::Session).expect_err("it is not well-formed")
}

fn id_bytes() -> Bytes {
    ids::transaction_bytes(ID)
}

#[test]
fn begin_says_all_that_it_was_asked() {
    let request = begun(Call::Begin(begin_message()), Door::Session);
    let digest = digest::of_begin(&request);
    let key = request.key.clone().expect("it has a key");
    assert_eq!((&*key.key, key.digest), ("order-7", digest));
    let expected = BeginRequest {
        id: ID,
        local: None,
        deadline_ms: Some(5_000),
        key: Some(key),
        detached: false,
        branches: vec![a_branch()],
        events: vec![an_event("1")],
        acknowledgements: vec![a_delivery()],
        commit: None,
    };
    assert_eq!(request, expected);
    assert!(begun(Call::Begin(begin_message()), Door::Unary).detached, "calls have no stream");
    let plain = begun(Call::Begin(raw::BeginRequest::default()), Door::Session);
    assert_eq!((plain.key, plain.deadline_ms), (None, None));
}

#[test]
fn begin_local_names_its_database() {
    let message = raw::BeginLocalRequest {
        database: "orders".into(),
        events: vec![an_event("1").into()],
        ..raw::BeginLocalRequest::default()
    };
    let request = begun(Call::BeginLocal(message), Door::Unary);
    assert_eq!(request.local, Some(name("orders")));
    assert_eq!(request.events, [an_event("1")]);
    let nowhere = Call::BeginLocal(raw::BeginLocalRequest::default());
    assert!(refused(nowhere).detail.contains("`database`"));
}

#[test]
fn run_counts_for_its_caller() {
    let message = raw::RunRequest {
        branches: vec![a_branch().into()],
        events: vec![an_event("1").into(), an_event("2").into()],
        acknowledgements: vec![a_delivery().into()],
        wait: v1::Wait::Decided.into(),
        ..raw::RunRequest::default()
    };
    let request = begun(Call::Run(message.clone()), Door::Session);
    let (votes, wait) = (vec![], Wait::Decided);
    let commit = CommitRequest { branches: 1, items: 3, votes, vouched: false, wait };
    assert_eq!(request.commit, Some(commit));
    let ledger = v1::Branch {
        participant: "ledger".into(),
        kind: v1::ParticipantKind::Database.into(),
        work: None,
    };
    let refusal = refused(Call::Run(raw::RunRequest { branches: vec![ledger], ..message }));
    assert!(refusal.detail.contains("`branches`"), "{refusal}");
}

#[test]
fn a_repetition_has_the_same_digest_and_another_request_has_not() {
    let digest = |message: raw::BeginRequest| {
        begun(Call::Begin(message), Door::Session).key.expect("it has a key").digest
    };
    let first = digest(begin_message());
    // Stored in journals: it may never change.
    assert_eq!(first, 0x2661_c80d_cdfb_bd99);
    let mut again = begin_message();
    again.deadline_ms = 1;
    again.detached = true;
    again.acknowledgements[0].token = 99;
    assert_eq!(digest(again), first);

    let other = |change: fn(&mut raw::BeginRequest)| {
        let mut message = begin_message();
        change(&mut message);
        digest(message)
    };
    let others = [
        other(|m| m.branches.clear()),
        other(|m| m.branches[0].work = None),
        other(|m| m.branches[0].work = Some(Bytes::new())),
        other(|m| m.branches[0].participant = "shipping".into()),
        other(|m| m.events.clear()),
        other(|m| m.events[0].topic = "bills".into()),
        other(|m| m.events[0].event = body("2")),
        other(|m| m.events.push(an_event("1").into())),
        other(|m| m.acknowledgements.clear()),
        other(|m| m.acknowledgements[0].offset = 5),
        other(|m| m.acknowledgements[0].subscription_id = 5),
    ];
    for (i, digest) in others.iter().enumerate() {
        assert_ne!(*digest, first, "{i}");
        assert!(!others[..i].contains(digest), "{i}");
    }
}

#[test]
fn calls_about_a_transaction_name_it() {
    let command = |call| transactions::command(call, TransactionId(0), Door::Session);
    let transaction_id = id_bytes();
    let enlist = v1::EnlistRequest { transaction_id, branches: vec![a_branch().into()] };
    let expected = Command::Enlist { id: ID, branches: vec![a_branch()] };
    assert_eq!(command(Call::Enlist(enlist)), Ok(expected));

    let stage = raw::StageRequest {
        transaction_id: id_bytes(),
        events: vec![an_event("1").into()],
        acknowledgements: vec![a_delivery().into()],
    };
    let (events, acknowledgements) = (vec![an_event("1")], vec![a_delivery()]);
    let expected = Command::Stage { id: ID, events, acknowledgements };
    assert_eq!(command(Call::Stage(stage)), Ok(expected));

    let vote = v1::DatabaseVote {
        database: "ledger".into(),
        connection: 7,
        server_start_unix_s: 8,
        finishes: true,
        vouched: true,
    };
    let given = DatabaseVote {
        database: name("ledger"),
        holder: Some(Holder { connection: 7, server_start: 8 }),
        finishes: true,
        vouched: true,
    };
    let commit = v1::CommitRequest {
        transaction_id: id_bytes(),
        branches: 1,
        items: 2,
        votes: vec![vote.clone()],
        wait: 0,
        vouched: true,
    };
    let (votes, wait) = (vec![given.clone()], Wait::Finished);
    let request = CommitRequest { branches: 1, items: 2, votes, vouched: true, wait };
    let on_session = |call| transactions::command(call, ID, Door::Session);
    assert_eq!(on_session(Call::Commit(commit.clone())), Ok(Command::Commit { id: ID, request }));
    let unary = transactions::command(Call::Commit(commit), ID, Door::Unary);
    let refusal = unary.expect_err("a call cannot be told");
    assert!(refusal.detail.contains("votes.finishes"), "{refusal}");
    let vote = v1::DatabaseVote { finishes: false, connection: 0, ..vote };
    let given = DatabaseVote { finishes: false, holder: None, ..given };
    let votes = v1::VoteRequest { transaction_id: id_bytes(), votes: vec![vote] };
    let expected = Command::VoteFor { id: ID, votes: vec![given] };
    assert_eq!(command(Call::Vote(votes)), Ok(expected));
    let database = "ledger".to_owned();
    let ended = v1::BranchEnded { transaction_id: id_bytes(), database, done: true };
    let expected = Command::BranchEnded { id: ID, database: name("ledger"), done: true };
    assert_eq!(command(Call::BranchEnded(ended)), Ok(expected));

    use v1::resolve_request::Act as Asked;
    for (asked, act) in [
        (Asked::Abort(true), Act::Abort),
        (Asked::Release("ledger".into()), Act::Release(name("ledger"))),
        (Asked::Note(true), Act::Note),
    ] {
        let detail = "by hand".to_owned();
        let request = v1::ResolveRequest { transaction_id: id_bytes(), act: Some(asked), detail };
        let expected = Command::Operate { id: ID, act, detail: "by hand".into() };
        assert_eq!(transactions::operate(request), Ok(expected));
    }
    let request = v1::ResolveRequest { transaction_id: id_bytes(), ..Default::default() };
    let refusal = transactions::operate(request).expect_err("nothing asked");
    assert!(refusal.detail.contains("act"), "{refusal}");

    let abort = v1::AbortRequest { transaction_id: id_bytes(), detail: "why".into() };
    let expected = Command::Abort { id: ID, detail: "why".into() };
    assert_eq!(command(Call::Abort(abort)), Ok(expected));

    let extend = v1::ExtendRequest { transaction_id: id_bytes(), deadline_ms: 0 };
    let expected = Command::Extend { id: ID, deadline_ms: 0 };
    assert_eq!(command(Call::Extend(extend)), Ok(expected), "the core judges the deadline");

    for (wait, expected) in [(0, None), (1, Some(Wait::Finished)), (2, Some(Wait::Decided))] {
        let get = v1::GetRequest { transaction_id: id_bytes(), wait };
        assert_eq!(command(Call::Get(get)), Ok(Command::Status { id: ID, wait: expected }));
    }
    let show = v1::ShowRequest { transaction_id: id_bytes() };
    assert_eq!(command(Call::Show(show)), Ok(Command::Show { id: ID }));
    let list = v1::ListTransactionsRequest { after: Bytes::new(), limit: 0, attention: true };
    let expected = Command::ListTransactions {
        after: None,
        limit: transactions::DEFAULT_LIMIT,
        attention: true,
    };
    assert_eq!(command(Call::List(list)), Ok(expected));
}

#[test]
fn what_has_ended_is_asked_for_with_bounds() {
    let nothing = ended::query(&v1::ListEndedRequest::default()).expect("well-formed");
    assert_eq!((nothing.since_ms, nothing.ending, nothing.from), (0, None, None));
    assert_eq!(nothing.limit, 100);
    let request = v1::ListEndedRequest { since_unix_ms: 7, ending: 2, from: 9, limit: u32::MAX };
    let query = ended::query(&request).expect("well-formed");
    assert_eq!((query.since_ms, query.from, query.limit), (7, Some(Lsn(9)), 1_000));
    assert_eq!(query.ending, Some(Ending::Failed));
    let refused = ended::query(&v1::ListEndedRequest { ending: 3, ..request }).expect_err("3");
    assert_eq!(refused.code, Code::InvalidArgument);
    assert!(refused.detail.starts_with("`ending`"), "{refused}");

    // Every end is one or the other.
    for (committed, heuristic, is_good) in
        [(true, false, true), (true, true, false), (false, false, false), (false, true, false)]
    {
        let end = End {
            id: ID,
            previous: Lsn(1),
            wall_ms: 0,
            committed,
            heuristic,
            why: String::new(),
            noted: false,
            finished: Vec::new(),
        };
        let asked = |ending: Ending| {
            let ending = v1::Ending::from(ending).into();
            let request = v1::ListEndedRequest { ending, ..v1::ListEndedRequest::default() };
            ended::query(&request).expect("well-formed").wants(&end)
        };
        assert_eq!((asked(Ending::Committed), asked(Ending::Failed)), (is_good, !is_good));
        assert!(nothing.wants(&end));
    }
}

#[test]
fn what_is_not_well_formed_is_refused_by_its_field() {
    let names = |refusal: Refusal, field: &str| {
        assert_eq!(refusal.code, Code::InvalidArgument, "{refusal}");
        assert!(refusal.detail.starts_with(&format!("`{field}`")), "{refusal}");
    };
    names(refused(Call::Show(v1::ShowRequest::default())), "transaction_id");
    let get = v1::GetRequest { transaction_id: id_bytes(), wait: 3 };
    names(refused(Call::Get(get)), "wait");
    let after = Bytes::from_static(b"no id");
    names(
        refused(Call::List(v1::ListTransactionsRequest { after, limit: 1, attention: false })),
        "after",
    );
    let with = |change: fn(&mut raw::BeginRequest)| {
        let mut message = begin_message();
        change(&mut message);
        refused(Call::Begin(message))
    };
    names(with(|m| m.branches[0].participant = "a b".into()), "participant");
    names(with(|m| m.branches[0].kind = 9), "kind");
    names(with(|m| m.branches[0].kind = v1::ParticipantKind::Database.into()), "work");
    names(with(|m| m.events[0].topic.clear()), "topic");
    names(with(|m| m.idempotency_key = "k".repeat(KEY_BYTES + 1)), "idempotency_key");
    assert!(with(|m| m.events[0].event = Bytes::new()).detail.contains("`id`"));
    let many = with(|m| m.branches = vec![a_branch().into(); BRANCHES + 1]);
    assert_eq!(many.code, Code::TooMany);
    let many = with(|m| m.acknowledgements = vec![a_delivery().into(); BATCH_ITEMS]);
    assert_eq!(many.code, Code::TooMany, "with the event they are one too many");
    let nothing = raw::TransactionRequest { request: 1, call: None };
    names(transactions::session_command(nothing, ID).expect_err("no call"), "call");
}

/// Zero is the number of what the server says unasked (`finish`, `prepare`, deliveries): an answer
/// to a request with that number could be taken for it. (Nobody had ever sent it: the client
/// counts from 1.)
#[test]
fn the_number_zero_is_the_servers_own() {
    let get = v1::GetRequest { transaction_id: ids::transaction_bytes(ID), wait: 0 };
    let session = |request| {
        let call = Some(Call::Get(get.clone()));
        transactions::session_command(raw::TransactionRequest { request, call }, ID).map(drop)
    };
    let attach = |request| {
        let inquire = v1::Inquire { transaction_id: ids::transaction_bytes(ID) };
        let message = Some(v1::from_participant::Message::Inquire(inquire));
        participants::command(v1::FromParticipant { request, message }).map(drop)
    };
    let subscribe = |request| {
        let message = Some(v1::from_subscriber::Message::Credit(v1::Credit { more: 1 }));
        subscriptions::sent(v1::FromSubscriber { request, message }, Some(&name("s"))).map(drop)
    };
    for door in [&session as &dyn Fn(u64) -> Result<(), Refusal>, &attach, &subscribe] {
        let refusal = door(0).expect_err("zero");
        assert_eq!(refusal.code, Code::InvalidArgument);
        assert!(refusal.detail.starts_with("`request`"), "{}", refusal.detail);
        assert_eq!(door(1), Ok(()));
    }
}

static HOMES: handfast_wire::Homes = handfast_wire::Homes::new();
static ABOUT: transactions::About<'_> =
    transactions::About { store: handfast_core::ids::StoreId(2), keys_since_ms: 7, homes: &HOMES };

#[test]
fn answers_carry_their_number_and_calls_their_status() {
    let outcome = Outcome {
        id: ID,
        state: PublicState::Committing,
        reason: None,
        heuristic: false,
        finished: true,
    };
    let sent = transactions::session_reply(8, Reply::Outcome(outcome.clone()), ABOUT);
    assert_eq!(sent.request, 8);
    let expected = v1::Outcome { keys_since_unix_ms: 7, ..outcome.clone().into() };
    assert_eq!(sent.result, Some(v1::transaction_reply::Result::Outcome(expected.clone())));
    let unary = transactions::outcome(Reply::Outcome(outcome), ABOUT).expect("it was not refused");
    assert_eq!(unary, expected);

    let refusal = Refusal::new(Code::Closed, "commit was asked");
    let status =
        transactions::counted(Reply::Refused(refusal.clone()), ABOUT).expect_err("refused");
    let message = handfast_wire::status::refusal(&status).expect("it says why");
    let sent = transactions::session_refusal(9, refusal);
    assert_eq!(sent.result, Some(v1::transaction_reply::Result::Refusal(message)));
}

#[test]
fn publishing_needs_a_producer_and_events() {
    let message = raw::PublishRequest {
        producer_id: ids::producer_bytes(ProducerId(5)),
        sequence: 6,
        events: vec![an_event("1").into()],
    };
    let events = vec![an_event("1")];
    let digest = digest::of_publish(&events);
    let expected = Command::Publish { producer: ProducerId(5), sequence: 6, digest, events };
    assert_eq!(events::publish(message.clone()), Ok(expected));
    let refused = |message| events::publish(message).expect_err("it is not well-formed");
    let anonymous = raw::PublishRequest { producer_id: Bytes::new(), ..message.clone() };
    assert!(refused(anonymous).detail.contains("`producer_id`"));
    let empty = raw::PublishRequest { events: vec![], ..message.clone() };
    assert!(refused(empty).detail.contains("`events`"));
    let many = vec![an_event("1").into(); BATCH_ITEMS + 1];
    assert_eq!(refused(raw::PublishRequest { events: many, ..message }).code, Code::TooMany);

    let places = vec![(TopicId(1), Offset(7)), (TopicId(2), Offset(0))];
    let sent = events::publish_reply(4, Reply::Published { places, repeated: false });
    let published = v1::Published { offsets: vec![7, 0], repeated: false };
    assert_eq!(sent.result, Some(v1::publish_reply::Result::Published(published)));
}

#[test]
fn starts_and_settings_survive_and_have_defaults() {
    use StartAt::{Start as At, Time};
    for start in [At(Start::Earliest), At(Start::Latest), At(Start::At(Offset(9))), Time(1)] {
        assert_eq!(events::start("start", Some(start.into()), None), Ok(start));
    }
    assert!(events::start("to", None, None).is_err());
    assert!(events::start("to", Some(v1::Start { from: None }), None).is_err());
    let unsaid = v1::Start { from: Some(v1::start::From::Edge(0)) };
    assert!(events::start("to", Some(unsaid), Some(Start::Latest)).is_err());

    let default = SubscriptionSettings::default();
    assert_eq!(subscriptions::settings(None), Ok(default.clone()));
    let absent = v1::SubscriptionSettings::default();
    assert_eq!(subscriptions::settings(Some(absent)), Ok(default.clone()));
    for max_attempts in [None, Some(1)] {
        let settings = SubscriptionSettings { max_attempts, lease_ms: 1, ..default.clone() };
        assert_eq!(subscriptions::settings(Some(settings.clone().into())), Ok(settings));
    }
    let long = v1::SubscriptionSettings { backoff_ms: Some(60_000), ..absent };
    let settings = subscriptions::settings(Some(long)).expect("the longest follows the first");
    assert_eq!(settings.backoff_max_ms, 60_000);
    for bad in [
        v1::SubscriptionSettings { lease_ms: Some(0), ..absent },
        v1::SubscriptionSettings { lease_ms: Some(3_600_001), ..absent },
        v1::SubscriptionSettings { backoff_ms: Some(2), backoff_max_ms: Some(1), ..absent },
    ] {
        assert!(subscriptions::settings(Some(bad)).is_err(), "{bad:?}");
    }
    let none = v1::TopicSettings { retain_ms: Some(0), ..v1::TopicSettings::default() };
    let refusal = events::topic_settings(Some(none)).expect_err("no time at all");
    assert_eq!(refusal.field, "retain_ms");
    assert_eq!(events::topic_settings(None), Ok(TopicSettings::default()));
}

#[test]
fn a_subscriber_subscribes_first() {
    let stream = name("billing");
    let ask = |message, subscribed| {
        let sent = v1::FromSubscriber { request: 1, message: Some(message) };
        subscriptions::sent(sent, subscribed)
    };
    use v1::from_subscriber::Message;
    let create = v1::CreateWith { topic: "orders".into(), start: None, settings: None };
    let subscribe =
        v1::SubscribeRequest { subscription: "billing".into(), credit: 100, create: Some(create) };
    let new = NewSubscription {
        name: stream.clone(),
        topic: name("orders"),
        start: StartAt::Start(Start::Earliest),
        settings: SubscriptionSettings::default(),
    };
    let expected =
        Sent::Subscribe { subscription: stream.clone(), credit: 100, create: Some(new.clone()) };
    assert_eq!(ask(Message::Subscribe(subscribe), None), Ok(expected));
    let command = Command::CreateSubscription {
        name: stream.clone(),
        topic: name("orders"),
        start: Start::Latest,
        settings: SubscriptionSettings::default(),
    };
    assert_eq!(new.command(Start::Latest), command);

    let delivery = Some(v1::DeliveryRef::from(a_delivery()));
    let (deliveries, reason) = (vec![a_delivery().into()], "bad".to_owned());
    let cases = [
        (Message::Credit(v1::Credit { more: 5 }), Command::Credit { more: 5 }),
        (
            Message::Acknowledge(v1::Acknowledge { deliveries }),
            Command::Acknowledge { deliveries: vec![a_delivery()] },
        ),
        (
            Message::Reject(v1::Reject { delivery, reason: reason.clone(), dead: true }),
            Command::Reject { delivery: a_delivery(), reason, dead: true },
        ),
        (
            Message::ExtendLease(v1::ExtendLease { deliveries: vec![] }),
            Command::ExtendLease { deliveries: vec![] },
        ),
        (
            Message::GiveBack(v1::GiveBack { deliveries: vec![a_delivery().into()] }),
            Command::GiveBack { deliveries: vec![a_delivery()] },
        ),
        (
            Message::AcknowledgeGap(v1::AcknowledgeGap { to: 8 }),
            Command::AcknowledgeGap { subscription: stream.clone(), to: Offset(8) },
        ),
    ];
    for (message, command) in cases {
        let refusal = ask(message.clone(), None).expect_err("not subscribed");
        assert_eq!(refusal.code, Code::NotSubscribed);
        assert_eq!(ask(message, Some(&stream)), Ok(Sent::Command(command)));
    }
    let many = v1::Acknowledge { deliveries: vec![a_delivery().into(); 10_001] };
    let refusal = ask(Message::Acknowledge(many), Some(&stream)).expect_err("too many");
    assert_eq!(refusal.code, Code::TooMany);
}

#[test]
fn dead_letters_are_taken_by_offset_or_all_but_never_by_accident() {
    let take = |offsets: Vec<u64>, all| {
        let request = v1::TakeDeadLettersRequest { subscription: "billing".into(), offsets, all };
        subscriptions::take_dead_letters(request, true)
    };
    let command =
        |offsets| Command::TakeDeadLetters { subscription: name("billing"), offsets, retry: true };
    assert_eq!(take(vec![3], false), Ok(command(vec![Offset(3)])));
    assert_eq!(take(vec![], true), Ok(command(vec![])));
    assert!(take(vec![], false).is_err());
    assert!(take(vec![3], true).is_err());
}

#[test]
fn reading_starts_with_the_earliest_unless_it_is_told() {
    let request = v1::ReadRequest { topic: "orders".into(), ..v1::ReadRequest::default() };
    let expected = Read {
        topic: name("orders"),
        start: StartAt::Start(Start::Earliest),
        limit: None,
        follow: false,
    };
    assert_eq!(Read::try_from(request), Ok(expected));
}
