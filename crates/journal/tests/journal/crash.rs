//! Power cuts: every image of a random history opens, with everything that was acknowledged and
//! nothing that was not sent (I5, I16).

use std::sync::{Arc, Mutex};

use crate::support::history::run;

/// Images at every sync of random histories: what was synced, everything, and random parts; and
/// every sync of the openings of those images, too.
#[test]
fn every_image_of_a_history_opens() {
    let images = Arc::new(Mutex::new(0));
    for seed in 0..30 {
        let count = images.clone();
        let mut sync = 0u64;
        run(seed, 60, move |snapshot, model| {
            sync += 1;
            let seed = seed * 1_000_000 + sync * 100;
            model.check(snapshot.synced_only(), seed, 0, &count);
            model.check(snapshot.everything(), seed, 0, &count);
            for i in 0..4 {
                model.check(snapshot.random(seed + i), seed + i, u32::from(i == 0), &count);
            }
        });
    }
    let images = *images.lock().unwrap();
    assert!(images > 20_000, "only {images} images");
}

/// A crash while a crash is recovered from, twice over.
#[test]
fn recovery_may_be_cut_off_again_and_again() {
    let images = Arc::new(Mutex::new(0));
    for seed in 100..104 {
        let count = images.clone();
        let mut sync = 0u64;
        run(seed, 25, move |snapshot, model| {
            sync += 1;
            let seed = seed * 1_000_000 + sync * 100;
            model.check(snapshot.random(seed), seed, 2, &count);
        });
    }
}

/// What a process that was killed leaves is everything that was written.
#[test]
fn a_killed_process_loses_nothing() {
    for seed in 200..220 {
        let (disk, model) = run(seed, 80, |_, _| {});
        let image = disk.snapshot().everything();
        model.check(image, seed, 1, &Mutex::new(0));
    }
}
