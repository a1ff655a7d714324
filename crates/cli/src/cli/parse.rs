//! Values on the command line that have units: durations, sizes, places in a topic. Every error
//! says what was expected. Nothing here is guessed: a number without its unit is refused.

use std::time::{Duration, SystemTime};

use handfast::{Name, Start, TransactionId};
use handfast_core::branch::BranchId;
use jiff::Timestamp;

/// Units of durations, in milliseconds.
const DURATIONS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 7 * 86_400_000),
];
/// Units of sizes, in bytes.
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A transaction, by its id or by the name of one of its branches, in each form in which handfast or
/// a database writes it.
pub(crate) fn transaction(text: &str) -> Result<TransactionId, String> {
    let text = text.trim();
    let branch = text.strip_prefix("handfast.").unwrap_or(text).parse::<BranchId>().ok();
    if let Some(branch) = branch.or_else(|| BranchId::from_xid(text)) {
        return Ok(branch.transaction);
    }
    let is_hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(number) = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten() {
        return Ok(TransactionId(number));
    }
    text.to_ascii_lowercase().parse().map_err(|_| {
        "expected a transaction's id, such as 0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6, or the name of a \
         branch as `indoubt`, PostgreSQL or MariaDB show it"
            .to_owned()
    })
}

/// A duration such as `10m` or `1h30m`; at least a millisecond.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = "expected numbers with units, such as 500ms, 30s, 10m, 12h, 1h30m, 7d or 2w";
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (value, after) = number(rest).ok_or(expected)?;
        let length = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (name, after) = after.split_at(length);
        let unit = DURATIONS.iter().find(|unit| unit.0 == name).ok_or(expected)?.1;
        let part = value.checked_mul(unit).ok_or("that is too long")?;
        total = total.checked_add(part).ok_or("that is too long")?;
        rest = after;
    }
    match (total, text) {
        (_, "") => Err(expected.to_owned()),
        (0, _) => Err("expected at least 1ms".to_owned()),
        (ms, _) => Ok(Duration::from_millis(ms)),
    }
}

/// A size such as `10GiB`; at least a byte.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let expected = "expected a number with a unit, such as 512KiB, 64MiB, 10GiB or 5GB";
    let (value, unit) = number(text).ok_or(expected)?;
    let unit = SIZES.iter().find(|known| known.0 == unit).ok_or(expected)?.1;
    match value.checked_mul(unit) {
        None => Err("that is too much".to_owned()),
        Some(0) => Err("expected at least 1B".to_owned()),
        Some(bytes) => Ok(bytes),
    }
}

fn number(text: &str) -> Option<(u64, &str)> {
    let length = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    Some((digits.parse().ok()?, rest))
}

/// A value that may also be `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrNone<T>(pub(crate) Option<T>);

/// An age, or `none`.
pub(crate) fn age_or_none(text: &str) -> Result<OrNone<Duration>, String> {
    or_none(text, duration)
}

/// A size, or `none`.
pub(crate) fn size_or_none(text: &str) -> Result<OrNone<u64>, String> {
    or_none(text, size)
}

fn or_none<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<OrNone<T>, String> {
    if text == "none" {
        return Ok(OrNone(None));
    }
    parse(text).map(|value| OrNone(Some(value))).map_err(|expected| format!("{expected}, or none"))
}

/// A moment: how long ago, or RFC 3339.
pub(crate) fn moment(text: &str) -> Result<SystemTime, String> {
    moment_at(text, SystemTime::now())
}

fn moment_at(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let expected =
        "expected how long ago, such as 10m, or a time such as 2026-11-22T18:00:00Z".to_owned();
    if let Ok(ago) = duration(text) {
        return now.checked_sub(ago).ok_or_else(|| "that is too long ago".to_owned());
    }
    text.parse::<Timestamp>().map(SystemTime::from).map_err(|_| expected)
}

/// A place in a topic: one of its ends or an offset.
pub(crate) fn offset(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => text
            .parse()
            .map(Start::Offset)
            .map_err(|_| "expected earliest, latest or an offset such as 42".to_owned()),
    }
}

/// A place in a topic: one of its ends, an offset or a moment.
pub(crate) fn place(text: &str) -> Result<Start, String> {
    let expected = "expected earliest, latest, an offset such as 42, how long ago, such as 10m, or \
                    a time such as 2026-11-22T18:00:00Z";
    offset(text).or_else(|_| moment(text).map(Start::Time)).map_err(|_| expected.to_owned())
}

