//! What a caller may choose about a journal.

/// Choices, each with a default that suits a server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// A segment is full at this many bytes. Default 64 MiB.
    pub segment_bytes: u64,
    /// Room is taken from the file system in steps of this many bytes. Default 16 MiB.
    pub preallocate_bytes: u64,
    /// The store may take this many bytes; none: all that the file system has.
    pub max_store_bytes: Option<u64>,
    /// Bytes of the newest records that are kept in memory for readers. More of them are colder:
    /// with 32 MiB everything costs a twentieth more. Default 4 MiB.
    pub recent_bytes: usize,
    /// Files of sealed segments that are open at a time, for readers. Default 64.
    pub open_files: usize,
    /// So many epochs are left out by the opening: a copy of a store that goes on leaves out those
    /// that the store itself may have had since. Default 0.
    pub skipped_epochs: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            preallocate_bytes: 16 << 20,
            max_store_bytes: None,
            recent_bytes: 4 << 20,
            open_files: 64,
            skipped_epochs: 0,
        }
    }
}

impl Options {
    /// Sets [`Options::segment_bytes`].
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Sets [`Options::preallocate_bytes`].
    #[must_use]
    pub fn with_preallocate_bytes(mut self, bytes: u64) -> Self {
        self.preallocate_bytes = bytes;
        self
    }

    /// Sets [`Options::max_store_bytes`].
    #[must_use]
    pub fn with_max_store_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_store_bytes = bytes;
        self
    }

    /// Sets [`Options::open_files`].
    #[must_use]
    pub fn with_open_files(mut self, files: usize) -> Self {
        self.open_files = files;
        self
    }

    /// Sets [`Options::recent_bytes`].
    #[must_use]
    pub fn with_recent_bytes(mut self, bytes: usize) -> Self {
        self.recent_bytes = bytes;
        self
    }

    /// Sets [`Options::skipped_epochs`].
    #[must_use]
    pub fn with_skipped_epochs(mut self, epochs: u32) -> Self {
        self.skipped_epochs = epochs;
        self
    }
}
