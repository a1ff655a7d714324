//! Time of the core's step: what a transaction and an event cost without messages, journal and
//! threads. `cargo bench -p handfast-core --bench step`

mod world;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use world::World;

fn transactions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transactions over two services, at once");
    for count in [1, 64, 1_024] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(count.to_string(), |bencher| {
            let mut world = World::new(false);
            // The caches that a server in use has: keys up to their limit are another matter.
            world.transactions(1_024);
            bencher.iter(|| world.transactions(count));
        });
    }
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("events in one publish");
    for (what, has_subscriber) in [("published", false), ("published and delivered", true)] {
        for count in [1, 100] {
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(format!("{what}, {count}"), |bencher| {
                bencher.iter_batched_ref(
                    || World::new(has_subscriber),
                    |world| world.publish(count),
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, transactions, events);
criterion_main!(benches);