/// A name of a topic, subscription or participant.
pub(crate) fn name(text: &str) -> Result<String, String> {
    Name::new(text).map(|name| name.as_str().to_owned()).map_err(|problem| problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_taken_in_every_form_in_which_it_is_written() {
        let id = TransactionId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_e5f6);
        let branch = BranchId { transaction: id, store: 0x1122_3344_5566_7788, branch: 7 };
        let uuid = id.to_string();
        for text in [
            uuid.clone(),
            uuid.to_uppercase(),
            uuid.replace('-', ""),
            format!(" {uuid}\n"),
            branch.to_string(),
            branch.gid(),
            branch.xid(),
        ] {
            assert_eq!(transaction(&text), Ok(id), "{text}");
        }
        for text in ["", "pg_gid_1_2", "0192f0a1", "handfast.x", &uuid[1..]] {
            assert!(transaction(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, ms) in [
            ("1ms", 1),
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("12h", 43_200_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("2w", 1_209_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "m", "1.5h", "-1s", "10 m", "10M", "1h30", "1y", "0s", "١s"] {
            let problem = duration(text).expect_err(text);
            assert!(problem.starts_with("expected"), "{text}: {problem}");
        }
        for text in ["99999999999999999w", "18446744073709551615ms1ms"] {
            assert_eq!(duration(text), Err("that is too long".to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1B", 1),
            ("10kB", 10_000),
            ("5GB", 5_000_000_000),
            ("512KiB", 512 << 10),
            ("64MiB", 64 << 20),
            ("10GiB", 10 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "10", "GiB", "1.5GiB", "-1B", "10 GiB", "10G", "10gib", "0B"] {
            let problem = size(text).expect_err(text);
            assert!(problem.starts_with("expected"), "{text}: {problem}");
        }
        assert_eq!(size("99999999999TiB"), Err("that is too much".to_owned()));
    }

    #[test]
    fn none_is_a_value_of_its_own() {
        assert_eq!(size_or_none("none"), Ok(OrNone(None)));
        assert_eq!(size_or_none("1KiB"), Ok(OrNone(Some(1_024))));
        assert_eq!(age_or_none("1s"), Ok(OrNone(Some(Duration::from_secs(1)))));
        assert!(age_or_none("never").expect_err("no age").ends_with(", or none"));
    }

    #[test]
    fn moments_are_ages_or_times() {
        let at = |unix_ms| SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
        let now = at(1_800_000_000_000);
        for (text, unix_ms) in [
            ("10m", 1_799_999_400_000),
            ("1970-01-01T00:00:01Z", 1_000),
            ("2026-11-22T18:00:00.5Z", 1_795_370_400_500),
            ("2026-11-22T19:00:00+01:00", 1_795_370_400_000),
        ] {
            assert_eq!(moment_at(text, now), Ok(at(unix_ms)), "{text}");
        }
        for text in ["", "yesterday", "2026-11-22", "2026-11-22T18:00:00", "12:00"] {
            let problem = moment_at(text, now).expect_err(text);
            assert!(problem.starts_with("expected how long ago"), "{text}: {problem}");
        }
    }

    #[test]
    fn places_are_ends_offsets_or_moments() {
        for (text, start) in [
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("0", Start::Offset(0)),
            ("18446744073709551615", Start::Offset(u64::MAX)),
        ] {
            assert_eq!(offset(text), Ok(start), "{text}");
            assert_eq!(place(text), Ok(start), "{text}");
        }
        assert!(matches!(place("2026-11-22T18:00:00Z"), Ok(Start::Time(_))));
        assert!(matches!(place("5m"), Ok(Start::Time(_))));
        for text in ["", "-1", "first", "18446744073709551616"] {
            assert!(offset(text).expect_err(text).starts_with("expected earliest"), "{text}");
            assert!(place(text).expect_err(text).starts_with("expected earliest"), "{text}");
        }
    }

    #[test]
    fn names_are_checked_here() {
        assert_eq!(name("orders.v2"), Ok("orders.v2".to_owned()));
        for text in ["", "a/b", "-a", "ä"] {
            assert!(name(text).expect_err(text).starts_with("a name is 1 to 64"), "{text}");
        }
    }
}
