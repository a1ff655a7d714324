//! Tests of the coordinator through the machine: every pair of state and input, and the rows that
//! need more than one step.

mod admission;
mod bench;
mod rows;
mod speakers;
mod table;
