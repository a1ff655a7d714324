//! Temporary: what fails how often.
use handfast_sim::trace::Detail;
use handfast_sim::world::run;
use std::collections::BTreeMap;
#[test]
fn survey() {
    let n = |v: &str| std::env::var(v).ok().and_then(|t| t.parse::<u64>().ok());
    let seeds = n("HANDFAST_SEEDS").unwrap_or(500);
    let first = n("HANDFAST_FIRST_SEED").unwrap_or(0);
    std::panic::set_hook(Box::new(|_| {}));
    let mut kinds: BTreeMap<String, (u64, u64, String)> = BTreeMap::new();
    for seed in first..first + seeds {
        if let Err(f) = run(seed, None, Detail::Off) {
            let text: String = f.violation.to_string();
            let key: String = text
                .chars()
                .filter(|c| {
                    !c.is_ascii_digit()
                        && *c != 'a'
                        && *c != 'b'
                        && *c != 'c'
                        && *c != 'd'
                        && *c != 'e'
                        && *c != 'f'
                        && *c != '-'
                })
                .take(60)
                .collect();
            let e = kinds.entry(key).or_insert((0, seed, text));
            e.0 += 1;
        }
    }
    for (_, (count, seed, text)) in kinds {
        eprintln!("{count:>5} x seed {seed}: {}", text.chars().take(400).collect::<String>());
    }
}
