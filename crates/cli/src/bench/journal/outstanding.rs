//! Two threads and so many submissions between them: one submits, and submits again for each that
//! is durable; the other writes as one group what has gathered while it wrote the group before.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::bench::latency::Latencies;
use crate::harness::PartError;

/// What was done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) records: u64,
    pub(super) groups: u64,
    pub(super) seconds: f64,
    /// From submitting to knowing that it is durable.
    pub(super) latencies: Latencies,
}

/// Runs for a time that counts after one that does not.
pub(super) fn run<T: Send>(
    outstanding: u32,
    warm_up: Duration,
    time: Duration,
    mut write: impl FnMut(Vec<T>) -> Result<(), PartError> + Send,
    mut make: impl FnMut(u64) -> T,
) -> Result<Done, PartError> {
    let (submit, submitted): (Sender<(Instant, T)>, Receiver<_>) = channel();
    let (tell, durable) = channel::<Vec<Instant>>();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<(), PartError> {
            while let Ok(first) = submitted.recv() {
                let mut group = vec![first];
                group.extend(submitted.try_iter());
                let (times, records) = group.into_iter().unzip();
                write(records)?;
                if tell.send(times).is_err() {
                    break;
                }
            }
            Ok(())
        });
        let mut number = 0;
        let mut next = |count: usize| {
            for _ in 0..count {
                // Fails only if the writer has: its own error is told below.
                drop(submit.send((Instant::now(), make(number))));
                number += 1;
            }
        };
        let from = Instant::now() + warm_up;
        let to = from + time;
        let mut done = Done { records: 0, groups: 0, seconds: 0.0, latencies: Latencies::new() };
        next(outstanding as usize);
        while let Ok(times) = durable.recv() {
            let now = Instant::now();
            if now >= to {
                break;
            }
            if now >= from {
                done.groups += 1;
                done.records += times.len() as u64;
                times.iter().for_each(|time| done.latencies.record(now - *time));
            }
            next(times.len());
        }
        done.seconds = time.as_secs_f64();
        drop(submit);
        drop(durable);
        writer.join().map_err(|_| "the writer panicked")??;
        Ok(done)
    })
}
