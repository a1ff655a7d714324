//! The messages of `handfast.v1` that carry events, with each event as its encoded bytes, and
//! stubs that use them (features `client` and `server`). Messages without events are those of
//! [`crate::v1`]. The event itself has its attributes as a list. Both encode to the same bytes.
#![cfg_attr(
    any(feature = "client", feature = "server"),
    expect(
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        reason = "generated stubs spell out their paths and bring attributes of their own"
    )
)]
#![cfg_attr(
    feature = "server",
    expect(clippy::allow_attributes, reason = "generated stubs bring attributes of their own")
)]

include!(concat!(env!("OUT_DIR"), "/raw/handfast.v1.rs"));
