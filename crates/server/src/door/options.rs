//! What may be open at the door, and how long somebody may be silent there.

use std::time::Duration;

/// Bounds of connections and of what is under way on them, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Connections at a time. Fewer if the process may not have that many files open.
    pub connections: usize,
    /// Streams and calls of all connections, besides the first four of each.
    pub streams: usize,
    /// A connection that asks for nothing for so long after it was opened is closed, in
    /// milliseconds.
    pub first_request_ms: u64,
    /// A connection without a stream or call for so long is closed, in milliseconds.
    pub idle_ms: u64,
    /// A message that has begun to arrive may take so long, in milliseconds, and a second more for
    /// each half MiB of it; one that waits for room, as long.
    pub message_ms: u64,
    /// Bytes of messages of more than 16 KiB that are arriving or have arrived and wait to be
    /// handled, of all connections; one of them may have a quarter, and one message.
    pub arriving_bytes: usize,
    /// Bytes of frames that were made for clients and that they have not read, of all connections;
    /// one of them may have a quarter.
    pub leaving_bytes: usize,
    /// Who keeps others waiting for room because it reads nothing for so long is cut off, in
    /// milliseconds.
    pub stalled_ms: u64,
    /// Sockets, besides those of `connections`, whose connections were told to close and have not.
    pub(super) closing: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 256,
            streams: 500,
            first_request_ms: 10_000,
            idle_ms: 300_000,
            message_ms: 10_000,
            arriving_bytes: 32 << 20,
            leaving_bytes: 24 << 20,
            stalled_ms: 10_000,
            closing: CLOSING,
        }
    }
}

/// See [`Options::closing`]; fewer where few files may be open.
const CLOSING: usize = 16;

/// Bytes in a second, at least, of a message that is arriving.
pub(super) const ARRIVING_RATE: usize = 512 << 10;

/// Files that are open besides connections: the journal's, the listener's, the terminal's. A process
/// that may have few has a half for them, one that may have many so many.
const OTHER_FILES: u64 = 256;

impl Options {
    /// Lets no more connections in than leave room for the journal and the connections to databases,
    /// when so many files may be open (none: any number): without a file to write to the server ends.
    pub fn fit(&mut self, files: Option<u64>, databases: u64) {
        let Some(files) = files else { return };
        let others = (files / 2).min(OTHER_FILES) + databases;
        let sockets = usize::try_from(files.saturating_sub(others)).unwrap_or(usize::MAX);
        self.closing = CLOSING.min(sockets / 4).max(1);
        let most = sockets.saturating_sub(self.closing).max(1);
        if most < self.connections {
            let wanted = self.connections;
            tracing::warn!(
                "{most} connections are let in instead of {wanted}: the process may have {files} files open"
            );
            self.connections = most;
        }
    }

    /// How long a message of so many bytes may take to arrive.
    pub(super) fn arriving(&self, bytes: usize) -> Duration {
        let seconds = Duration::from_secs((bytes / ARRIVING_RATE) as u64);
        Duration::from_millis(self.message_ms).saturating_add(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_what_the_server_cannot_be_without() {
        let fit = |files, databases| {
            let mut options = Options::default();
            options.fit(files, databases);
            options.connections
        };
        assert_eq!(fit(None, 5), 256);
        assert_eq!(fit(Some(1 << 20), 100), 256);
        assert_eq!(fit(Some(1_024), 0), 256);
        assert_eq!(fit(Some(544), 0), 256);
        assert_eq!(fit(Some(512), 0), 240);
        assert_eq!(fit(Some(512), 20), 220);
        assert_eq!(fit(Some(64), 0), 24);
        assert_eq!(fit(Some(64), 40), 1, "a person can still look");
    }
}
