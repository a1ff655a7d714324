//! The participant's stream.

use handfast_wire::v1::TransactionState as State;
use handfast_wire::v1::from_participant::Message as From;
use handfast_wire::v1::to_participant::Message as To;

use super::*;

struct Instance {
    sending: Sending<v1::FromParticipantFrame>,
    frames: Streaming<v1::ToParticipantFrame>,
    store_id: bytes::Bytes,
    /// Came in one frame with what was asked for.
    ahead: Vec<(u64, To)>,
}

impl Instance {
    async fn open(world: &World) -> Self {
        let (sending, stream) = Sending::new();
        let frames = world.participants().attach(stream).await.unwrap().into_inner();
        Self { sending, frames, store_id: bytes::Bytes::new(), ahead: Vec::new() }
    }

    async fn attached(world: &World, instance: &str) -> Self {
        let mut this = Self::open(world).await;
        this.send(vec![(1, attach(instance))]).await;
        let messages = this.receive(1).await;
        let [(1, To::Attached(attached))] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!(attached.store_id.len(), 16);
        this.store_id = attached.store_id.clone();
        this
    }

    async fn send(&self, messages: Vec<(u64, From)>) {
        let messages = messages
            .into_iter()
            .map(|(request, message)| v1::FromParticipant { request, message: Some(message) });
        self.sending.send(v1::FromParticipantFrame { messages: messages.collect() }).await;
    }

    async fn receive(&mut self, count: usize) -> Vec<(u64, To)> {
        let missing = count.saturating_sub(self.ahead.len());
        if missing > 0 {
            let found = collect(&mut self.frames, missing, |frame| frame.messages).await;
            self.ahead.extend(found.into_iter().map(|m| (m.request, m.message.unwrap())));
        }
        self.ahead.drain(..count).collect()
    }
}

fn attach(instance: &str) -> From {
    From::Attach(v1::AttachRequest {
        service: "payments".into(),
        instance: instance.into(),
        state_id: vec![9; 16].into(),
    })
}

fn vote(id: &[u8], vote: v1::VoteKind) -> From {
    let transaction_id = id.to_vec().into();
    From::Vote(v1::Vote { transaction_id, vote: vote.into(), ..v1::Vote::default() })
}

fn run(wait: v1::Wait) -> v1::RunRequest {
    let work = Some(b"pay 5".to_vec().into());
    let branch = v1::Branch { participant: "payments".into(), kind: 0, work };
    v1::RunRequest { branches: vec![branch], wait: wait.into(), ..Default::default() }
}

#[tokio::test]
async fn a_service_takes_part() {
    let world = World::new().await;
    let mut instance = Instance::attached(&world, "one").await;
    let listed = world.participants().list(v1::ListParticipantsRequest {}).await.unwrap();
    let listed = listed.into_inner().participants;
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "payments"));
    assert_eq!(listed[0].instances[0].instance, "one");

    let mut client = world.transactions();
    let outcome = tokio::spawn(async move { client.run(run(v1::Wait::Finished)).await });
    let store_id = instance.store_id.clone();
    let (id, began) = match &instance.receive(1).await[..] {
        [(0, To::Prepare(prepare))] => {
            assert_eq!(prepare.work.as_deref(), Some(&b"pay 5"[..]));
            assert!(prepare.epoch > 0 && prepare.lsn > 0, "{prepare:?}");
            let began = v1::Began { store_id, epoch: prepare.epoch, lsn: prepare.lsn };
            (prepare.transaction_id.clone(), began)
        }
        other => panic!("{other:?}"),
    };
    instance.send(vec![(2, vote(&id, v1::VoteKind::Yes))]).await;
    // The vote itself is not answered: the next thing that is said is the decision.
    let v1::Began { epoch, lsn, .. } = began;
    let commit = v1::CommitBranch { transaction_id: id.clone(), epoch, lsn };
    assert_eq!(instance.receive(1).await, [(0, To::Commit(commit))]);
    let finished = v1::Finished { transaction_id: id.clone(), committed: true };
    let kept = v1::KeptOutcome { transaction_id: id.clone(), began: Some(began) };
    let may_forget = v1::MayForget { outcomes: vec![kept] };
    instance.send(vec![(3, From::Finished(finished))]).await;
    let outcome = outcome.await.unwrap().unwrap().into_inner();
    assert_eq!((outcome.state(), &outcome.transaction_id), (State::Committed, &id));

    instance.send(vec![(4, From::MayForget(may_forget))]).await;
    let answer = loop {
        let (request, message) = instance.receive(1).await.remove(0);
        if request == 4 {
            break message;
        }
    };
    assert!(matches!(answer, To::Forget(_)), "{answer:?}");
}

