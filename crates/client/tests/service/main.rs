//! A service as a participant, on real SQLite files, on private PostgreSQL and MariaDB servers, and
//! on a store in memory.

mod bookkeeper;
mod conformance;
mod crash;
mod effect_once;
mod failing;
mod faults;
mod memory;
mod random;
mod servers;
mod sql;
mod sqlite;
mod timers;
mod world;
