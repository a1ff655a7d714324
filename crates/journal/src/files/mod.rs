//! The seam between the journal and the disk: few synchronous calls, two implementations.
//!
//! Nothing above this module may touch the file system by other means, or a crash image would not
//! show what it did. Nothing here knows what the bytes mean.

pub mod crash;
mod directory;
pub(crate) mod pool;

use std::io;
use std::ops::Range;
use std::sync::Arc;

pub use directory::Directory;

/// One flat directory of files.
///
/// A name that was created, renamed or removed is durable only after [`Files::sync_directory`];
/// the bytes of a file only after [`File::sync_data`].
pub trait Files: Send + Sync + 'static {
    /// The names of all entries, in any order.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a new, empty file.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken, else whatever the file system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file that exists. It is opened for reading only where writing is not permitted.
    ///
    /// # Errors
    /// `NotFound` if it does not exist, else whatever the file system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, replacing what had that name, in one step.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Whoever has the file open can go on reading it.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every name so far durable.
    ///
    /// # Errors
    /// Whatever the file system says; what is durable then is not known.
    fn sync_directory(&self) -> io::Result<()>;

    /// Takes the exclusive lock on a file, which is made if it is missing. The lock is held until
    /// the answer is dropped. None: another opener, in this process or another, has it.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>>;

    /// Which file has this name now; none: no file has.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn identity(&self, name: &str) -> io::Result<Option<Identity>>;

    /// How much room the file system has.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn room(&self) -> io::Result<Room>;
}

/// One open file. All offsets are in bytes from its start.
pub trait File: Send + Sync + 'static {
    /// Reads until the buffer is full or the file ends, and says how many bytes there were.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all the bytes.
    ///
    /// # Errors
    /// Whatever the file system says; any part may have been written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes what was written, and the length, durable.
    ///
    /// # Errors
    /// Whatever the file system says; what is durable then is not known, and asking again
    /// proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn length(&self) -> io::Result<u64>;

    /// Makes the file at least this long, with zeros and with room on the disk for them, so that
    /// writing there needs no allocation.
    ///
    /// # Errors
    /// `StorageFull` if there is no room: then nothing that was written before is harmed.
    fn preallocate(&self, length: u64) -> io::Result<()>;

    /// The ranges, ascending, that may have been written, from a position on: everything else there
    /// is zeros. It spares reading room that was allocated and not used. All of them at once,
    /// because to the file system what was read ahead is as good as written.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn written(&self, from: u64) -> io::Result<Vec<Range<u64>>>;

    /// Makes the file shorter.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Which file it is.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn identity(&self) -> io::Result<Identity>;

    /// It has a name yet: what is written to it can be found again.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn is_named(&self) -> io::Result<bool>;
}

/// A lock that is held; dropping it releases it.
pub trait Lock: Send + Sync + 'static {
    /// Which file it is on.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn identity(&self) -> io::Result<Identity>;
}

/// A file, whatever name it has: device and number on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(pub u64, pub u64);

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What this process may still allocate.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// True for the errors that mean "too many open files", of the process or of the system.
pub(crate) fn is_no_descriptor(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|e| number == Some(e.raw_os_error()))
}

/// True for the errors that mean "no room": the disk, a quota or a size limit.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