#[tokio::test]
async fn an_inquiry_is_answered() {
    let world = World::new().await;
    let mut instance = Instance::attached(&world, "one").await;
    let branch = v1::Branch { participant: "payments".into(), kind: 0, work: None };
    let begin = v1::BeginRequest { branches: vec![branch], ..v1::BeginRequest::default() };
    let begun = world.transactions().begin(begin).await.unwrap().into_inner();
    let id = begun.transaction_id;
    let inquire = || From::Inquire(v1::Inquire { transaction_id: id.clone() });
    instance.send(vec![(2, vote(&id, v1::VoteKind::Yes)), (3, inquire())]).await;
    loop {
        match instance.receive(1).await.remove(0) {
            (_, To::Pending(pending)) => {
                assert!(pending.transaction_id == id && pending.retry_after_ms > 0);
                break;
            }
            (0, To::Prepare(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let abort = v1::AbortRequest { transaction_id: id.clone(), detail: String::new() };
    world.transactions().abort(abort).await.unwrap();
    let abort = v1::AbortBranch { transaction_id: id.clone() };
    assert_eq!(instance.receive(1).await, [(0, To::Abort(abort))]);
    let not_known = v1::NotKnown { transaction_id: id.clone() };
    instance.send(vec![(4, From::NotKnown(not_known)), (5, inquire())]).await;
    let (_, message) = instance.receive(1).await.remove(0);
    assert!(!matches!(message, To::Pending(_) | To::Commit(_)), "{message:?}");
}

#[tokio::test]
async fn a_refusal_names_its_transaction_and_nothing_else_stops() {
    let world = World::new().await;
    let mut instance = Instance::open(&world).await;
    let id = [5; 16];
    instance
        .send(vec![
            (1, vote(&id, v1::VoteKind::Yes)),
            (2, vote(&id, v1::VoteKind::Unspecified)),
            (3, attach("not a name")),
            (3, attach("one")),
        ])
        .await;
    let mut answers = instance.receive(4).await;
    let position = answers.iter().position(|(_, message)| matches!(message, To::Attached(_)));
    assert_eq!(answers.remove(position.expect("it is attached")).0, 3);
    answers.sort_by_key(|(request, _)| *request);
    let refusals: Vec<_> = answers
        .into_iter()
        .map(|(request, message)| match message {
            To::Refused(m) => (request, m.transaction_id.to_vec(), m.refusal.unwrap().code),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        refusals,
        [
            (1, id.to_vec(), "not_attached".to_owned()),
            (2, Vec::new(), "invalid_argument".to_owned()),
            (3, Vec::new(), "invalid_argument".to_owned()),
        ]
    );
}

#[tokio::test]
async fn a_newer_stream_of_an_instance_ends_the_older_one() {
    let world = World::new().await;
    let mut older = Instance::attached(&world, "one").await;
    let _newer = Instance::attached(&world, "one").await;
    let status = loop {
        match older.frames.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends with a reason"),
            Err(status) => break status,
        }
    };
    assert!(status::refusal(&status).is_some(), "{status:?}");
}
