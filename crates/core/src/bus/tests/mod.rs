//! The rules of the bus, one by one and under random schedules.

mod attempts;
mod dead;
mod deliver;
mod gap;
mod lease;
mod log;
mod model;
mod pace;
mod publish;
mod random;
mod seek;
mod stage;
mod topics;
mod world;
