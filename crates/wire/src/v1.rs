//! The messages of `handfast.v1` as they stand in the `.proto` files, and with the feature `client`
//! the stubs to call a server with them.
#![cfg_attr(
    feature = "client",
    expect(
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        reason = "generated stubs spell out their paths and bring attributes of their own"
    )
)]

include!(concat!(env!("OUT_DIR"), "/v1/handfast.v1.rs"));
