//! What the server says about itself at `/metrics`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::Problem;

/// Counters of a server since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) committed: u64,
    pub(super) failed: u64,
    /// Requests of any kind that may come again later.
    pub(super) refused: u64,
    pub(super) groups: u64,
    pub(super) records: u64,
    pub(super) write_seconds: f64,
}

impl Counters {
    /// Asks a server.
    ///
    /// # Errors
    /// It does not answer, or says nothing of the kind.
    pub(super) async fn of(url: &str) -> Result<Self, Problem> {
        let text = get(url, "/metrics").await?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value = line.and_then(|value| value.trim().parse::<f64>().ok());
            value.ok_or_else(|| Problem::Part(format!("{url}/metrics has no {name}")))
        };
        Ok(Self {
            committed: value("handfast_transactions_committed_total")? as u64,
            failed: value("handfast_transactions_failed_total")? as u64,
            refused: value("handfast_requests_refused_total")? as u64,
            groups: value("handfast_journal_groups_total")? as u64,
            records: value("handfast_journal_records_total")? as u64,
            write_seconds: value("handfast_journal_write_seconds_total")?,
        })
    }

    /// What was counted since an earlier look.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            committed: self.committed - earlier.committed,
            failed: self.failed - earlier.failed,
            refused: self.refused - earlier.refused,
            groups: self.groups - earlier.groups,
            records: self.records - earlier.records,
            write_seconds: self.write_seconds - earlier.write_seconds,
        }
    }
}

/// One document over HTTP/1.1, on a connection of its own.
async fn get(url: &str, path: &str) -> Result<String, Problem> {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if !answer.starts_with("HTTP/1.1 200") {
        let status = answer.lines().next().unwrap_or("nothing");
        return Err(Problem::Part(format!("{url}{path} answers {status}")));
    }
    Ok(answer)
}
