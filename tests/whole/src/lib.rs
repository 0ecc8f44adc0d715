//! The system in one process: the cores of pci-, iommu- and msi-server, clients
//! that try everything, a machine with an IOMMU that caches all it may, and
//! the kernel's capabilities as a model.
//!
//! The cores are the ones that the servers' programs run; calls between them are
//! encoded messages. A [`World`] does one [`Action`] at a time and then holds
//! everything that was promised to clients ([`told`]) against what devices can
//! really reach and what capabilities really exist ([`rules`]).
//!
//! Two programs in `tests/` drive it: random schedules of a seed, with effects that
//! the kernel refuses, and every schedule of a small world (model checking).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test library: it stops at the first surprise"
)]

pub mod above;
pub mod action;
pub mod below;
mod boot;
pub mod calls;
pub mod caps;
pub mod digest;
pub mod hardware;
pub mod kernel;
pub mod mortal;
mod reconcile;
pub mod rules;
pub mod setting;
pub mod shape;
pub mod told;
mod unsure;
pub mod world;

pub use action::Action;
pub use mortal::Mortal;
pub use setting::{Flaw, Setting, Store};
pub use world::World;
