//! Text that people have made, with whatever program on whatever system: the one reader for it.
//!
//! What differs without meaning anything is taken away: a byte order mark in front, Windows' line
//! ends, a missing end of the last line. What cannot be meant is refused with its line. Nothing is
//! guessed, and nothing else is changed.

use std::io::{self, BufRead, Read as _};

/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Where a text is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In words that follow the line's number.
    pub what: String,
}

impl Problem {
    /// This, in that line.
    pub fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

/// A whole file as text, without its mark; its line ends are as they were.
///
/// # Errors
/// It is not text, and where.
pub fn whole(bytes: &[u8]) -> Result<&str, Problem> {
    let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        check(line.strip_suffix(b"\r").unwrap_or(line))
            .map_err(|what| Problem::new(at + 1, what))?;
    }
    // Every line is, so all of it is.
    str::from_utf8(bytes).map_err(|_| Problem::new(1, NOT_UTF_8))
}

const NOT_UTF_8: &str = "it is not UTF-8";

/// One line without its end.
fn check(line: &[u8]) -> Result<&str, &'static str> {
    if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
        return Err("it is not UTF-8 but looks like UTF-16: save it as UTF-8");
    }
    let text = str::from_utf8(line).map_err(|_| NOT_UTF_8)?;
    if text.contains('\0') {
        return Err("it has a zero byte");
    }
    if text.contains('\r') {
        return Err("it has a carriage return that ends no line");
    }
    Ok(text)
}

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The line, from 1, has more bytes than it may have.
    #[error("line {0} is too long")]
    TooLong(usize),
    /// The line is not text.
    #[error("{0}")]
    Not(#[from] Problem),
}

/// Lines as they come, each read no further than it may be long.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    most: usize,
    line: usize,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most so many bytes.
    pub fn new(input: R, most: usize) -> Self {
        Self { input, most, line: 0 }
    }

    /// The next line without its end; none at the end.
    ///
    /// # Errors
    /// See [`Error`]. Nothing is read after that.
    pub fn read(&mut self) -> Result<Option<String>, Error> {
        let mut bytes = Vec::new();
        // With the longest end, and with the mark.
        let most = self.most + 2 + MARK.len();
        let read = self.input.by_ref().take(most as u64).read_until(b'\n', &mut bytes);
        if read.map_err(Error::Io)? == 0 {
            return Ok(None);
        }
        self.line += 1;
        if self.line == 1 && bytes.starts_with(MARK) {
            bytes.drain(..MARK.len());
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if bytes.len() > self.most {
            return Err(Error::TooLong(self.line));
        }
        if let Err(what) = check(&bytes) {
            return Err(Error::Not(Problem::new(self.line, what)));
        }
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|_| Error::Not(Problem::new(self.line, NOT_UTF_8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> (Vec<String>, Option<String>) {
        let mut lines = Lines::new(io::Cursor::new(bytes.to_vec()), 8);
        let mut found = Vec::new();
        loop {
            match lines.read() {
                Ok(Some(line)) => found.push(line),
                Ok(None) => return (found, None),
                Err(Error::Io(error)) => return (found, Some(error.to_string())),
                Err(Error::TooLong(line)) => return (found, Some(format!("line {line} is long"))),
                Err(Error::Not(problem)) => return (found, Some(problem.to_string())),
            }
        }
    }

    /// K6: `alpha` of a file with Windows' line ends was published as `alpha\r`, which a test had
    /// even asked for.
    #[test]
    fn the_same_lines_are_the_same_whatever_wrote_them() {
        let expected = ["alpha", "", "Zoë", "last"].map(str::to_owned).to_vec();
        for text in [
            "alpha\n\nZoë\nlast\n",
            "alpha\n\nZoë\nlast",
            "alpha\r\n\r\nZoë\r\nlast\r\n",
            "alpha\r\n\r\nZoë\r\nlast\r",
            "\u{feff}alpha\r\n\nZoë\r\nlast",
        ] {
            assert_eq!(lines(text.as_bytes()), (expected.clone(), None), "{text:?}");
        }
        assert_eq!(lines(b""), (vec![], None));
        assert_eq!(lines(b"\xef\xbb\xbf"), (vec![String::new()], None));
        assert_eq!(lines(b"\n"), (vec![String::new()], None));
        // Anywhere else the mark is a character like others.
        assert_eq!(lines("a\n\u{feff}b".as_bytes()).0[1], "\u{feff}b");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        for (bytes, what) in [
            (&b"a\nb\0c\n"[..], "line 2: it has a zero byte"),
            (b"a\nb\n\xffc\n", "line 3: it is not UTF-8"),
            (b"a\rb\r", "line 1: it has a carriage return"),
            (b"\xff\xfea\0\n\0", "line 1: it is not UTF-8 but looks like UTF-16"),
            (b"12345678\r\n123456789\n", "line 2 is long"),
            (b"123456789", "line 1 is long"),
        ] {
            let problem = lines(bytes).1.expect("it is refused");
            assert!(problem.starts_with(what), "{bytes:?}: {problem}");
        }
        assert_eq!(lines(b"\xef\xbb\xbf12345678\r\n").0, ["12345678"]);
        let mut endless = Lines::new(io::BufReader::new(io::repeat(b'x')), 1 << 20);
        assert!(matches!(endless.read(), Err(Error::TooLong(1))));
    }

    #[test]
    fn a_whole_file_is_text_or_says_where_it_is_not() {
        assert_eq!(whole("\u{feff}a,b\r\n1,2".as_bytes()), Ok("a,b\r\n1,2"));
        assert_eq!(whole(b""), Ok(""));
        for (bytes, what) in [
            (&b"a\nb\n\xff"[..], "line 3: it is not UTF-8"),
            (b"a\r\nb\0\r\n", "line 2: it has a zero byte"),
            (b"a\nb\rc\n", "line 2: it has a carriage return"),
        ] {
            let problem = whole(bytes).expect_err("it is refused").to_string();
            assert!(problem.starts_with(what), "{bytes:?}: {problem}");
        }
    }
}
