//! `handfast tx list --ended`: transactions that have ended, and why they did not go well.

use std::time::SystemTime;

use handfast::{EndedTransactions, Ending, Error, TransactionView};

use super::super::Failure;
use super::super::cloudevent::unix_ms;
use super::super::output::{Column, duration, rfc3339, table, time, visible};
use super::super::remote::Server;
use super::super::timeline;
use super::Transaction;

/// Asked for at a time.
const PAGE: u32 = 1_000;

/// Those that ended at a time or later, the oldest end first. If there are more than `limit`, those
/// that failed come before those that went well.
pub(super) async fn list(
    server: &Server,
    limit: usize,
    ending: Option<Ending>,
    since: SystemTime,
) -> Result<(), Failure> {
    let looking = look(server, limit, ending, since);
    let looked = server.ask("looking for what has ended", looking).await?;
    let Looked { views, has_more, removed_ms } = looked;
    let transactions: Vec<Transaction> = views.iter().map(Transaction::from).collect();
    let document = serde_json::json!({
        "transactions": transactions,
        "has_more": has_more,
        "removed": removed_ms.and_then(rfc3339),
        "removed_unix_ms": removed_ms,
    });
    server.out.result(&document, || listed(&views, unix_ms(since)))?;
    if has_more {
        let first = if ending.is_none() { ", those that failed before others" } else { "" };
        server.out.note(format!("These are {limit} of them{first}; see more with --limit."));
    }
    if let Some(removed_ms) = removed_ms {
        server.out.note(format!(
            "What ended before {} may be missing: the log keeps an end for an hour at least, and \
             with an idempotency key as long as that.",
            time(removed_ms)
        ));
    }
    Ok(())
}

struct Looked {
    views: Vec<TransactionView>,
    has_more: bool,
    /// What ended up to then may be missing, and was asked for.
    removed_ms: Option<u64>,
}

async fn look(
    server: &Server,
    limit: usize,
    ending: Option<Ending>,
    since: SystemTime,
) -> Result<Looked, Error> {
    let kinds = match ending {
        Some(ending) => vec![ending],
        None => vec![Ending::Failed, Ending::Committed],
    };
    let mut looked = Looked { views: Vec::new(), has_more: false, removed_ms: None };
    for kind in kinds {
        let mut from = None;
        // One more than is shown, to be able to say that there are more.
        while looked.views.len() <= limit {
            let page = server.handfast.ended_transactions(since, Some(kind), from, PAGE).await?;
            let EndedTransactions { transactions, next, removed, .. } = page;
            looked.views.extend(transactions);
            let removed_ms = removed.map(unix_ms).filter(|at| *at >= unix_ms(since));
            looked.removed_ms = looked.removed_ms.max(removed_ms);
            from = next;
            if from.is_none() {
                break;
            }
        }
    }
    looked.has_more = looked.views.len() > limit;
    looked.views.truncate(limit);
    looked.views.sort_by_key(|view| (view.ended_wall_ms, view.id));
    Ok(looked)
}

fn listed(views: &[TransactionView], since_ms: u64) -> String {
    let columns = [
        Column::Left("TRANSACTION"),
        Column::Left("STATE"),
        Column::Left("ENDED"),
        Column::Right("TOOK"),
        Column::Left("WHY"),
    ];
    let rows = views.iter().map(|view| {
        let ended_ms = view.ended_wall_ms.unwrap_or(view.begun_wall_ms);
        vec![
            view.id.to_string(),
            timeline::state(view.state).to_owned(),
            time(ended_ms),
            duration(ended_ms.saturating_sub(view.begun_wall_ms)),
            why(view),
        ]
    });
    let none = format!("No transaction has ended since {}.", time(since_ms));
    table(&columns, rows.collect(), &none)
}

/// Why it failed, and why a branch did not end as decided.
fn why(view: &TransactionView) -> String {
    let reason = view.reason.as_ref().map(timeline::why_failed);
    let heuristic = view.heuristic.then(|| format!("heuristic: {}", timeline::why_heuristic(view)));
    reason.into_iter().chain(heuristic).map(|text| visible(&text)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::timeline::tests::{committed, failed};

    #[test]
    fn the_list_says_why() {
        let mut mixed = committed();
        mixed.heuristic = true;
        mixed.why = Some("ledger was rolled back\x07".to_owned());
        let released = TransactionView { why: None, ..mixed.clone() };
        let expected = "\
TRANSACTION                           STATE      ENDED                     TOOK  WHY
0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6  Committed  2026-11-22 18:00:01.135Z  1.1s
0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6  Failed     2026-11-22 18:00:00.031Z  31ms  voted_no by payments: no money
0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6  Committed  2026-11-22 18:00:01.135Z  1.1s  heuristic: ledger was rolled back\\u{7}
0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6  Committed  2026-11-22 18:00:01.135Z  1.1s  heuristic: a branch was released: nobody knows how it ended";
        assert_eq!(listed(&[committed(), failed(), mixed, released], 0), expected);
        let none = "No transaction has ended since 1970-01-01 00:00:01.000Z.";
        assert_eq!(listed(&[], 1_000), none);
    }
}
