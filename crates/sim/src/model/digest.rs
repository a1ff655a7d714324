//! A canonical digest of a value's debug text: the order of what stands in braces (fields, sets,
//! maps) does not count, because hash tables print in any order; lists and tuples keep theirs.
//! Fields that only people read are left out, so that states that behave alike are one state.

/// Fields that nothing in the protocol is decided by.
const IGNORED: &[&str] = &[
    "now:",
    "sends:",
    "voted_ms:",
    "requests:",
    "request:",
    "finished_ms:",
    "wall_ms:",
    "begun_ms:",
    "since_wall_ms:",
    "counters:",
    "appended_bytes:",
    "instance:",
    "turn:",
];

/// The digest of a debug text.
#[must_use]
pub fn digest(text: &str) -> u64 {
    let mut at = 0;
    group(text.as_bytes(), &mut at, false)
}

/// Hashes items up to the closing bracket.
fn group(text: &[u8], at: &mut usize, unordered: bool) -> u64 {
    let mut all: u64 = 0x51_7C_C1_B7;
    loop {
        let start = *at;
        let (item, closed) = item(text, at);
        if !is_ignored(&text[start..*at]) {
            all = if unordered {
                all.wrapping_add(crate::rng::mix(item))
            } else {
                crate::rng::mix(all ^ item).wrapping_mul(3)
            };
        }
        if closed {
            return all;
        }
    }
}

/// Hashes one item, up to and over the comma or the bracket behind it; true for a bracket.
fn item(text: &[u8], at: &mut usize) -> (u64, bool) {
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
    let mut add = |byte: u64| hash = (hash ^ byte).wrapping_mul(0x0000_0100_0000_01B3);
    while let Some(byte) = text.get(*at) {
        *at += 1;
        match byte {
            b'{' => add(group(text, at, true)),
            b'[' | b'(' => add(group(text, at, false)),
            b'}' | b']' | b')' => return (hash, true),
            b',' => return (hash, false),
            b'"' => {
                add(u64::from(b'"'));
                while let Some(byte) = text.get(*at) {
                    *at += 1;
                    add(u64::from(*byte));
                    match byte {
                        b'\\' => *at += 1,
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b' ' => {}
            byte => add(u64::from(*byte)),
        }
    }
    (hash, true)
}

fn is_ignored(item: &[u8]) -> bool {
    let item = item.trim_ascii_start();
    IGNORED.iter().any(|field| item.starts_with(field.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn order_counts_in_lists_only() {
        assert_eq!(digest("A { x: 1, y: {2: 3, 4: 5} }"), digest("A { y: {4: 5, 2: 3}, x: 1 }"));
        assert_ne!(digest("[1, 2]"), digest("[2, 1]"));
        assert_ne!(digest("{1, 2}"), digest("{1, 3}"));
        assert_ne!(digest("A { x: \"a, b\" }"), digest("A { x: \"b, a\" }"));
        assert_eq!(digest("A { x: 1, sends: 4 }"), digest("A { x: 1, sends: 5 }"));
        assert_ne!(digest("A { x: [1], z: 2 }"), digest("A { x: [1, 2], z: 2 }"));
    }
}
