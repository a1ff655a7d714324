//! Instructions of the core's step, counted by Valgrind: the same on every machine, however busy.
//! `./crates/core/benches/instructions.py` runs it and compares with what is kept.
#![expect(missing_docs, reason = "the macros make items that nobody calls by name")]

mod world;

use gungraun::{library_benchmark, library_benchmark_group, main};

use world::World;

/// A world that has done some work, so that its tables have their size.
fn warm(has_subscriber: bool) -> World {
    let mut world = World::new(has_subscriber);
    world.transactions(256);
    world
}

#[library_benchmark(setup = warm)]
#[bench::one(false)]
fn transaction(mut world: World) -> World {
    world.transactions(1);
    world
}

#[library_benchmark(setup = warm)]
#[bench::batch(false)]
fn transactions_64(mut world: World) -> World {
    world.transactions(64);
    world
}

#[library_benchmark(setup = warm)]
#[bench::one(false)]
fn publish(mut world: World) -> World {
    world.publish(1);
    world
}

#[library_benchmark(setup = warm)]
#[bench::one(true)]
fn publish_and_deliver(mut world: World) -> World {
    world.publish(1);
    world
}

#[library_benchmark(setup = warm)]
#[bench::batch(true)]
fn publish_and_deliver_1000(mut world: World) -> World {
    world.publish(1_000);
    world
}

library_benchmark_group!(
    name = steps;
    benchmarks =
        transaction, transactions_64, publish, publish_and_deliver, publish_and_deliver_1000
);
main!(library_benchmark_groups = steps);
