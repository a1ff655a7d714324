//! A service as a participant, on real SQLite files and on a store in memory.

mod bookkeeper;
mod conformance;
mod crash;
mod effect_once;
mod failing;
mod faults;
mod memory;
mod random;
mod sqlite;
mod timers;
mod world;
