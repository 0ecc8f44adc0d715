//! The system description: which PDs there are, which devices each may have,
//! and the layout that the root task builds for them.
//!
//! - [`model`]: the description in compiled form.
//! - [`info`]: what the root task tells each PD.
//! - [`bundle`]: the container that carries description and programs to the root task.
//! - [`layout`]: fixed places in capability and address spaces.
//! - [`pool`]: bounded pools of numbers (slots, pages, vectors).
//!
//! Neighbours: `images` compiles the user's TOML into [`model::System`],
//! `root-core` plans from it, PDs read [`info::PdInfo`].

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")
)]

pub mod bundle;
pub mod info;
pub mod layout;
pub mod model;
pub mod pool;
