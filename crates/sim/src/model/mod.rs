//! A tiny world whose every schedule is tried.
