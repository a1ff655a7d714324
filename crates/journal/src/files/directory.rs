//! The real directory.
//!
//! It must never retry a failed sync, and never follow a name out of its directory.

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fstatvfs, seek};
use rustix::io::Errno;

use super::{File, Files, Identity, Lock, Room, is_no_descriptor};

const ZEROS: usize = 1 << 20;
/// Descriptors that a directory in use keeps for itself: for the next segment, an index, a segment
/// that is read, and somebody who is faster.
const SPARE: usize = 6;

/// A directory of the file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: fs::File,
    /// Descriptors that are given up for a file of the store when the process has no other.
    spare: Mutex<Vec<fs::File>>,
}

impl Directory {
    /// Opens a directory, which is made (with those above it) if it is missing.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            sync_parents(path)?;
        }
        Self::open_existing(path)
    }

    /// Opens a directory that must exist; nothing is made. For [`crate::check`] and
    /// [`crate::dump`].
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open_existing(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_path_buf();
        let handle = fs::File::open(&path)?;
        Ok(Self { path, handle, spare: Mutex::default() })
    }

    /// Opens a file with a descriptor that was spared for it, if there is no other.
    fn opened(&self, open: impl Fn() -> io::Result<fs::File>) -> io::Result<fs::File> {
        loop {
            match open() {
                Err(e) if is_no_descriptor(&e) => {
                    let spare = self.spare().pop();
                    // Somebody else may be faster than this: as often as there is one.
                    drop(spare.ok_or(e)?);
                }
                done => return done,
            }
        }
    }

    /// Spares descriptors again, as far as there are any.
    fn spare_more(&self) {
        let mut spare = self.spare();
        while spare.len() < SPARE
            && let Ok(one) = self.handle.try_clone()
        {
            spare.push(one);
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<fs::File>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A directory that was just made is an entry of the one above it, which has to be synced too.
fn sync_parents(path: &Path) -> io::Result<()> {
    for above in path.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs::File::open(above) {
            Ok(handle) => handle.sync_all()?,
            // Directories above that may not be read were not made by us.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Files for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let path = self.path.join(name);
        Ok(Arc::new(RealFile(self.opened(|| options.open(&path))?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match self.opened(|| options.open(&path)) {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                self.opened(|| fs::File::open(&path))?
            }
            other => other?,
        };
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let path = self.path.join(name);
        let file = match fs::File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                OpenOptions::new().write(true).create(true).truncate(false).open(&path)?
            }
            other => other?,
        };
        match file.try_lock() {
            Ok(()) => {
                // Whoever locks it is going to write.
                self.spare_more();
                Ok(Some(Box::new(HeldLock { file })))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn identity(&self, name: &str) -> io::Result<Option<Identity>> {
        match fs::metadata(self.path.join(name)) {
            Ok(found) => Ok(Some(identity(&found))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn room(&self) -> io::Result<Room> {
        // Asked every second while it is in use.
        self.spare_more();
        let stat = fstatvfs(&self.handle)?;
        Ok(Room {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            // What only root may use does not count as there.
            total: (stat.f_blocks - stat.f_bfree + stat.f_bavail).saturating_mul(stat.f_frsize),
        })
    }
}

/// Closing the file releases the lock.
struct HeldLock {
    file: fs::File,
}

impl Lock for HeldLock {
    fn identity(&self) -> io::Result<Identity> {
        Ok(identity(&self.file.metadata()?))
    }
}

fn identity(found: &fs::Metadata) -> Identity {
    Identity(found.dev(), found.ino())
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        let from = self.length()?;
        if from >= length {
            return Ok(());
        }
        match fallocate(&self.0, FallocateFlags::empty(), from, length - from) {
            Ok(()) => Ok(()),
            // Not every file system can: then the zeros are written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(&self.0, from, length),
            Err(e) => Err(e.into()),
        }
    }

    fn written(&self, from: u64) -> io::Result<Vec<Range<u64>>> {
        let mut ranges = Vec::new();
        let (mut at, end) = (from, self.length()?);
        // This moves the position of the open file, which nothing here uses.
        while at < end {
            let start = match seek(&self.0, SeekFrom::Data(at)) {
                Ok(start) => start,
                // No data before the end.
                Err(Errno::NXIO) => break,
                // Not every file system can say.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
                Err(e) => return Err(e.into()),
            };
            at = match seek(&self.0, SeekFrom::Hole(start)) {
                Ok(hole) => hole,
                Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => end,
                Err(e) => return Err(e.into()),
            };
            ranges.push(start..at);
        }
        Ok(ranges)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(identity(&self.0.metadata()?))
    }

    fn is_named(&self) -> io::Result<bool> {
        Ok(self.0.metadata()?.nlink() > 0)
    }
}

fn write_zeros(file: &fs::File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    let mut at = from;
    while at < to {
        let n = (to - at).min(ZEROS as u64);
        if let Err(e) = file.write_all_at(&zeros[..n as usize], at) {
            // Gives back what was taken, so that a refusal costs nothing.
            file.set_len(from)?;
            return Err(e);
        }
        at += n;
    }
    Ok(())
}
