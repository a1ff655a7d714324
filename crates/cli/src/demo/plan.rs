//! What is to be transferred: from a seed, or from a person's file. Decided before anything
//! starts, and not changed afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use handfast_server::text;
use serde::{Deserialize, Serialize};

use crate::harness::Random;

/// Accounts on each side when the transfers come from a seed.
const ACCOUNTS: u64 = 100;
/// What each of those starts with, in cents.
const START: i64 = 50_000;
/// What each account of a person's file starts with, in cents.
const START_OF_INPUT: i64 = 10_000;
/// Amounts that are meant to succeed, in cents.
const AMOUNTS: (i64, i64) = (100, 5_000);
/// Of a hundred transfers, so many ask for more than there is.
const IMPOSSIBLE_PERCENT: u64 = 12;
/// The largest amount of a file, in cents: sums of them stay far from the limits of an integer.
const MOST_CENTS: i64 = 1_000_000_000_000;
/// The longest name of an account, in bytes.
const NAME_BYTES: usize = 100;

/// The service that keeps an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    East,
    West,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::East, Self::West];

    /// The service's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::East => "east",
            Self::West => "west",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An account before the first transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) side: Side,
    pub(crate) start: i64,
}

/// One transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// From 1, without holes.
    pub(crate) number: u32,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) cents: i64,
}

/// Everything that is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) transfers: Vec<Transfer>,
}

impl Plan {
    /// Transfers between the two services in turn; some of them ask for more than there is.
    pub(crate) fn from_seed(seed: u64, count: u32) -> Self {
        let mut plan = Self::default();
        for side in Side::BOTH {
            for number in 1..=ACCOUNTS {
                plan.accounts.insert(format!("{side}-{number:04}"), Account { side, start: START });
            }
        }
        let all = plan.money();
        let mut random = Random::new(seed);
        let mut any_impossible = false;
        for number in 1..=count {
            let (from, to) =
                if number % 2 == 1 { (Side::East, Side::West) } else { (Side::West, Side::East) };
            let account = |side: Side, random: &mut Random| {
                format!("{side}-{:04}", 1 + random.below(ACCOUNTS))
            };
            let (from, to) = (account(from, &mut random), account(to, &mut random));
            let (least, most) = AMOUNTS;
            let mut cents = least + random.below((most - least + 1).unsigned_abs()).cast_signed();
            let must_one = !any_impossible && number == count && count > 1;
            if random.below(100) < IMPOSSIBLE_PERCENT || must_one {
                cents += all;
                any_impossible = true;
            }
            plan.transfers.push(Transfer { number, from, to, cents });
        }
        plan
    }

    /// Reads a file with the columns from, to, cents. Says which line is wrong, and how.
    ///
    /// An account whose name is `east` or `west`, or starts with `east-` or `west-`, is kept by
    /// that service; the others alternate in the order in which they are first named.
    pub(crate) fn from_csv(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::read(&text).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let text = text::whole(bytes).map_err(|problem| problem.to_string())?.as_bytes();
        if let Some(line) = open_quote(text) {
            return Err(format!("line {line}: a quotation mark is not closed"));
        }
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let headers = reader.headers().map_err(|error| problem(text, &error))?.clone();
        let [from, to, cents] = columns(&headers)?;
        let mut plan = Self::default();
        let mut others = 0_usize;
        for row in reader.records() {
            let row = row.map_err(|error| problem(text, &error))?;
            let field = |at: usize| row.get(at).unwrap_or_default();
            let wrong = |what: String| format!("line {}: {what}", line(text, row.position()));
            for (name, account) in [("from", field(from)), ("to", field(to))] {
                if account.is_empty() || account.len() > NAME_BYTES {
                    let what = format!("`{name}` names an account, in 1 to {NAME_BYTES} bytes");
                    return Err(wrong(what));
                }
                if account.chars().any(char::is_control) {
                    return Err(wrong(format!("`{name}` has a control character: {account:?}")));
                }
            }
            if field(from) == field(to) {
                return Err(wrong(format!("`from` and `to` are both {:?}", field(from))));
            }
            let amount = field(cents).parse().ok();
            let Some(amount) = amount.filter(|cents| (1..=MOST_CENTS).contains(cents)) else {
                let given = field(cents);
                let what =
                    format!("`cents` is a whole number from 1 to {MOST_CENTS}, not {given:?}");
                return Err(wrong(what));
            };
            let number = u32::try_from(plan.transfers.len() + 1)
                .map_err(|_| wrong("there are too many transfers".to_owned()))?;
            for account in [field(from), field(to)] {
                plan.open(account, &mut others);
            }
            let (from, to) = (field(from).to_owned(), field(to).to_owned());
            plan.transfers.push(Transfer { number, from, to, cents: amount });
        }
        if plan.transfers.is_empty() {
            return Err("it has no transfers: each line after the first is one".to_owned());
        }
        Ok(plan)
    }

