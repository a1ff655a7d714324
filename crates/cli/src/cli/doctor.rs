//! `handfast doctor`: whether a database may be trusted, and with what. Needs no server, and
//! changes nothing unless it is told to.

use std::time::Duration;

use clap::builder::styling::AnsiColor;
use handfast_database::doctor::{Finding, Grade, Report};
use handfast_database::{Fault, Options, connect};
use handfast_server::config;
use serde::Serialize;
use tokio::runtime;

use super::database::paragraph;
use super::output::{Output, bold, painted, visible};
use super::{Exit, Failure};

const HELP: &str = "The server makes the same checks and refuses what fails them.
--fix creates what is missing (the tables handfast_branch and handfast_owner), lets the role of the
application (--role) insert markers and nothing else, and checks again. It takes a role that may
create tables. Everything else is for the database's administrator.

Exit status: 0 if distributed and local transactions are allowed, also with warnings; 1 if
distributed ones, or both, are refused, or the database does not answer; 2 if the URL is none.

Examples:
  handfast doctor --database postgres://handfast@localhost/bank
  handfast doctor --database mariadb://handfast@localhost/stock --fix --role app
  HANDFAST_DATABASE=postgres://handfast:secret@db/bank handfast doctor --json";

/// How long a database may take for its first answer.
const PATIENCE: Duration = Duration::from_secs(5);
const DOWN: &str = "see that the database runs, that host and port are right, and that no \
                    firewall is in between";

/// Check a database before it is trusted
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The database; what is on a command line, others on the machine can read
    #[arg(long, value_name = "URL", env = "HANDFAST_DATABASE", hide_env_values = true)]
    database: String,
    /// Create what is missing, then check again
    #[arg(long)]
    fix: bool,
    /// The application's role, which gets the right to insert markers
    #[arg(long, value_name = "NAME", requires = "fix")]
    role: Option<String>,
    /// JSON for programs: the report on stdout, errors on stderr
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let out = Output { is_json: args.json, is_quiet: false };
    let worked = || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot start: {error}")))?;
        runtime.block_on(examine(args, out))
    };
    worked().map_err(|failure| failure.with_json(args.json))
}

async fn examine(args: &Args, out: Output) -> Result<(), Failure> {
    let database = connect(&args.database, Options::default().with_pool(1)).map_err(|error| {
        Failure::new(Exit::Usage, error)
            .with_code("invalid_url")
            .with_hint("such as postgres://user:password@host:5432/name")
    })?;
    let shown = config::shown_url(&args.database);
    let identity = answers(&args.database, &shown).await?;
    let mut report = database.check().await;
    let mut done = Vec::new();
    // Through a pooler nobody knows whose session would be changed.
    let stands_between = report.finding("pooler").is_some_and(|f| f.grade == Grade::Fail);
    if args.fix && !stands_between {
        let role = args.role.as_deref();
        done = database.install(role).await.map_err(|fault| not_fixed(&shown, &fault))?;
        report = database.check().await;
    }
    let document = Document::new(&shown, &report, identity.as_deref(), &done);
    out.result(&document, || {
        let identity = identity.as_deref().map(which);
        let told =
            [told(&shown, &report, &done, args.fix && !stands_between)].into_iter().chain(identity);
        told.collect::<Vec<_>>().join("\n")
    })?;
    verdict(&shown, &report)
}

/// A database that cannot be asked anything is one sentence and not a report. Of one that can,
/// what it is (MY9).
async fn answers(given: &str, url: &str) -> Result<Option<String>, Failure> {
    // The pool of a server that is down is tried again until the bound.
    let options = Options::default().with_pool(1).with_call_timeout(PATIENCE);
    let Ok(database) = connect(given, options) else { return Ok(None) };
    let fault = match database.identity().await {
        Ok(identity) => return Ok(Some(identity.database)),
        Err(fault) => fault,
    };
    let failure = |code: &str, message: String, hint: &str| {
        Err(Failure::new(Exit::Failed, message)
            .with_code(code)
            .with_retryable(fault.is_retryable())
            .with_hint(hint))
    };
    match &fault {
        Fault::TimedOut(bound) => {
            failure("database_down", format!("nothing answers at {url} within {bound:?}"), DOWN)
        }
        Fault::Unreachable(problem) => {
            let message = format!("nothing answers at {url}: {}", visible(problem));
            failure("database_down", message, DOWN)
        }
        Fault::Refused { code, message, .. } => match code.as_str() {
            // Of PostgreSQL and of MariaDB.
            "28P01" | "28000" | "1045" | "1698" => failure(
                "access_denied",
                format!("{url} refuses the user or the password: {}", visible(message)),
                "put the right ones into the URL",
            ),
            "3D000" | "1049" | "1044" => failure(
                "no_such_database",
                format!("{url} has no such database for this user: {}", visible(message)),
                "create it, or put the right name at the URL's end",
            ),
            // The checks say more about what they may not see.
            _ => Ok(None),
        },
        // A standby, for example: the checks have a finding for it.
        _ => Ok(None),
    }
}

