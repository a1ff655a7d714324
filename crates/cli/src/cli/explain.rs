//! `handfast explain CODE`: the page of an error code, without a server and without a network. The
//! pages are those of `docs/errors`, as they were when this program was built.

use handfast::Code;
use handfast_wire::edge::Edge;
use serde_json::json;

use super::output::{Column, Output, bold, table};
use super::{Exit, Failure};

macro_rules! pages {
    ($($code:literal)*) => {
        /// Code and page.
        const PAGES: &[(&str, &str)] = &[$((
            $code,
            include_str!(concat!("../../../../docs/errors/", $code, ".md")),
        ),)*];
    };
}

pages! {
    "aborted" "already_enlisted" "arriving_bytes_full" "cancelled" "client_gone" "closed"
    "contradicting_outcome" "contradicting_vote" "coordinator_restarted" "damaged"
    "database_refused" "deadline_exceeded" "deadline_passed" "deleting" "delivery_expired"
    "delivery_staged" "draining" "failed" "incomplete" "internal" "invalid_argument"
    "invalid_deadline" "key_conflict" "limit_reached" "local_transaction" "malformed"
    "marker_not_written" "no_space" "not_a_participant" "not_attached" "not_committed_locally"
    "not_found" "not_subscribed" "not_supported" "offset_out_of_range" "operator" "pending"
    "sequence_conflict" "staged_bytes_full" "stopped" "subscription_exists" "too_large" "too_many"
    "too_many_calls" "too_many_producers" "too_many_streams" "too_many_transactions" "too_slow"
    "topic_exists" "topic_full" "unfinished" "unknown_database" "unknown_dead_letter"
    "unknown_method" "unknown_subscription" "unknown_topic" "unknown_transaction"
    "unsupported_media_type" "voted_no" "wrong_database" "wrong_state"
}

const HELP: &str =
    "Codes are of three kinds: a refusal says why a call was not accepted, a reason why \
a transaction
failed, a fault why nobody can say what came of a call. Without a code all of them are listed.

Examples:
  handfast explain unknown_topic
  handfast explain deadline_passed";

/// Explain an error code, offline
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The code, such as unknown_topic
    #[arg(value_name = "CODE")]
    code: Option<String>,
    /// JSON for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let out = Output { is_json: args.json, is_quiet: false };
    let explained = match &args.code {
        Some(code) => explain(out, &code.trim().to_ascii_lowercase().replace('-', "_")),
        None => list(out),
    };
    explained.map_err(|failure| failure.with_json(args.json))
}

/// The page of a code.
pub(super) fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(known, _)| *known == code).map(|(_, page)| *page)
}

fn explain(out: Output, code: &str) -> Result<(), Failure> {
    let page = page(code).ok_or_else(|| unknown(code))?;
    let document = json!({
        "code": code, "kind": kind(code), "retryable": is_retryable(code), "page": page
    });
    out.result(&document, || shown(page))
}

fn unknown(code: &str) -> Failure {
    let similar = |known: &&str| known.split('_').any(|word| word.len() > 3 && code.contains(word));
    let similar: Vec<&str> = PAGES.iter().map(|(known, _)| *known).filter(similar).collect();
    let hint = match similar.as_slice() {
        [] => "`handfast explain` lists all codes".to_owned(),
        similar => format!("perhaps {}", similar.join(", ")),
    };
    let code = super::output::visible(code);
    Failure::new(Exit::Failed, format!("no error has the code {code}"))
        .with_code("unknown_code")
        .with_hint(hint)
}

fn list(out: Output) -> Result<(), Failure> {
    let codes: Vec<_> = PAGES
        .iter()
        .map(|(code, page)| {
            json!({
                "code": code, "kind": kind(code), "retryable": is_retryable(code),
                "summary": summary(page)
            })
        })
        .collect();
    out.result(&json!({ "codes": codes }), || {
        let rows = PAGES
            .iter()
            .map(|(code, page)| vec![(*code).to_owned(), kind(code).to_owned(), summary(page)]);
        let columns = [Column::Left("CODE"), Column::Left("KIND"), Column::Left("MEANS")];
        table(&columns, rows.collect(), "")
    })
}

/// A page's first sentence.
fn summary(page: &str) -> String {
    let text = page.split("\n\n").nth(1).unwrap_or_default().replace('\n', " ");
    match text.split_once(". ") {
        Some((first, _)) => first.to_owned(),
        None => text.trim_end().trim_end_matches('.').to_owned(),
    }
}

fn kind(code: &str) -> &'static str {
    let edge = Edge::ALL.iter().find(|known| known.as_str() == code);
    match edge {
        Some(edge) if !edge.is_refusal() => "fault",
        Some(_) => "refusal",
        None if Code::ALL.iter().any(|known| known.as_str() == code) => "refusal",
        None => "reason",
    }
}

/// Whether the same call may succeed later; of a reason only its transaction says, and after a fault
/// it has to be asked first what came of the call.
fn is_retryable(code: &str) -> Option<bool> {
    if Edge::ALL.iter().any(|edge| edge.is_refusal() && edge.as_str() == code) {
        return Some(false);
    }
    Code::ALL.iter().find(|known| known.as_str() == code).map(|known| known.is_retryable())
}

/// A page for a terminal: headings stand out instead of having marks.
fn shown(page: &str) -> String {
    let lines = page.lines().map(|line| match line.split_once("# ") {
        Some((marks, heading)) if marks.bytes().all(|b| b == b'#') => bold(heading),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use handfast::ReasonCode;

    use super::*;

    /// Every code there is.
    fn codes() -> impl Iterator<Item = &'static str> {
        let refusals = Code::ALL.iter().map(|code| code.as_str());
        let edges = Edge::ALL.iter().map(|edge| edge.as_str());
        refusals.chain(ReasonCode::ALL.iter().map(|code| code.as_str())).chain(edges)
    }

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let codes: BTreeSet<String> = codes().map(ToOwned::to_owned).collect();
        let included: BTreeSet<String> = PAGES.iter().map(|(code, _)| (*code).to_owned()).collect();
        assert_eq!(codes, included);
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let files: BTreeSet<String> = std::fs::read_dir(directory)
            .expect("the pages")
            .map(|entry| entry.expect("a page").file_name().into_string().expect("UTF-8"))
            .filter_map(|name| name.strip_suffix(".md").map(ToOwned::to_owned))
            .collect();
        assert_eq!(files, codes);
    }

    #[test]
    fn pages_are_short_and_of_one_form() {
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# {code}\n\n")), "{code}");
            for part in ["**Effect.**", "**What to do.**"] {
                assert!(page.contains(part), "{code} has no {part}");
            }
            assert!(page.lines().count() <= 20, "{code} is long");
            assert!(page.lines().all(|line| line.chars().count() <= 80), "{code} is wide");
            assert!((10..=90).contains(&summary(page).len()), "{code}: {}", summary(page));
        }
    }

    #[test]
    fn pages_are_sorted() {
        assert!(PAGES.is_sorted_by(|a, b| a.0 < b.0));
    }
}