    fn open(&mut self, name: &str, others: &mut usize) {
        if self.accounts.contains_key(name) {
            return;
        }
        let prefix = name.split('-').next().unwrap_or_default();
        let named = Side::BOTH.into_iter().find(|side| side.name().eq_ignore_ascii_case(prefix));
        let side = named.unwrap_or_else(|| {
            *others += 1;
            Side::BOTH[(*others - 1) % 2]
        });
        self.accounts.insert(name.to_owned(), Account { side, start: START_OF_INPUT });
    }

    /// All the money there is, in cents.
    pub(crate) fn money(&self) -> i64 {
        self.accounts.values().map(|account| account.start).sum()
    }
}

/// Where the columns from, to and cents are. Each is there once; others may be there and are not
/// read, but have names of their own too.
fn columns(headers: &csv::StringRecord) -> Result<[usize; 3], String> {
    let found: Vec<&str> = headers.iter().collect();
    let mut places = ["from", "to", "cents"].map(|name| found.iter().position(|h| *h == name));
    let [Some(from), Some(to), Some(cents)] = &mut places else {
        let found = found.join(",");
        return Err(format!("line 1: the columns are from,to,cents, not {found:?}"));
    };
    for (at, name) in found.iter().enumerate() {
        if name.is_empty() {
            return Err(format!("line 1: column {} has no name", at + 1));
        }
        if found[..at].contains(name) {
            return Err(format!("line 1: the column {name:?} is there twice"));
        }
    }
    Ok([*from, *to, *cents])
}

/// The line of a quotation mark that begins a field and is closed by none. What follows it, to the
/// end of the file, would be one field.
fn open_quote(text: &[u8]) -> Option<usize> {
    let (mut line, mut opened, mut starts_field) = (1, None, true);
    for byte in text {
        match (byte, opened) {
            // A doubled one inside a field closes it and opens it again.
            (b'"', Some(_)) => (opened, starts_field) = (None, true),
            (b'"', None) if starts_field => opened = Some(line),
            (byte, None) => starts_field = matches!(byte, b',' | b'\n' | b'\r'),
            (_, Some(_)) => {}
        }
        line += usize::from(*byte == b'\n');
    }
    opened
}

fn problem(text: &[u8], error: &csv::Error) -> String {
    let line = line(text, error.position());
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("line {line}: {len} columns instead of {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => format!("line {line}: it is not UTF-8"),
        _ => format!("line {line}: {error}"),
    }
}