fn which(identity: &str) -> String {
    let text = format!(
        "It is {identity}. Another URL for which the doctor says the same leads to this very \
         database: register it once, under one name."
    );
    paragraph("", &text).join("\n")
}

fn not_fixed(url: &str, fault: &Fault) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("{url}: not fixed: {}", fault_text(fault)));
    match fault {
        Fault::InvalidRole => Failure::new(Exit::Usage, fault).with_code("invalid_role"),
        Fault::Refused { .. } => failure
            .with_code("not_fixed")
            .with_hint("use the URL of a role that may create tables and grant rights on them"),
        _ => failure.with_code("not_fixed").with_retryable(fault.is_retryable()),
    }
}

fn fault_text(fault: &Fault) -> String {
    visible(&fault.to_string())
}

/// Whether the database may be trusted with everything.
fn verdict(url: &str, report: &Report) -> Result<(), Failure> {
    if report.allows_distributed() {
        return Ok(());
    }
    let refused = if report.allows_local() {
        "distributed transactions are refused, local ones work"
    } else {
        "nothing is allowed there"
    };
    let fixable = report.findings.iter().any(|f| f.fixable && f.grade > Grade::Warn);
    let hint = if fixable { "--fix does what it can" } else { "see the findings above" };
    Err(Failure::new(Exit::Failed, format!("{url}: {refused}"))
        .with_code("database_refused")
        .with_hint(hint))
}

#[derive(Serialize)]
struct Document<'a> {
    url: &'a str,
    kind: String,
    /// Null: it did not say.
    version: Option<&'a str>,
    /// The database itself, whatever the URL; null: it did not say.
    identity: Option<&'a str>,
    grade: String,
    distributed: bool,
    local: bool,
    findings: Vec<Found<'a>>,
    /// What `--fix` has done.
    done: &'a [String],
}

#[derive(Serialize)]
struct Found<'a> {
    check: &'static str,
    grade: String,
    what: &'a str,
    remedy: Option<&'a str>,
    /// `--fix` does it.
    fixable: bool,
}

impl<'a> Document<'a> {
    fn new(
        url: &'a str,
        report: &'a Report,
        identity: Option<&'a str>,
        done: &'a [String],
    ) -> Self {
        let known = |text: &'a String| (!text.is_empty()).then_some(text.as_str());
        let found = |finding: &'a Finding| Found {
            check: finding.check,
            grade: finding.grade.to_string(),
            what: &finding.what,
            remedy: known(&finding.remedy),
            fixable: finding.fixable,
        };
        Self {
            url,
            kind: report.kind.to_string(),
            version: known(&report.version),
            identity,
            grade: report.grade.to_string(),
            distributed: report.allows_distributed(),
            local: report.allows_local(),
            findings: report.findings.iter().map(found).collect(),
            done,
        }
    }
}

fn told(url: &str, report: &Report, done: &[String], is_fixed: bool) -> String {
    let mut lines = vec![bold(&format!("{} {} at {url}", report.kind, visible(&report.version)))];
    lines.extend(done.iter().flat_map(|what| paragraph("  fixed: ", what)));
    if is_fixed && done.is_empty() {
        lines.push("  fixed: nothing, all of it was there".to_owned());
    }
    for finding in &report.findings {
        let color = match finding.grade {
            Grade::Good => AnsiColor::Green,
            Grade::Warn => AnsiColor::Yellow,
            Grade::FailDistributed | Grade::Fail => AnsiColor::Red,
        };
        let grade = painted(color, &finding.grade.to_string());
        lines.push(format!("  {}: {grade}", finding.check));
        lines.extend(paragraph("    ", &finding.what));
        if !finding.remedy.is_empty() {
            lines.extend(paragraph("    ", &finding.remedy));
        }
        if finding.fixable {
            lines.push("    --fix does it.".to_owned());
        }
    }
    lines.push(match report.grade {
        Grade::Good => "Distributed and local transactions are allowed.".to_owned(),
        Grade::Warn => "Distributed and local transactions are allowed, with warnings.".to_owned(),
        Grade::FailDistributed => "Only local transactions are allowed.".to_owned(),
        Grade::Fail => "No transactions are allowed.".to_owned(),
    });
    lines.join("\n")
}
