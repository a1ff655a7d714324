//! Every limit of the core in one place. Beyond a limit new work is refused with a stable code;
//! what was accepted before stays (I15).

/// Longest name, in bytes.
pub const NAME_BYTES: usize = 64;
/// Longest idempotency key, in bytes.
pub const KEY_BYTES: usize = 128;
/// Longest reason that a participant, client or operator may give, in bytes; more is cut off.
pub const REASON_BYTES: usize = 512;
/// Most transactions with a heuristic end that are kept in attention until a person takes note.
/// Beyond it the oldest are in the log alone.
pub const UNSEEN: usize = 10_000;
/// Largest event with its attributes, in bytes.
pub const EVENT_BYTES: usize = 1 << 20;
/// Most events (and acknowledgements) in one publish or one transaction.
pub const BATCH_ITEMS: usize = 1_000;
/// Most bytes of events in one publish or one transaction.
pub const BATCH_BYTES: usize = 8 << 20;
/// Largest work for one participant, in bytes.
pub const WORK_BYTES: usize = 1 << 20;
/// Most branches of one transaction.
pub const BRANCHES: usize = 64;
/// Longest deadline of a transaction, in milliseconds.
pub const DEADLINE_MS: u64 = 3_600_000;
/// Longest lease of a delivery, in milliseconds.
pub const LEASE_MS: u64 = 3_600_000;
/// Bytes of the log that new work leaves alone, so that what makes room (acknowledgements, shorter
/// retention, deleting) and what ends work still fits when the store is full.
pub const UPKEEP_BYTES: u64 = 4 << 20;
/// How many events past its oldest unacknowledged one a subscription looks ahead.
pub const WINDOW: u64 = 65_536;
/// How many openings of its store a log remembers: the newest ones.
pub const OPENINGS: usize = 1_024;
/// Most credit that one subscriber's stream may hold.
pub const CREDIT: u32 = 10_000;

/// Most batches of one producer whose numbers are remembered. As many as one stream may have
/// unanswered, so that all of them can be sent again.
pub const PRODUCER_BATCHES: usize = 4_096;
/// Most batches of all producers whose numbers are remembered, besides the last few of each.
pub const REMEMBERED_BATCHES: usize = 1 << 20;

/// Bytes of events and work that begins carry which wait for a place, at most, unless one waits
/// alone.
pub const WAITING_BYTES: usize = 8 << 20;
/// How long one of them waits, in milliseconds.
pub const WAITING_MS: u64 = 5;

/// Bounds that an operator may change. The defaults are those of the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Transactions without a decision or with branches to finish.
    pub open_transactions: usize,
    /// Begins that wait for a place when as many transactions are open as may be. Not in the
    /// server's configuration.
    pub waiting: usize,
    /// Bytes staged by all transactions together.
    pub staged_bytes: usize,
    /// Bytes of work that wait for the vote of a service, of all transactions together.
    pub work_bytes: usize,
    /// Deadline of a transaction that names none, in milliseconds.
    pub default_deadline_ms: u64,
    /// How long `commit` waits for the participants before it answers `Committing`, in
    /// milliseconds.
    pub finish_wait_ms: u64,
    /// First and longest pause before `prepare`, `commit` or `abort` is sent again, in milliseconds.
    pub retry_ms: (u64, u64),
    /// Time in Committing or Resolving after which a transaction asks for attention, in
    /// milliseconds.
    pub attention_ms: u64,
    /// Idempotency keys kept.
    pub keys: usize,
    /// Idempotency keys of ended transactions that are written to the log together.
    pub key_batch: usize,
    /// How long an idempotency key is kept after its transaction ended, in milliseconds.
    pub key_age_ms: u64,
    /// Topics.
    pub topics: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Dead letters of one subscription; beyond it a failing event keeps being delivered.
    pub dead_letters: usize,
    /// Producers remembered for deduplication.
    pub producers: usize,
    /// How long a producer's sequence is remembered, in milliseconds.
    pub dedup_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_transactions: 100_000,
            waiting: 1_024,
            staged_bytes: 256 << 20,
            work_bytes: 256 << 20,
            default_deadline_ms: 30_000,
            finish_wait_ms: 5_000,
            retry_ms: (100, 30_000),
            attention_ms: 60_000,
            keys: 1_000_000,
            key_batch: 4_096,
            key_age_ms: 24 * 3_600_000,
            topics: 10_000,
            subscriptions: 10_000,
            dead_letters: 10_000,
            producers: 100_000,
            dedup_ms: 120_000,
        }
    }
}
