//! Commands that ask a server: how it is reached, what is shown while it takes its time, and what
//! its errors mean for people and programs. No command connects by itself.

use std::io::{self, IsTerminal};
use std::time::Duration;

use handfast::{Code, Error, Fault, Handfast, Refusal};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime;

use super::output::{self, Output};
use super::reach::Reach;
use super::{Exit, Failure, explain};

/// What takes longer than this says so.
pub(super) const PROGRESS_AFTER: Duration = Duration::from_secs(1);

/// Asked where no server is named.
const DEFAULT: &str = "http://127.0.0.1:7400";

/// What every command takes that asks a server.
#[derive(Debug, clap::Args)]
// It is flattened into structs that are called the same.
#[group(skip)]
pub(crate) struct Args {
    /// The server to ask
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "HANDFAST_SERVER",
        hide_env_values = true,
        default_value = DEFAULT,
        help_heading = "Server and output"
    )]
    server: String,
    /// JSON for programs: results on stdout, errors on stderr
    #[arg(long, global = true, help_heading = "Server and output")]
    json: bool,
    /// No notes and no progress, only results and errors
    #[arg(long, short, global = true, help_heading = "Server and output")]
    quiet: bool,
}

impl Args {
    /// A failure before anybody was asked, in the form that was asked for.
    pub(crate) fn said(&self, failure: Failure) -> Failure {
        failure.with_json(self.json)
    }
}

/// A server that is connected, and whom to tell what it says.
#[derive(Debug)]
pub(crate) struct Server {
    /// The connection.
    pub(crate) handfast: Handfast,
    /// Where results go.
    pub(crate) out: Output,
    /// What proposed commands need to ask it too.
    pub(crate) reach: Reach,
}

/// Connects, does the work, and says errors in the form that was asked for.
pub(crate) fn run(
    args: &Args,
    work: impl AsyncFnOnce(&Server) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let out = Output { is_json: args.json, is_quiet: args.quiet };
    let reach = Reach::of_flag(&args.server, DEFAULT);
    let worked = || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot start: {error}")))?;
        runtime.block_on(async {
            let connecting = Handfast::builder(url(&args.server)?).connect();
            let handfast = waited("connecting", out, connecting).await.map_err(failure)?;
            work(&Server { handfast, out, reach: reach.clone() }).await
        })
    };
    worked().map_err(|failure| failure.with_reach(&reach).with_json(args.json))
}

/// `host:port` is taken as what it means.
fn url(server: &str) -> Result<String, Failure> {
    if server.starts_with("https://") {
        let message = format!("{server}: this version speaks no TLS");
        return Err(Failure::new(Exit::Usage, message).with_hint(
            "give an http:// address, on this machine, in a private network or of a proxy that \
             adds TLS",
        ));
    }
    let has_scheme = server.contains("://");
    Ok(if has_scheme { server.to_owned() } else { format!("http://{server}") })
}

impl Server {
    /// Asks, and says what is going on when that takes longer than a second.
    pub(crate) async fn ask<T>(
        &self,
        doing: &str,
        asking: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        waited(doing, self.out, asking).await.map_err(failure)
    }
}

async fn waited<T>(doing: &str, out: Output, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(PROGRESS_AFTER) => {}
    }
    let progress = Progress::start(doing, out);
    let done = work.await;
    drop(progress);
    done
}

/// A line on a terminal that moves; nothing where there is none.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Starts to show what is going on.
    pub(crate) fn start(doing: &str, out: Output) -> Self {
        if out.is_quiet || !io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style).with_message(doing.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    /// Says something else from now on.
    pub(crate) fn say(&self, doing: String) {
        if let Some(bar) = &self.0 {
            bar.set_message(doing);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Asks a person before something is gone for good.
pub(crate) fn confirm(is_confirmed: bool, what: &str) -> Result<(), Failure> {
    if is_confirmed {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::new(
            Exit::Usage,
            "this has to be confirmed, and there is no terminal",
        )
        .with_code("not_confirmed")
        .with_hint("add --yes"));
    }
    output::question(format!("{what} [y/N] "));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    let agreed = matches!(answer.trim(), "y" | "Y" | "yes" | "Yes");
    match read {
        Ok(_) if agreed => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "not confirmed: nothing was changed")
            .with_code("not_confirmed")),
    }
}

