//! What the two small services do: the timer ([`timer`]) and the console ([`console`]).
//!
//! Both are pure: the timer drives its hardware through `hw::Mmio`, the console through [`console::Ports`],
//! and both are tested on the host. Neighbours: the binaries `timer` and `console`, which join them with
//! the kernel.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a test may stop at the first surprise"
    )
)]

pub mod console;
pub mod timer;

/// Most PDs that a service serves.
pub const MAX_PDS: usize = 64;
