//! A world of two processes with one store, a coordinator that keeps to the protocol, and a
//! network that loses, repeats, reorders and delays without bound. One seed, one run.

use std::collections::BTreeMap;

use handfast::service::conformance::Subject;
use handfast::service::{Driver, Recorded, Report, ServiceStore, StoreStep};
use handfast_core::command::{Command, Vote};
use handfast_core::ids::{Now, TransactionId};
use handfast_core::output::ToService;

use crate::bookkeeper::{
    BookDb, Bookkeeper, abort, at, begun, commit, prepare, prepare_without_work,
};
use crate::faults::{Fate, Fates, Faulty};

/// What the coordinator's log says of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chain {
    Collecting,
    /// COMMIT is durable; the participant was an updater.
    Committing,
    Committed,
    /// ABORT; so often sent.
    Failed(u32),
    /// END after ABORT, or COMMIT without the participant.
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Transaction {
    work: Option<&'static str>,
    chain: Chain,
    /// YES was said. Never taken back before END.
    yes: bool,
}

/// The works that a transaction may bring along.
const WORKS: [Option<&str>; 8] = [
    Some("yes"),
    Some("yes"),
    Some("yes"),
    Some("any"),
    Some("read-only"),
    Some("no"),
    Some("panic"),
    None,
];

type World2<T> = Driver<Faulty<<T as Subject>::Store>, Bookkeeper>;

pub(crate) struct World<'a, T: Subject> {
    subject: &'a T,
    reader: T::Store,
    keeper: Bookkeeper,
    fates: Fates,
    drivers: Vec<World2<T>>,
    transactions: BTreeMap<TransactionId, Transaction>,
    to_service: Vec<(usize, ToService)>,
    to_server: Vec<Command>,
    /// Every prepare there was, for a network that delivers them again when all is over.
    said: Vec<(usize, ToService)>,
    now_ms: u64,
    random: u64,
    /// No more trouble from now on.
    calm: bool,
}

