//! Where processes keep their stores and logs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Problem;

/// A directory with another one for logs in it.
#[derive(Debug)]
pub(crate) enum Directory {
    /// Goes with this value, unless it is to be kept.
    Temporary(TempDir),
    /// Stays.
    Given(PathBuf),
}

impl Directory {
    /// Below `parent`, whose file system may be what is measured; none: where temporary files are.
    pub(crate) fn temporary(prefix: &str, parent: Option<&Path>) -> Result<Self, Problem> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix);
        let dir = match parent {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        Self::Temporary(dir).with_logs()
    }

    /// An empty directory, or one to be made.
    pub(crate) fn given(dir: &Path) -> Result<Self, Problem> {
        let refused = |error: io::Error| Problem::Directory(format!("{}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(refused)?;
        if fs::read_dir(dir).map_err(refused)?.next().is_some() {
            let problem = format!("{}: the directory is not empty", dir.display());
            return Err(Problem::Directory(problem));
        }
        // The processes are started with it, wherever they are.
        Self::Given(fs::canonicalize(dir).map_err(refused)?).with_logs()
    }

    fn with_logs(self) -> Result<Self, Problem> {
        fs::create_dir(log_dir(self.path()))?;
        Ok(self)
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Given(dir) => dir,
        }
    }

    /// Says where it is if it stays: a temporary one does only if it is to be kept.
    pub(crate) fn end(self, keep: bool) -> Option<PathBuf> {
        match self {
            Self::Given(dir) => Some(dir),
            Self::Temporary(dir) => keep.then(|| dir.keep()),
        }
    }
}

/// Where the logs of processes are.
pub(crate) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("logs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_one_goes_unless_it_is_to_be_kept() {
        let parent = tempfile::tempdir().expect("a directory");
        let make = || Directory::temporary("test-", Some(parent.path())).expect("it is made");
        for keep in [false, true] {
            let dir = make();
            let path = dir.path().to_owned();
            assert!(path.starts_with(parent.path()) && log_dir(&path).is_dir());
            assert_eq!(dir.end(keep), keep.then(|| path.clone()));
            assert_eq!(path.exists(), keep);
        }
        let dropped = make();
        let path = dropped.path().to_owned();
        drop(dropped);
        assert!(!path.exists());
    }

    #[test]
    fn a_given_one_is_empty_or_refused_and_stays() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("new/one");
        let dir = Directory::given(&path).expect("it is made");
        assert!(dir.end(false).is_some_and(|kept| log_dir(&kept).is_dir()));
        let refused = Directory::given(&path).expect_err("there is something in it");
        assert!(matches!(&refused, Problem::Directory(why) if why.ends_with("is not empty")));
    }
}
