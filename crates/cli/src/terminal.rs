//! How things are shown to people, by commands and benchmarks alike: tables, times, sizes, colours,
//! and lines on stderr. Colour only where a terminal shows it and `NO_COLOR` is not set.
//!
//! Text that others wrote (reasons, names of instances, data of events) is never shown to a
//! terminal as it is: control characters are escaped.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use anstream::AutoStream;
use clap::builder::styling::{AnsiColor, Color, Style};
use comfy_table::{Cell, CellAlignment, Table};
use jiff::Timestamp;

/// A line on stderr. If that is closed there is nobody to tell.
pub(crate) fn error_line(text: impl fmt::Display) {
    let mut stderr = AutoStream::auto(io::stderr().lock());
    let _ = writeln!(stderr, "{text}");
}

/// A question on stderr, without the line's end.
pub(crate) fn question(text: impl fmt::Display) {
    let mut stderr = AutoStream::auto(io::stderr().lock());
    let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
}

/// Where the words of a column stand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// A table with a heading; `empty` if there is nothing to show.
pub(crate) fn table(columns: &[Column], rows: Vec<Vec<String>>, empty: &str) -> String {
    if rows.is_empty() {
        return empty.to_owned();
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().map(|column| match column {
        Column::Left(name) | Column::Right(name) => Cell::new(name),
    }));
    for row in rows {
        table.add_row(row.into_iter().map(Cell::new));
    }
    for (column, at) in columns.iter().zip(table.column_iter_mut()) {
        at.set_padding((0, 2));
        if let Column::Right(_) = column {
            at.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Text of others, with its control characters escaped.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmless(c) {
            shown.push(c);
        } else {
            // Writing to a string does not fail.
            let _ = write!(shown, "{}", c.escape_default());
        }
    }
    shown
}

/// Neither moves a terminal's cursor nor turns the direction of what follows.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text in a colour.
pub(crate) fn painted(color: AnsiColor, text: &str) -> String {
    let style = Style::new().fg_color(Some(Color::Ansi(color)));
    format!("{style}{text}{style:#}")
}

/// Text that stands out.
pub(crate) fn bold(text: &str) -> String {
    let style = Style::new().bold();
    format!("{style}{text}{style:#}")
}

/// A Unix time as RFC 3339, with milliseconds; none if no calendar has it.
pub(crate) fn rfc3339(unix_ms: u64) -> Option<String> {
    let ms = i64::try_from(unix_ms).ok()?;
    Timestamp::from_millisecond(ms).ok().map(|time| format!("{time:.3}"))
}

/// A Unix time for people.
pub(crate) fn time(unix_ms: u64) -> String {
    rfc3339(unix_ms)
        .map_or_else(|| format!("{unix_ms} ms after 1970"), |text| text.replacen('T', " ", 1))
}

/// A duration for people, rounded down.
pub(crate) fn duration(ms: u64) -> String {
    let two = |more: u64, big: &str, less: u64, small: &str| {
        if less == 0 { format!("{more}{big}") } else { format!("{more}{big} {less}{small}") }
    };
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..=59 => match ms % 1_000 / 100 {
            0 => format!("{seconds}s"),
            tenths => format!("{seconds}.{tenths}s"),
        },
        60..=3_599 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..=86_399 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// A size for people, rounded down to a tenth.
pub(crate) fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let whole = bytes >> shift;
        if whole > 0 {
            let tenths = (bytes >> (shift - 10)) % 1_024 * 10 / 1_024;
            return if tenths == 0 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenths} {unit}")
            };
        }
    }
    format!("{bytes} B")
}

/// So many of something.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Words on lines of at most `width`, where words allow it. A command that is proposed in backticks
/// is one word: broken it could not be run as it stands.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in words(text) {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(&word);
            used += length;
        }
    }
    lines
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_open = false;
    for part in text.split_whitespace() {
        match words.last_mut() {
            Some(command) if is_open => {
                command.push(' ');
                command.push_str(part);
            }
            _ => words.push(part.to_owned()),
        }
        is_open = match is_open {
            true => !part.contains('`'),
            false => part.ends_with("`handfast"),
        };
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_move_the_cursor() {
        assert_eq!(visible("plain äöü 日本"), "plain äöü 日本");
        assert_eq!(visible("a\x1b[2Jb\r\n\u{202e}c"), "a\\u{1b}[2Jb\\r\\n\\u{202e}c");
    }

    #[test]
    fn times_durations_and_sizes_are_readable() {
        assert_eq!(rfc3339(1_795_370_400_500).as_deref(), Some("2026-11-22T18:00:00.500Z"));
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(rfc3339(u64::MAX), None);
        assert_eq!(time(1_795_370_400_500), "2026-11-22 18:00:00.500Z");
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (12_345, "12.3s"),
            (60_000, "1m"),
            (245_000, "4m 5s"),
            (11_520_000, "3h 12m"),
            (604_800_000, "7d"),
            (615_600_000, "7d 3h"),
        ] {
            assert_eq!(duration(ms), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1 KiB"),
            (1_536, "1.5 KiB"),
            (10 << 30, "10 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn tables_are_aligned_and_have_no_trailing_spaces() {
        let rows = vec![vec!["a".into(), "7".into()], vec!["longer".into(), "1234".into()]];
        let text = table(&[Column::Left("NAME"), Column::Right("END")], rows, "none");
        assert_eq!(text, "NAME     END\na          7\nlonger  1234");
        assert_eq!(table(&[Column::Left("NAME")], Vec::new(), "none"), "none");
    }

    #[test]
    fn words_are_wrapped_between_words() {
        assert_eq!(wrapped("a bb ccc dddd", 6), ["a bb", "ccc", "dddd"]);
        assert_eq!(wrapped("unbreakable x", 3), ["unbreakable", "x"]);
        assert_eq!(wrapped("", 3), [""]);
        assert_eq!(wrapped("do `handfast a b`, then c", 9), ["do", "`handfast a b`,", "then c"]);
    }
}
