//! The harness proven by bugs: each planted one is found by the general checkers, and by which.
#![expect(clippy::print_stderr, reason = "the figures of a run are for people")]

use handfast_sim::fault::Fault;
use handfast_sim::trace::Detail;
use handfast_sim::world::run;

/// Seeds within which a planted bug has to be found.
const SEEDS: u64 = 4_000;

/// Runs seeds until the bug is found, and says by what.
fn found(fault: Fault, by: &[&str]) -> Result<(), String> {
    // Some of the planted bugs end in an assertion of the core, which is as good.
    std::panic::set_hook(Box::new(|_| {}));
    for seed in 0..SEEDS {
        let Err(failure) = run(seed, Some(fault), Detail::Off) else { continue };
        let name = failure.violation.invariant;
        eprintln!("{fault:?} found by seed {seed}: {}", failure.violation);
        if by.contains(&name) {
            return Ok(());
        }
        return Err(format!("{fault:?} was found as {}, not as {by:?}", failure.violation));
    }
    Err(format!("{fault:?} was not found in {SEEDS} seeds"))
}

macro_rules! planted {
    ($($test:ident: $fault:ident by $by:expr;)*) => {
        $(#[test]
        fn $test() -> Result<(), String> {
            found(Fault::$fault, &$by)
        })*

        #[test]
        fn every_fault_has_its_test() {
            assert_eq!(Fault::ALL, [$(Fault::$fault),*]);
        }
    };
}

planted! {
    sync_not_waited_for: SyncNotWaitedFor by ["I6"];
    commit_lost_in_crash: CommitLostInCrash by ["I5", "I1"];
    acknowledgement_lost_in_crash: AcknowledgementLostInCrash by ["I5"];
    abort_sent_after_commit: AbortSentAfterCommit by ["I1"];
    commit_sent_to_stranger: CommitSentToStranger by ["I1", "I13"];
    forget_before_end: ForgetBeforeEnd by ["I6"];
    forget_too_soon: ForgetTooSoon by ["I3"];
    decision_not_repeated: DecisionNotRepeated by ["I13"];
    yes_taken_for_no: YesTakenForNo by ["I3"];
    ticks_lost: TicksLost by ["I13", "I7"];
    failed_event_delivered: FailedEventDelivered by ["I8"];
    delivery_skipped: DeliverySkipped by ["I7"];
    two_of_a_key: TwoOfAKey by ["I11"];
    bytes_changed: BytesChanged by ["I8"];
    dedup_forgotten: DedupForgotten by ["I9", "I5"];
    numbers_for_anything: NumbersForAnything by ["I5"];
    keys_forgotten: KeysForgotten by ["I10", "I16"];
    keys_mixed_up: KeysMixedUp by ["I10", "I6"];
    stale_status: StaleStatus by ["I4"];
    finished_too_early: FinishedTooEarly by ["I6"];
    counts_ignored: CountsIgnored by ["I2"];
    vote_before_record: VoteBeforeRecord by ["I2"];
    commit_applied_twice: CommitAppliedTwice by ["I9"];
    prepared_gives_up: PreparedGivesUp by ["I1"];
    marker_not_checked: MarkerNotChecked by ["I2"];
    vote_not_verified: VoteNotVerified by ["I2"];
    tombstone_not_written: TombstoneNotWritten by ["I1"];
    commit_aborted_by_restart: CommitAbortedByRestart by ["I1"];
    refused_and_begun: RefusedAndBegun by ["I15"];
    reply_sent_twice: ReplySentTwice by ["I13"];
    delivered_after_acknowledgement: DeliveredAfterAcknowledgement by ["I9"];
    record_skipped_in_recovery: RecordSkippedInRecovery by ["I16", "assertion"];
    attempts_counted_at_stream_end: AttemptsCountedAtStreamEnd by ["I7"];
    attempts_counted_unread: AttemptsCountedUnread by ["I7"];
    clock_trusted: ClockTrusted by ["I21"];
    absence_believed: AbsenceBelieved by ["I10"];
    horizon_by_clock: HorizonByClock by ["I3"];
    place_only_in_prepare: PlaceOnlyInPrepare by ["I1"];
    owner_by_epoch_and_lsn: OwnerByEpochAndLsn by ["I1", "I2"];
    decided_before_claimed: DecidedBeforeClaimed by ["I2"];
}
