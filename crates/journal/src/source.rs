//! A segment's file, as whoever reads it has to know it.

use std::sync::Arc;

use crate::files::File;
use crate::layout::header::SegmentHeader;
use crate::layout::{names, seed};

/// A segment's file with what is needed to verify what is read from it.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) file: Arc<dyn File>,
    pub(crate) segment: u64,
    pub(crate) seed: u32,
    /// LSNs may be missing in it.
    pub(crate) compacted: bool,
}

impl Source {
    pub(crate) fn new(file: Arc<dyn File>, header: &SegmentHeader) -> Self {
        Self {
            file,
            segment: header.segment,
            seed: seed(header.store, header.segment),
            compacted: header.generation > 0,
        }
    }

    pub(crate) fn name(&self) -> String {
        names::log(self.segment)
    }
}
