//! The names of the files in a store.

/// The store file.
pub(crate) const STORE: &str = "store";
/// The lock file.
pub(crate) const LOCK: &str = "LOCK";
/// The end mark.
pub(crate) const END: &str = "end";
/// Added to the name of a file that is not finished.
pub(crate) const NEW: &str = ".new";

/// A segment's file.
pub(crate) fn log(segment: u64) -> String {
    format!("{segment:010}.log")
}

/// A segment's index.
pub(crate) fn index(segment: u64) -> String {
    format!("{segment:010}.idx")
}

/// The name under which a file is written before it is finished.
pub(crate) fn unfinished(name: &str) -> String {
    format!("{name}{NEW}")
}

/// What a name in the directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Store,
    Lock,
    Log(u64),
    Index(u64),
    End,
    /// A file that was not finished when the process ended.
    Unfinished,
    /// Made by the file system itself.
    Neutral,
    Foreign,
}

pub(crate) fn kind(name: &str) -> Kind {
    match name {
        STORE => Kind::Store,
        LOCK => Kind::Lock,
        END => Kind::End,
        "lost+found" => Kind::Neutral,
        _ => match name.strip_suffix(NEW) {
            Some(rest) => match kind(rest) {
                Kind::Store | Kind::Log(_) | Kind::Index(_) => Kind::Unfinished,
                Kind::Lock | Kind::End | Kind::Unfinished | Kind::Neutral | Kind::Foreign => {
                    Kind::Foreign
                }
            },
            None => numbered(name).unwrap_or(Kind::Foreign),
        },
    }
}

fn numbered(name: &str) -> Option<Kind> {
    let (digits, ending) = name.split_once('.')?;
    let plain = digits.len() >= 10 && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|n| plain && *n > 0)?;
    match ending {
        "log" if log(number) == name => Some(Kind::Log(number)),
        "idx" if index(number) == name => Some(Kind::Index(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_store_are_known() {
        for (name, expect) in [
            ("store", Kind::Store),
            ("LOCK", Kind::Lock),
            ("0000000007.log", Kind::Log(7)),
            ("12345678901.idx", Kind::Index(12_345_678_901)),
            ("0000000007.log.new", Kind::Unfinished),
            ("store.new", Kind::Unfinished),
            ("end", Kind::End),
            ("end.new", Kind::Foreign),
            ("lost+found", Kind::Neutral),
            ("LOCK.new", Kind::Foreign),
            ("7.log", Kind::Foreign),
            ("00000000007.log", Kind::Foreign),
            ("0000000000.log", Kind::Foreign),
            ("+000000007.log", Kind::Foreign),
            ("0000000007.log.new.new", Kind::Foreign),
            ("PG_VERSION", Kind::Foreign),
        ] {
            assert_eq!(kind(name), expect, "{name}");
        }
    }
}
