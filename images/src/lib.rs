//! The user's tool behind `./x`: from a system description to a judged run.
//!
//! In the order of a run:
//!
//! - [`description`]: reads and checks the TOML file, compiles it.
//! - [`kernel`]: builds seL4. [`programs`]: builds root task, servers and clients for it.
//! - [`pack`] (with [`elf`]): bundle and image. [`disk`]: the machine's disks. [`build`]: all of these.
//! - [`qemu`]: boots it. [`transcript`]: the lines that it prints.
//! - [`judge`]: from those lines and the description's demands to a verdict.
//! - [`report`] (with [`symbols`]): the verdict for machines and for people.
//! - [`bench`]: the benchmark's figures, beside goals and peers.
//! - [`peers`]: the peers' figures, measured on the same machine.
//! - [`commands`]: what the command line offers, made of the above.
//! - [`workspace`], [`ui`], [`error`]: where things are, progress, what can go wrong.
//!
//! It knows the description's compiled form (`portcullis-system`) and the
//! kernel's generators (`sel4-gen`), never seL4's bindings or a server's core.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test may stop at the first surprise"
    )
)]

pub mod bench;
pub mod build;
pub mod commands;
pub mod description;
pub mod disk;
pub mod dump;
pub mod elf;
pub mod error;
pub mod host;
pub mod judge;
pub mod kernel;
pub mod pack;
pub mod peers;
pub mod programs;
pub mod qemu;
pub mod qmp;
pub mod report;
pub mod symbols;
pub mod topology;
pub mod transcript;
pub mod ui;
pub mod workspace;
