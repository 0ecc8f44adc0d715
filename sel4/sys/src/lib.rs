//! The raw ABI between a user-level thread and the seL4 kernel, x86_64 only.
//!
//! - [`constants`]: numbers generated from the kernel that is built with (labels, system calls,
//!   object types, configuration);
//! - [`syscall`]: the system calls; [`invocation`]: the call of a kernel object's method; [`account`]: what such calls cost;
//! - [`message`], [`ipc_buffer`]: what a message looks like;
//! - [`bootinfo`]: what the kernel tells the root task, parsed and checked;
//! - [`abi`]: everything that differs between seL4 5.0.0 and a current kernel, and nothing else
//!   may ask for the version.
//!
//! Users take the typed layer `sel4` above this one. What must not come in here: policy,
//! allocation, and any kernel version test outside [`abi`].
//!
//! # On safety
//!
//! A system call is not `unsafe` here although a capability invocation can take memory away
//! (unmapping a frame in use, for one). Which capabilities a protection domain holds decides what it
//! can break, and no type in this crate can know that. `unsafe` marks what would break a Rust
//! rule by itself: the inline assembly and the IPC buffer's raw pointer.
#![no_std]

pub mod abi;
pub mod account;
pub mod bootinfo;
pub mod constants;
pub mod invocation;
pub mod ipc_buffer;
pub mod message;
pub mod syscall;

/// A machine word: message words, addresses and capability pointers.
pub type Word = u64;

/// The name of a capability slot, resolved by the kernel in the caller's CSpace.
pub type CPtr = Word;
