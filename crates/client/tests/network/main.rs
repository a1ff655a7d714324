//! The network side against a scripted server that loses replies, cuts streams, answers late and
//! refuses. Time is the test's: what waits, waits without passing any.

mod busy;
mod connecting;
mod fake;
mod publishing;
#[cfg(feature = "sqlite")]
mod serving;
mod subscribing;
mod transactions;
