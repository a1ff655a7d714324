//! The client's durable record of how each transfer ended: one JSON document per line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) transfer: u32,
    pub(crate) committed: bool,
    /// The transaction that decided it.
    pub(crate) transaction: String,
    /// Transactions that it took: all but the last had failed for a reason that passes.
    pub(crate) attempts: u32,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// The file.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("results.jsonl")
}

/// All that has ended. A last line that a kill has cut off is not counted.
pub(crate) fn read(dir: &Path) -> io::Result<Vec<Ended>> {
    let text = match fs::read(path(dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    whole(&text)
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(io::Error::from))
        .collect()
}

/// The lines that are complete.
fn whole(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &text[..end]
}

/// The file, to write to.
#[derive(Debug)]
pub(crate) struct Results(File);

impl Results {
    /// Opens it behind the last complete line.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = path(dir);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let text = fs::read(&path)?;
        file.set_len(whole(&text).len() as u64)?;
        file.flush()?;
        Ok(Self(file))
    }

    /// Adds lines; they are on disk when it returns.
    pub(crate) fn write(&mut self, lines: &[Ended]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        self.0.write_all(&text)?;
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_is_written_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let line = |transfer| Ended {
            transfer,
            committed: true,
            transaction: "x".to_owned(),
            attempts: 1,
            reason: None,
        };
        assert_eq!(read(dir.path()).expect("there is none yet"), []);
        Results::open(dir.path()).unwrap().write(&[line(1), line(2)]).expect("it can be written");
        let file = OpenOptions::new().append(true).open(path(dir.path())).expect("it is there");
        (&file).write_all(b"{\"transfer\":3").expect("it can be written");
        assert_eq!(read(dir.path()).expect("it is sound"), [line(1), line(2)]);
        Results::open(dir.path()).unwrap().write(&[line(3)]).expect("it can be written");
        assert_eq!(read(dir.path()).expect("it is sound"), [line(1), line(2), line(3)]);
    }
}
