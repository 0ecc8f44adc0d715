//! The user's tool behind `./x`: from a system description to a judged run.
//!
//! - [`description`]: reads and checks the TOML file, compiles it.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test may stop at the first surprise"
    )
)]

pub mod description;
