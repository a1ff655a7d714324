//! Files made of pages that carry their own checksum, so that a binary search may trust what it
//! reads without reading the rest.

use crate::files::File;
use crate::index::Damaged;
use crate::layout::u32_at;

/// Length of a page.
pub(super) const PAGE: usize = 4096;
/// What a page holds besides its checksum.
pub(super) const PAYLOAD: usize = PAGE - 4;

/// Appends whole pages to a buffer.
pub(super) struct PageWriter<'a> {
    out: &'a mut Vec<u8>,
    seed: u32,
}

impl<'a> PageWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, seed: u32) -> Self {
        Self { out, seed }
    }

    /// Adds items of one width to as many pages as they need; none is split. The buffer may hold
    /// other things before the first page, which is number `first`.
    pub(super) fn items<const N: usize>(
        &mut self,
        mut page: u64,
        items: impl Iterator<Item = [u8; N]>,
    ) -> u64 {
        let mut start = self.out.len();
        for item in items {
            if self.out.len() - start + N > PAYLOAD {
                self.close(page, start);
                page += 1;
                start = self.out.len();
            }
            self.out.extend_from_slice(&item);
        }
        if self.out.len() > start {
            self.close(page, start);
            page += 1;
        }
        page
    }

    fn close(&mut self, page: u64, start: usize) {
        self.out.resize(start + PAYLOAD, 0);
        let checksum = checksum(self.seed, page, &self.out[start..]);
        self.out.extend_from_slice(&checksum.to_le_bytes());
    }
}

fn checksum(seed: u32, page: u64, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &page.to_le_bytes()), payload)
}

/// Reads a page's payload.
pub(super) fn read(file: &dyn File, seed: u32, page: u64) -> Result<[u8; PAGE], Damaged> {
    let mut bytes = [0; PAGE];
    let n = file.read_at(&mut bytes, page * PAGE as u64)?;
    if n == PAGE && checksum(seed, page, &bytes[..PAYLOAD]) == u32_at(&bytes, PAYLOAD) {
        Ok(bytes)
    } else {
        Err(Damaged::Page)
    }
}

/// Items of one width in consecutive pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Items {
    pub(super) page: u64,
    pub(super) count: u64,
    pub(super) width: usize,
}

impl Items {
    /// The page behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.page + self.count.div_ceil(self.per_page())
    }

    fn per_page(&self) -> u64 {
        (PAYLOAD / self.width) as u64
    }

    /// Page and place in it of an item.
    pub(super) fn place(&self, number: u64) -> (u64, usize) {
        let per_page = self.per_page();
        (self.page + number / per_page, (number % per_page) as usize * self.width)
    }
}

/// Reads items, remembering the last page.
pub(super) struct Cursor<'a> {
    file: &'a dyn File,
    seed: u32,
    held: Option<(u64, Box<[u8; PAGE]>)>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a dyn File, seed: u32) -> Self {
        Self { file, seed, held: None }
    }

    /// The bytes of an item, which must be one of the array.
    pub(super) fn item(&mut self, items: &Items, number: u64) -> Result<&[u8], Damaged> {
        let (page, at) = items.place(number);
        if self.held.as_ref().is_none_or(|(held, _)| *held != page) {
            self.held = Some((page, Box::new(read(self.file, self.seed, page)?)));
        }
        let Some((_, bytes)) = &self.held else { return Err(Damaged::Page) };
        Ok(&bytes[at..at + items.width])
    }
}
