//! Real servers, one of each kind for all tests that need nothing special, started when the first
//! test asks and ended with this process. Tests are named after the rows of the specification.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

mod mariadb;
mod postgres;
mod seam;
mod servers;
