//! What the root task decides, without the kernel: the plan from the machine
//! and the system description to objects and capabilities, and the supervisor.
//!
//! | Module | What it knows |
//! |---|---|
//! | [`region`] | sets of physical address ranges |
//! | [`facts`] | what the boot found: untypeds, cores, host bridges, units |
//! | [`policy`] | what is wrong with a description on this machine |
//! | [`shards`] | which pci-server shard has which buses and which memory windows |
//! | [`aml`] | what AML tables declare of host bridges, without running them |
//! | [`room`] | which shard gets the addresses that nobody decodes yet |
//! | [`units`] | remapping units and reserved regions, with their devices in numbers |
//! | [`carve`] | how to cut exact ranges out of device untypeds |
//! | [`memory`] | blocks of RAM for kernel objects, slots of the root CNode |
//! | [`image`] | a program's ELF, checked: segments, pages, entry |
//! | [`objects`] | the kernel objects of one PD, and the block of memory that holds them |
//! | [`plan`] | every PD: its address space, its CSpace, its information |
//! | [`distribution`] | who can reach whom, computed from the plan and held against the rules |
//! | [`medic`] | what becomes of a server shard that dies: restarted, or given up |
//! | [`supervisor`] | faults, exits, the order in which a dead PD is taken down, the end of a run |
//!
//! The binary `root-task` finds the facts and carries the plan out; it makes no
//! choice of its own. The plan is computed once at boot and may allocate; the
//! supervisor, which runs for ever, has a place for every PD from the start and
//! allocates nothing.

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

extern crate alloc;

pub mod aml;
pub mod carve;
pub mod distribution;
pub mod facts;
pub mod image;
pub mod medic;
pub mod memory;
pub mod objects;
pub mod plan;
pub mod policy;
pub mod region;
pub mod room;
pub mod shards;
pub mod supervisor;
pub mod units;