impl<'a, T> World<'a, T>
where
    T: Subject,
    <T::Store as ServiceStore>::Db: BookDb,
{
    /// `open` opens the subject's store with the bookkeeper's tables.
    pub(crate) fn new(subject: &'a T, seed: u64) -> Self {
        let keeper = Bookkeeper::default();
        keeper.orders().any = seed;
        let mut world = Self {
            subject,
            reader: subject.open(),
            keeper,
            fates: Fates::default(),
            drivers: Vec::new(),
            transactions: BTreeMap::new(),
            to_service: Vec::new(),
            to_server: Vec::new(),
            said: Vec::new(),
            now_ms: 0,
            random: seed,
            calm: false,
        };
        world.drivers = (0..2).map(|_| world.start()).collect();
        world
    }

    /// Lets things happen, then calms down and brings everything to its end.
    pub(crate) fn run(&mut self, events: usize) {
        for _ in 0..events {
            self.happen();
            self.check();
        }
        self.calm = true;
        self.keeper.orders().failing_finishes = 0;
        self.fates.next(Fate::Works);
        self.calm_down();
        self.to_service.append(&mut self.said);
        self.calm_down();
    }

    fn calm_down(&mut self) {
        for _ in 0..400 {
            self.calm_round();
            self.check();
            if self.is_over() {
                self.check_the_end();
                return;
            }
        }
        panic!("something never ends: {:?}", self.transactions);
    }

    /// How many commits were forgotten, to see that runs reach what they are for.
    pub(crate) fn forgotten_commits(&mut self) -> usize {
        let ids: Vec<_> = self.in_chain(Chain::Committed).collect();
        let mut step = self.reader.open_step().expect("a step");
        ids.into_iter().filter(|id| step.load(*id).expect("loaded").is_none()).count()
    }

    fn happen(&mut self) {
        match self.below(20) {
            0..=1 => self.begin(),
            2..=4 => self.send_again(),
            5 => self.give_up(),
            6..=11 => self.deliver_to_service(),
            12..=14 => self.deliver_to_server(),
            15 => self.lose(),
            16 => {
                self.now_ms += self.below(20_000);
                let driver = self.below(2) as usize;
                self.tick(driver);
            }
            17 => {
                let driver = self.below(2) as usize;
                self.drivers[driver] = self.start();
            }
            18 => {
                let fate = [Fate::FailsBefore, Fate::FailsAfter][self.below(2) as usize];
                self.fates.next(fate);
            }
            _ => {
                let (failing, panicking) = (self.below(3), self.below(2) == 1);
                let mut orders = self.keeper.orders();
                orders.failing_finishes = u32::try_from(failing).expect("a small number");
                orders.panicking = panicking;
            }
        }
    }

    fn begin(&mut self) {
        if self.transactions.len() < 12 {
            // The times in ids say nothing: clocks are set back and forth.
            let id = begun(self.below(1 << 40), self.transactions.len() as u128);
            let work = WORKS[self.below(WORKS.len() as u64) as usize];
            let transaction = Transaction { work, chain: Chain::Collecting, yes: false };
            self.transactions.insert(id, transaction);
            self.send(id);
        }
    }

    /// C7, C11 and C14.
    fn send_again(&mut self) {
        if let Some(id) = self.any_transaction() {
            self.send(id);
        }
    }

    fn send(&mut self, id: TransactionId) {
        let transaction = self.transactions.get_mut(&id).expect("it was begun");
        let message = match transaction.chain {
            Chain::Collecting => match transaction.work {
                Some(work) => prepare(id, work),
                None => prepare_without_work(id),
            },
            Chain::Committing => commit(id),
            Chain::Failed(sent) => {
                transaction.chain = if sent < 5 { Chain::Failed(sent + 1) } else { Chain::Over };
                abort(id)
            }
            Chain::Committed | Chain::Over => return,
        };
        self.send_to_one(message);
    }

    /// The deadline, or an abort by the client.
    fn give_up(&mut self) {
        if let Some(id) = self.any_transaction() {
            let transaction = self.transactions.get_mut(&id).expect("it was begun");
            if transaction.chain == Chain::Collecting {
                transaction.chain = Chain::Failed(0);
            }
        }
    }

    fn deliver_to_service(&mut self) {
        let driver = self.below(2) as usize;
        let mut batch = Vec::new();
        for _ in 0..=self.below(4) {
            let there = self.to_service.iter().enumerate().filter(|(_, (to, _))| *to == driver);
            let there: Vec<_> = there.map(|(at, _)| at).collect();
            if !there.is_empty() {
                let at = there[self.below(there.len() as u64) as usize];
                batch.push(self.to_service[at].1.clone());
                if self.calm || self.below(3) > 0 {
                    self.to_service.swap_remove(at);
                }
            }
        }
        // A fault answers nothing. The stream would end; here its messages stay, which is worse.
        if let Ok(answers) = self.drivers[driver].process(at(self.now_ms), &batch) {
            self.to_server.extend(answers);
        }
    }

    fn deliver_to_server(&mut self) {
        if self.to_server.is_empty() {
            return;
        }
        let at = self.below(self.to_server.len() as u64) as usize;
        let command = self.to_server[at].clone();
        if self.calm || self.below(3) > 0 {
            self.to_server.swap_remove(at);
        }
        match command {
            Command::Vote { id, vote } => self.vote(id, &vote),
            Command::Finished { id, committed } => self.finished(id, committed),
            Command::NotKnown { id } => {
                let chain = self.transactions[&id].chain;
                assert_eq!(chain, Chain::Committed, "{id} was lost");
            }
            // For people, and only of what it was told.
            Command::NotFinished { id, .. } => {
                let chain = self.transactions[&id].chain;
                assert_ne!(chain, Chain::Collecting, "{id} was not decided");
            }
            Command::Inquire { id } => {
                let answer = match self.transactions[&id].chain {
                    Chain::Collecting => ToService::Pending { id, retry_after_ms: 1_000 },
                    Chain::Committing | Chain::Committed => commit(id),
                    Chain::Failed(_) | Chain::Over => abort(id),
                };
                self.send_to_one(answer);
            }
            Command::MayForget { outcomes } => {
                let over = |id: &TransactionId| {
                    matches!(self.transactions[id].chain, Chain::Committed | Chain::Over)
                };
                let ids = outcomes.into_iter().map(|(id, _)| id).filter(over).collect();
                self.send_to_one(ToService::Forget { ids });
            }
            other => panic!("a service does not say {other:?}"),
        }
    }

    fn vote(&mut self, id: TransactionId, vote: &Vote) {
        let commits = self.below(4) > 0;
        let transaction = self.transactions.get_mut(&id).expect("it was begun");
        let chain = transaction.chain;
        match (vote, chain) {
            (Vote::Yes, Chain::Collecting) => {
                transaction.yes = true;
                if commits {
                    transaction.chain = Chain::Committing;
                }
            }
            // A repeat of a vote that was overtaken: an earlier step was lost after it was read.
            (Vote::ReadOnly, Chain::Collecting) if !transaction.yes => {
                transaction.chain = Chain::Over;
            }
            (Vote::No { .. }, Chain::Collecting) => {
                assert!(!transaction.yes, "{id} took its YES back");
                transaction.chain = Chain::Failed(0);
            }
            (Vote::No { .. }, Chain::Committing) => panic!("{id} took its YES back"),
            // Answered with what stands (C13), or ignored.
            (Vote::Yes, _) => self.send(id),
            (Vote::ReadOnly | Vote::No { .. }, _) => {}
        }
    }

    fn finished(&mut self, id: TransactionId, committed: bool) {
        let transaction = self.transactions.get_mut(&id).expect("it was begun");
        transaction.chain = match (transaction.chain, committed) {
            (Chain::Committing | Chain::Committed, true) => Chain::Committed,
            (Chain::Failed(_) | Chain::Over, false) => Chain::Over,
            (chain, _) => panic!("{id} says committed: {committed}, but is {chain:?}"),
        };
    }

    fn lose(&mut self) {
        if self.below(2) == 0 && !self.to_service.is_empty() {
            let at = self.below(self.to_service.len() as u64) as usize;
            self.to_service.swap_remove(at);
        } else if !self.to_server.is_empty() {
            let at = self.below(self.to_server.len() as u64) as usize;
            self.to_server.swap_remove(at);
        }
    }

    /// One calm round: everything that is under way arrives, everything that is due happens.
    fn calm_round(&mut self) {
        self.now_ms += 5_000;
        for id in self.transactions.keys().copied().collect::<Vec<_>>() {
            // What has no vote yet fails at its deadline; what has one is decided.
            let transaction = self.transactions.get_mut(&id).expect("it was begun");
            if transaction.chain == Chain::Collecting {
                transaction.chain =
                    if transaction.yes { Chain::Committing } else { Chain::Failed(0) };
            }
            self.send(id);
        }
        while !(self.to_service.is_empty() && self.to_server.is_empty()) {
            self.deliver_to_service();
            self.deliver_to_server();
        }
        self.tick(0);
        self.tick(1);
    }

    fn tick(&mut self, driver: usize) {
        if let Ok(answers) = self.drivers[driver].tick(at(self.now_ms)) {
            self.to_server.extend(answers);
        }
    }

    fn start(&mut self) -> World2<T> {
        let store = Faulty { inner: self.subject.open(), fates: self.fates.clone() };
        let mut driver = self.keeper.driver(store);
        let now: Now = at(self.now_ms);
        if let Ok(answers) = driver.start(now) {
            self.to_server.extend(answers);
        }
        driver
    }

    /// What has to hold at any time.
    fn check(&mut self) {
        for report in &self.keeper.orders().reports {
            assert!(!matches!(report, Report::Attention { .. }), "{report}");
        }
        let mut step = self.reader.open_step().expect("a step");
        let books = step.attempt(|db| Ok::<_, ()>(db.books())).expect("a sound store");
        let books = books.expect("it does not fail");
        for (id, transaction) in &self.transactions {
            let (held, applied) = books.get(id).copied().unwrap_or_default();
            let decided = matches!(transaction.chain, Chain::Committing | Chain::Committed);
            let branch = step.load(*id).expect("loaded").map(|branch| branch.recorded);
            assert!(applied == 0 || decided, "{id} was applied without a decision");
            let expected = match branch {
                Some(Recorded::Prepared { .. }) => (1, 0),
                Some(Recorded::Committed) => (0, 1),
                Some(Recorded::Aborted { .. }) => (0, 0),
                // Never here, or forgotten: by then it has taken effect, if it was to.
                None => (0, i64::from(transaction.chain == Chain::Committed)),
            };
            assert_eq!((held, applied), expected, "{id}, {transaction:?}, {branch:?}");
        }
    }

    fn is_over(&mut self) -> bool {
        let mut step = self.reader.open_step().expect("a step");
        let ended = |t: &Transaction| matches!(t.chain, Chain::Committed | Chain::Over);
        self.transactions.values().all(ended)
            && step.prepared(None, 1).expect("listed").is_empty()
            && step.outcomes(u64::MAX, None, 1).expect("listed").is_empty()
    }

    fn check_the_end(&mut self) {
        let committed = self.in_chain(Chain::Committed).map(|id| (id, (0, 1))).collect();
        assert_eq!(crate::bookkeeper::books(&mut self.reader), committed);
    }

    fn in_chain(&self, chain: Chain) -> impl Iterator<Item = TransactionId> {
        self.transactions.iter().filter(move |(_, t)| t.chain == chain).map(|(id, _)| *id)
    }

    fn any_transaction(&mut self) -> Option<TransactionId> {
        let count = self.transactions.len() as u64;
        let at = if count == 0 { return None } else { self.below(count) };
        self.transactions.keys().nth(at as usize).copied()
    }

    fn send_to_one(&mut self, message: ToService) {
        let driver = self.below(2) as usize;
        if matches!(message, ToService::Prepare { .. }) {
            self.said.push((driver, message.clone()));
        }
        self.to_service.push((driver, message));
    }

    /// `SplitMix64`.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
