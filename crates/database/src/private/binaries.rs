//! Finds the programs that the system has, and the users that may run them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::PrivateError;

/// A program of PostgreSQL: in PATH, or the newest version under Debian's directory.
pub(super) fn postgres(program: &'static str) -> Result<PathBuf, PrivateError> {
    let package = "postgresql";
    in_path(program).or_else(|| newest(program)).ok_or(PrivateError::Missing { program, package })
}

/// A program of MariaDB: in the directory that is given; else in PATH, or where Debian keeps servers.
pub(super) fn mariadb(home: Option<&Path>, program: &'static str) -> Result<PathBuf, PrivateError> {
    if let Some(home) = home {
        let found = ["bin", "scripts"].map(|part| home.join(part).join(program));
        let found = found.into_iter().find(|path| path.is_file());
        return found.ok_or_else(|| PrivateError::NotIn { program, home: home.to_owned() });
    }
    let package = "mariadb-server";
    let sbin = || Some(Path::new("/usr/sbin").join(program)).filter(|path| path.is_file());
    in_path(program).or_else(sbin).ok_or(PrivateError::Missing { program, package })
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn newest(program: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| {
            let directory = entry.ok()?.path();
            let version: u32 = directory.file_name().and_then(OsStr::to_str)?.parse().ok()?;
            let path = directory.join("bin").join(program);
            path.is_file().then_some((version, path))
        })
        .max()
        .map(|(_, path)| path)
}

/// Whom a server runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The package's user if we are root, because servers refuse to run as root; else ourselves.
pub(super) fn user(
    user: &'static str,
    package: &'static str,
) -> Result<Option<User>, PrivateError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let missing = PrivateError::NoUser { user, package };
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == user).then_some(())?;
        let mut numbers = fields.skip(1).map(|field| field.parse().ok());
        Some(User { uid: numbers.next()??, gid: numbers.next()?? })
    });
    found.map(Some).ok_or(missing)
}
