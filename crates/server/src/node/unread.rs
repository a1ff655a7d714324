//! What was sent to sessions and is not read: of each, and of all together.
//!
//! The more all have to read, the less one may have: a quarter of what is left of the sum, so that
//! whoever reads always gets something and whoever does not cannot take it all. (Choudhury and
//! Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998.)

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::requests::Queues;

/// What an item takes besides the body of a delivery, about.
const EACH_BYTES: usize = 256;
/// Who has read nothing for so long, in milliseconds, is stuck.
const STUCK_MS: u64 = 1_000;
/// A session may have this part of what is left of the sum.
const PART: usize = 4;

/// Of all sessions.
#[derive(Debug)]
pub(crate) struct AllUnread {
    bytes: AtomicUsize,
    /// When so much was there that somebody was looked for who could be ended, in milliseconds.
    looked_ms: AtomicU64,
    most_bytes: usize,
    most_of_one: usize,
    start: Instant,
}

/// Of one session.
#[derive(Debug)]
pub(crate) struct Unread {
    all: Arc<AllUnread>,
    items: AtomicUsize,
    /// Of the bodies of deliveries.
    bytes: AtomicUsize,
    /// There were too many: whoever reads enough of them says so.
    behind: AtomicBool,
    /// When something was read, or the first came that is not.
    read_ms: AtomicU64,
    /// Ends whoever does not read: he holds what was sent to him, and looks at nothing.
    cut_off: OnceLock<CutOff>,
}

/// See [`Unread::cut_off`].
struct CutOff(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CutOff")
    }
}

impl AllUnread {
    pub(crate) fn new(queues: &Queues) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            looked_ms: AtomicU64::new(0),
            most_bytes: queues.all_unread_bytes,
            most_of_one: queues.unread_bytes,
            start: Instant::now(),
        }
    }

    /// Bytes that wait to be read.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of deliveries that one session may have to read now.
    fn most_of_one(&self) -> usize {
        self.most_of_one.min(self.most_bytes.saturating_sub(self.bytes()) / PART)
    }

    /// Bytes that may be read for one session at once.
    pub(crate) fn most_at_once(&self) -> u32 {
        u32::try_from(self.most_of_one()).unwrap_or(u32::MAX)
    }

    /// So many bytes more may be read from the log, while so many others are on their way.
    pub(crate) fn has_room_for(&self, under_way: usize, bytes: usize) -> bool {
        let unread = self.bytes();
        unread < self.most_bytes
            && (under_way == 0 || unread + under_way + bytes <= self.most_bytes)
    }

    /// There is so much that somebody has to be ended; told once in a while.
    pub(crate) fn is_too_much(&self) -> bool {
        if self.bytes() <= self.most_bytes / 8 * 7 {
            return false;
        }
        let now = self.now_ms();
        let looked = self.looked_ms.load(Ordering::Relaxed);
        let is_due = now >= looked + STUCK_MS / 10;
        if is_due {
            self.looked_ms.store(now, Ordering::Relaxed);
        }
        is_due
    }

    /// Bytes that have to go.
    pub(crate) fn excess(&self) -> usize {
        self.bytes().saturating_sub(self.most_bytes / 4 * 3)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Unread {
    pub(crate) fn new(all: &Arc<AllUnread>) -> Self {
        Self {
            all: Arc::clone(all),
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            behind: AtomicBool::new(false),
            read_ms: AtomicU64::new(0),
            cut_off: OnceLock::new(),
        }
    }

    /// What is to be done when the session has to be ended because it reads nothing. Once.
    pub(crate) fn when_cut_off(&self, cut_off: impl Fn() + Send + Sync + 'static) {
        let _ = self.cut_off.set(CutOff(Box::new(cut_off)));
    }

    pub(crate) fn cut_off(&self) {
        if let Some(CutOff(cut_off)) = self.cut_off.get() {
            cut_off();
        }
    }

    /// So much is about to be sent: how many items there are then, and whether the session is behind
    /// with that and was not before.
    pub(crate) fn sent(&self, items: usize, bytes: usize) -> (usize, bool) {
        self.all.bytes.fetch_add(items * EACH_BYTES + bytes, Ordering::Relaxed);
        let before = self.items.fetch_add(items, Ordering::Relaxed);
        if before == 0 {
            self.read_ms.store(self.all.now_ms(), Ordering::Relaxed);
        }
        let mut is_behind_now = false;
        if bytes > 0 {
            let unread = self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
            is_behind_now =
                unread > self.all.most_of_one() && !self.behind.swap(true, Ordering::SeqCst);
        }
        (before + items, is_behind_now)
    }

    /// So much was read. Whether the session has caught up with that.
    pub(crate) fn read(&self, items: usize, bytes: usize) -> bool {
        self.all.bytes.fetch_sub(items * EACH_BYTES + bytes, Ordering::Relaxed);
        self.items.fetch_sub(items, Ordering::Relaxed);
        self.read_ms.store(self.all.now_ms(), Ordering::Relaxed);
        if bytes == 0 {
            return false;
        }
        let left = self.bytes.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        left <= self.all.most_of_one() / 2 && self.behind.swap(false, Ordering::SeqCst)
    }

    /// All have too much to read, and this session has some of it.
    pub(crate) fn is_in_the_way(&self) -> bool {
        self.all.bytes() > self.all.most_bytes && self.left() > 0
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::SeqCst)
    }

    /// What it has to read, if it has read nothing for long.
    pub(crate) fn stuck_bytes(&self) -> Option<usize> {
        let bytes = self.left();
        let since = self.all.now_ms().saturating_sub(self.read_ms.load(Ordering::Relaxed));
        (bytes > 0 && since >= STUCK_MS).then_some(bytes)
    }

    fn left(&self) -> usize {
        self.items.load(Ordering::Relaxed) * EACH_BYTES + self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.left(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(all_unread_bytes: usize) -> Arc<AllUnread> {
        Arc::new(AllUnread::new(&Queues { all_unread_bytes, ..Queues::default() }))
    }

    /// 300 streams that were not read took 3 GiB: each had a bound, and all together had none (I15).
    #[test]
    fn the_more_all_have_to_read_the_less_one_may_have() {
        const MOST: usize = 16 << 20;
        const PIECE: usize = 64 << 10;
        let all = all(MOST);
        let sessions: Vec<_> = (0..300).map(|_| Unread::new(&all)).collect();
        // Each gets more as long as it is not behind, as the core would give it.
        for _ in 0..100 {
            for session in sessions.iter().filter(|session| !session.is_behind()) {
                session.sent(1, PIECE);
            }
        }
        let most = MOST + sessions.len() * (PIECE + EACH_BYTES);
        assert!(all.bytes() <= most, "{} bytes", all.bytes());
        assert!(sessions.iter().all(Unread::is_behind), "somebody may have more for ever");
        // Whoever reads gets more; the others have what they have.
        let reader = &sessions[299];
        assert!(reader.read(1, PIECE), "it has caught up");
        assert!(!reader.is_behind());
        drop(sessions);
        assert_eq!(all.bytes(), 0, "what nobody will read is not there any more");
    }

    #[test]
    fn one_that_is_alone_may_have_what_it_always_had() {
        let all = all(Queues::default().all_unread_bytes);
        let one = Unread::new(&all);
        let (_, is_behind) = one.sent(1, Queues::default().unread_bytes);
        assert!(!is_behind);
        let (_, is_behind) = one.sent(1, 1);
        assert!(is_behind);
        assert!(!one.read(1, 1), "more than half is left");
        assert!(one.read(1, Queues::default().unread_bytes));
    }
}
