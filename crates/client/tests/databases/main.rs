//! Databases as participants: a scripted server, and real private servers of PostgreSQL and
//! MariaDB.

mod bench;
#[expect(dead_code, reason = "this binary needs a part of it")]
#[path = "../network/fake.rs"]
mod fake;
mod join;
mod local;
mod proxy;