/// What an error means.
pub(crate) fn failure(error: Error) -> Failure {
    match error {
        Error::Refused(refusal) => refused(&refusal),
        Error::Fault(fault) => faulty(&fault),
    }
}

fn refused(refusal: &Refusal) -> Failure {
    let detail = output::visible(&refusal.detail);
    let failure = Failure::new(Exit::Failed, format!("{detail} ({})", refusal.code))
        .with_code(&refusal.code)
        .with_retryable(refusal.retryable);
    match refusal.known() {
        Some(Code::UnknownTopic) => failure.with_hint("`handfast topic list` shows all topics"),
        Some(Code::UnknownSubscription) => {
            failure.with_hint("`handfast subscription list` shows all subscriptions")
        }
        Some(Code::UnknownDeadLetter) => {
            failure.with_hint("`handfast dead list` shows a subscription's dead letters")
        }
        Some(Code::UnknownTransaction) => failure.with_hint(
            "that nothing is known does not say that it failed; see `handfast explain \
             unknown_transaction`",
        ),
        Some(Code::TopicExists) => {
            failure.with_hint("choose another name, or change it with `handfast topic alter`")
        }
        Some(_) if explain::page(&refusal.code).is_some() => {
            let hint = format!("`handfast explain {}` says what to do", refusal.code);
            failure.with_hint(hint)
        }
        Some(_) | None => failure,
    }
}

fn faulty(fault: &Fault) -> Failure {
    let message = match fault {
        Fault::Unreachable { url, .. } => format!("nothing answers at {url}"),
        fault => output::visible(&fault.to_string()),
    };
    let exit = match fault {
        Fault::Unreachable { .. } => Exit::Unreachable,
        Fault::InvalidUrl { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    let (code, hint) = match fault {
        Fault::Unreachable { .. } => {
            ("unreachable", "start a server with `handfast serve`, or name another with --server")
        }
        Fault::InvalidUrl { .. } => ("invalid_url", "name the server with --server"),
        Fault::Lost { .. } => {
            ("connection_lost", "look at what stands before you do it again: it may have happened")
        }
        Fault::TimedOut { sent: true, .. } => {
            ("timed_out", "look at what stands before you do it again: it may have happened")
        }
        Fault::TimedOut { .. } => ("timed_out", "try again"),
        Fault::Incompatible { .. } => {
            ("incompatible", "is that a handfast server? If it is, use its version of `handfast`")
        }
        Fault::OtherStore { .. } => ("other_store", "find out which server you mean"),
        Fault::Malformed(_) => ("malformed_answer", "use the server's version of `handfast`"),
        _ => ("server_failed", "look into the server's log"),
    };
    Failure::new(exit, message)
        .with_code(code)
        .with_retryable(fault.is_retryable() && fault.has_no_side_effects())
        .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_scheme() {
        assert_eq!(url("10.0.0.7:7400").ok().as_deref(), Some("http://10.0.0.7:7400"));
        assert_eq!(url("http://db:7400").ok().as_deref(), Some("http://db:7400"));
        assert!(url("https://db:7400").is_err());
    }

    #[test]
    fn an_unreachable_server_has_a_remedy() {
        let fault = Fault::Unreachable { url: "http://127.0.0.1:7400".into(), problem: "x".into() };
        let failure = failure(fault.into());
        assert_eq!(failure.exit, Exit::Unreachable);
        assert_eq!(
            failure.to_string(),
            "handfast: nothing answers at http://127.0.0.1:7400: start a server with `handfast \
             serve`, or name another with --server"
        );
    }

    #[test]
    fn what_may_have_happened_is_not_retryable() {
        let lost = faulty(&Fault::Lost { problem: "reset".into() });
        assert!(!lost.retryable);
        let unsent = faulty(&Fault::TimedOut { after: Duration::from_secs(1), sent: false });
        assert!(unsent.retryable);
    }
}
