//! Generators for seL4 on x86-64: from a kernel's own interface files to the
//! C headers that compile it and the Rust constants that talk to it.
//!
//! A host library without side effects: it reads files it is given and returns
//! text. `images` builds the kernel with it; `sel4-sys` includes the constants.
//! [`unfit`] says beforehand what an installed kernel lacks.
//!
//! # The constants file
//!
//! One Rust file for one kernel and one configuration, meant for
//! `include!` inside a module. It holds no inner attributes and every item has
//! a doc comment. All label, object, size and configuration numbers are `u64`,
//! system call numbers are `i64`.
//!
//! ```text
//! // sel4-constants: abi=v5 version=5.0.0 smp=no mcs=no debug=yes
//! pub const KERNEL_VERSION: &str = "5.0.0";
//! pub const ABI: &str = "v5";                 // or "modern"
//! pub const ABI_FINGERPRINT: u64 = 0x...;     // hash of all that follows
//! pub mod label   { pub const UNTYPED_RETYPE: u64 = 1; /* ... */
//!                   pub mod opt { pub const TCB_SET_AFFINITY: Option<u64> = None; /* ... */ } }
//! pub mod syscall { pub const CALL: i64 = -1; /* ... */
//!                   pub mod opt { pub const DEBUG_PUT_CHAR: Option<i64> = Some(-9); /* ... */ } }
//! pub mod object  { pub const UNTYPED: u64 = 0; /* ... */ pub mod opt { /* ... */ } }
//! pub mod bits    { pub const TCB: u64 = 11; /* ... */ }
//! pub mod config  { pub const MAX_NUM_NODES: u64 = 1; pub const DEBUG_BUILD: bool = true; /* ... */ }
//! ```
//!
//! - A module itself holds exactly what this kernel has; its `opt` holds every
//!   name that depends on the configuration, as an `Option`, so that common code
//!   compiles for each of them.
//! - Names are the interface's own in screaming snake case: method id
//!   `X86PageMapIO` is `label::X86_PAGE_MAP_IO`, system call `NBRecv` is `syscall::NB_RECV`.
//! - `object`: `UNTYPED TCB ENDPOINT NOTIFICATION CNODE PDPT PML4 HUGE_PAGE PAGE_4K
//!   LARGE_PAGE PAGE_TABLE PAGE_DIRECTORY IO_PAGE_TABLE` (and `SCHED_CONTEXT REPLY` with MCS);
//!   `bits` has the log2 size in bytes of each fixed-size one, `SLOT` for a capability slot.
//! - The first line is for build scripts: space-separated `key=value` pairs after `sel4-constants:`.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")
)]

pub mod bitfield;
mod condition;
mod config;
mod constants;
mod error;
mod fitness;
mod interface;
mod labels;
mod names;
mod objects;
mod syscalls;

pub use condition::{Comparison, Condition};
pub use config::{Config, Value};
pub use constants::{Facts, constants};
pub use error::Error;
pub use fitness::{IommuDriver, Needs, Unfit, unfit, unfit_configuration};
pub use interface::{Abi, Entry, KernelInterface};
pub use labels::{InterfaceXml, Labels, XmlFile};
pub use names::screaming_snake;
pub use objects::{object_bits, object_types};
pub use syscalls::Syscalls;
