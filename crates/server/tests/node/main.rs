//! The node without its doors, inside the test: every crash image, and housekeeping.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clock;
mod crash_images;
mod damage;
mod overload;
mod reserved;
mod retention;
mod room;
mod support;
