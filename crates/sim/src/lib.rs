//! The deterministic simulator of handfast: the real transition code of `handfast-core` in a world
//! where the network, the disk, the databases, the services and time are values.
//!
//! * [`world`]: one server, services, clients, subscribers, publishers and databases, driven by
//!   one seed. Every run ends in healing: faults stop, time runs, everything has to finish.
//! * [`invariants`]: one checker per invariant of the specification, fed with what happens.
//! * [`fault`]: bugs that are planted at the edge of the world, to prove that the checkers see.
//! * [`model`]: a tiny world whose every schedule is tried.
//! * [`cluster`]: appends that are lost or unknown, which one machine alone never sees.
//! * [`rows`]: which rows of the protocol a run has gone through.
//!
//! There is no clock, no sleep, no thread and no other source of randomness than the seed in here.

pub mod cluster;
pub mod fault;
pub mod invariants;
pub mod model;
pub mod rng;
pub mod rows;
pub mod trace;
pub mod world;