/// The line of a row, from 1. Its position is where the row before it ended; empty lines are
/// skipped after that.
fn line(text: &[u8], position: Option<&csv::Position>) -> usize {
    let at = position.map_or(0, |at| usize::try_from(at.byte()).unwrap_or(usize::MAX));
    let (before, after) = text.split_at(at.min(text.len()));
    let skipped = after.iter().take_while(|byte| matches!(byte, b'\n' | b'\r'));
    1 + before.iter().chain(skipped).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_some_of_it_is_impossible() {
        let plan = Plan::from_seed(7, 2_000);
        assert_eq!(plan, Plan::from_seed(7, 2_000));
        assert_ne!(plan, Plan::from_seed(8, 2_000));
        let impossible = plan.transfers.iter().filter(|t| t.cents > plan.money()).count();
        assert!((160..=320).contains(&impossible), "{impossible} of 2,000");
        for transfer in &plan.transfers {
            assert_ne!(plan.accounts[&transfer.from].side, plan.accounts[&transfer.to].side);
        }
        for seed in 0..50 {
            let plan = Plan::from_seed(seed, 3);
            assert!(plan.transfers.iter().any(|t| t.cents > plan.money()), "seed {seed}");
        }
    }

    #[test]
    fn a_file_is_a_plan() {
        let text = "to,from,cents\nwest-1,east-1,100\n\"b, c\",a,5\nb,a,7\nEAST-9, west ,1\n";
        let plan = Plan::read(text.as_bytes()).expect("it is well-formed");
        let sides: Vec<_> = plan.accounts.iter().map(|(n, a)| (n.as_str(), a.side)).collect();
        assert_eq!(
            sides,
            [
                ("EAST-9", Side::East),
                ("a", Side::East),
                ("b", Side::East),
                ("b, c", Side::West),
                ("east-1", Side::East),
                ("west", Side::West),
                ("west-1", Side::West),
            ]
        );
        assert_eq!(plan.transfers.len(), 4);
        assert_eq!(plan.transfers[1].to, "b, c");
        assert_eq!(plan.transfers[3].number, 4);
        assert_eq!(plan.money(), 7 * START_OF_INPUT);
    }

    /// K6: what a spreadsheet on another system writes is the same plan.
    #[test]
    fn a_file_of_another_system_is_the_same_plan() {
        let plan = Plan::read(b"from,to,cents\na,b,1\nb,\"a\",2\n").expect("it is well-formed");
        for text in [
            "\u{feff}from,to,cents\r\na,b,1\r\nb,\"a\",2\r\n",
            "from,to,cents\r\n\r\na,b,1\r\nb,a,2",
            " from , to , cents \n a , b , 1\nb,a,2\n",
            "from,note,to,cents\na,\"x, \"\"y\"\"\",b,1\nb,,a,2\n",
        ] {
            assert_eq!(Plan::read(text.as_bytes()).as_ref(), Ok(&plan), "{text:?}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, wanted) in [
            ("", "line 1: the columns are"),
            ("from,to\na,b\n", "line 1: the columns are from,to,cents, not \"from,to\""),
            ("from,to,cents\n", "it has no transfers"),
            ("from,to,cents\na,b,1\na,b\n", "line 3: 2 columns instead of 3"),
            ("from,to,cents\na,b,1.50\n", "line 2: `cents` is a whole number"),
            ("from,to,cents\na,b,0\n", "line 2: `cents`"),
            ("from,to,cents\na,b,-4\n", "line 2: `cents`"),
            ("from,to,cents\na,b,99999999999999999999\n", "line 2: `cents`"),
            ("from,to,cents\na,b,1\n\na,a,1\n", "line 4: `from` and `to` are both \"a\""),
            ("from,to,cents\n,b,1\n", "line 2: `from` names an account"),
            ("from,to,cents,cents\na,b,1,2\n", "line 1: the column \"cents\" is there twice"),
            ("from,note,to,note,cents\na,,b,,1\n", "line 1: the column \"note\" is there twice"),
            ("from,to,cents,\na,b,1,\n", "line 1: column 4 has no name"),
            ("From,To,Cents\na,b,1\n", "line 1: the columns are from,to,cents, not"),
            ("from,to,cents\r\na,b,1\r\na\0,b,1\r\n", "line 3: it has a zero byte"),
            ("from,to,cents\na,b,1\n\"a\tx\",b,1\n", "line 3: `from` has a control character"),
            ("from,to,cents\na,b,1\n\"a,b,1\nc,d,2\n", "line 3: a quotation mark is not closed"),
            ("from,to,cents\ra,b,1\r", "line 1: it has a carriage return"),
        ] {
            let problem = Plan::read(text.as_bytes()).expect_err(text);
            assert!(problem.starts_with(wanted), "{text:?}: {problem}");
        }
        let problem = Plan::read(b"from,to,cents\n\xff,b,1\n").expect_err("no text");
        assert!(problem.starts_with("line 2: it is not UTF-8"), "{problem}");
    }
}
