//! Appends that are lost or unknown.
