//! A second thread that does nothing but write to one address, on a core of its own: what a hostile client
//! can make of its own memory, for tests of what the kernel and the servers take away from it.

use core::cell::UnsafeCell;

use client::KernelError;
use sel4::tcb::Then;
use sel4::{CNode, CPtr, CapData, ObjectType, Tcb, TcbConfiguration, UserContext, VSpace};
use system::layout::slot;

use crate::{SeL4Platform, kernel, sel4 as refused};

/// Words of the thread's stack: its loop needs next to none.
const STACK_WORDS: usize = 64;

#[repr(align(16))]
struct Stack(UnsafeCell<[u64; STACK_WORDS]>);

// SAFETY: only the second thread touches it; here only its address is taken.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; STACK_WORDS]));

/// Counts up in the word at `address` for ever.
extern "C" fn write_for_ever(address: *mut u64) -> ! {
    let mut count = 1u64;
    loop {
        // SAFETY: none is claimed: when the page is taken away this faults, and that ends the thread.
        unsafe { address.write_volatile(count) };
        count = count.wrapping_add(1) | 1;
    }
}

/// Starts the thread on `core`, with the lowest priority and nobody to hear of its faults. Once a PD.
///
/// # Errors
/// The kernel's.
pub fn start(platform: &SeL4Platform, core: u64, address: usize) -> Result<(), KernelError> {
    let number = platform
        .driver
        .with_cspace(|cspace| cspace.retype(slot::UNTYPED as u32, ObjectType::Tcb, 1))
        .map_err(kernel("make a thread"))?;
    let thread = Tcb::at(CPtr::from(number));
    thread
        .configure(&TcbConfiguration {
            fault_endpoint: 0,
            cspace: CNode::at(slot::CNODE),
            cspace_data: CapData::NONE,
            vspace: VSpace::at(slot::VSPACE),
            ipc_buffer: None,
            authority: thread,
            priority: 0,
            max_controlled_priority: 0,
        })
        .map_err(refused("configure a thread"))?;
    thread
        .set_affinity(core)
        .map_err(refused("move a thread to another core"))?;
    let context = UserContext {
        rip: write_for_ever as *const () as u64,
        // As after a call: 8 bytes below a multiple of 16.
        rsp: STACK.0.get() as u64 + (STACK_WORDS as u64 - 1) * 8,
        rflags: 0x202,
        rdi: address as u64,
        ..UserContext::default()
    };
    thread
        .write_registers(&context, Then::Switch)
        .map_err(refused("start a thread"))
}
