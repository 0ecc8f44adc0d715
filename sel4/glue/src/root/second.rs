//! [`Second`]: the root task's second thread. It runs on the same core as the first and above it, so that the first stands
//! still while it works, wherever it is; it must never wait for anything but its own desk, and never allocate.

use core::cell::UnsafeCell;
use core::ptr;

use sel4::bootinfo::slot;
use sel4::tcb::Then;
use sel4::{
    BootInfo, CNode, CapData, Endpoint, Frame, IpcBuffer, Notification, Result, Tcb,
    TcbConfiguration, UserContext, VSpace,
};

use super::Desk;

/// Memory for the thread's stack.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Stack<const BYTES: usize>(UnsafeCell<[u8; BYTES]>);

// SAFETY: only the processor's stack pointer refers to it.
unsafe impl<const BYTES: usize> Sync for Stack<BYTES> {}

impl<const BYTES: usize> Stack<BYTES> {
    /// A stack of zeros.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; BYTES]))
    }

    fn top(&'static self) -> u64 {
        (self.0.get().addr() + BYTES) as u64 & !0xf
    }
}

impl<const BYTES: usize> Default for Stack<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

/// Addresses of the IPC buffers of both threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffers {
    first: u64,
    second: u64,
}

/// The buffer at an address.
fn buffer(address: u64) -> *mut IpcBuffer {
    ptr::with_exposed_provenance_mut(address as usize)
}

impl Buffers {
    /// Waits in `wait`, meanwhile with the first thread's buffer as the one that is used.
    pub(super) fn lent<R>(&self, wait: impl FnOnce() -> R) -> R {
        // SAFETY: the second thread calls this, with both buffers mapped for good. 1. From here until it waits, and
        // from when it no longer waits, the first thread, which is below it on the same core, does not run; 2. while it
        // waits it touches no buffer itself; so each runs with its own.
        unsafe { sel4::init_ipc_buffer(buffer(self.first)) };
        let result = wait();
        // SAFETY: as above.
        unsafe { sel4::init_ipc_buffer(buffer(self.second)) };
        result
    }
}

/// What the second thread is made of.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// Its thread object.
    pub tcb: Tcb,
    /// Its IPC buffer, and where that is mapped ([`super::Space::page`]).
    pub buffer: (Frame, u64),
    /// Its priority: above the first thread's.
    pub priority: u8,
    /// What arrives at its desk as events.
    pub events: Notification,
}

impl Second {
    /// The thread's desk.
    #[must_use]
    pub fn desk(&self, boot: &BootInfo<'_>, endpoint: Endpoint) -> Desk {
        Desk::of_second(
            endpoint,
            Buffers {
                first: boot.ipc_buffer,
                second: self.buffer.1,
            },
        )
    }

    /// Starts the thread: it calls `main` with `state`, on the core of the first thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start<T: Send, const BYTES: usize>(
        &self,
        stack: &'static Stack<BYTES>,
        state: &'static mut T,
        main: fn(&'static mut T) -> !,
    ) -> Result {
        let (frame, address) = self.buffer;
        self.tcb.configure(&TcbConfiguration {
            // Nobody could restart it.
            fault_endpoint: 0,
            cspace: CNode::at(slot::CNODE),
            cspace_data: CapData::NONE,
            vspace: VSpace::at(slot::VSPACE),
            ipc_buffer: Some((address, frame)),
            authority: Tcb::at(slot::TCB),
            priority: self.priority,
            max_controlled_priority: self.priority,
        })?;
        self.tcb.bind_notification(self.events)?;
        self.tcb
            .write_registers(&begin(stack, state, main), Then::Switch)
    }
}

/// The registers with which a thread begins that calls `main` with `state`.
pub(super) fn begin<T: Send, const BYTES: usize>(
    stack: &'static Stack<BYTES>,
    state: &'static mut T,
    main: fn(&'static mut T) -> !,
) -> UserContext {
    UserContext {
        rip: entry::<T> as *const () as u64,
        // As if `entry` had been called: its return address would be here.
        rsp: stack.top() - 8,
        rdi: ptr::from_mut(state).expose_provenance() as u64,
        rsi: main as *const () as u64,
        ..UserContext::default()
    }
}

/// Where a thread begins.
#[expect(
    improper_ctypes_definitions,
    reason = "this program is on both sides: a function is a pointer in a register"
)]
extern "C" fn entry<T>(state: *mut T, main: fn(&'static mut T) -> !) -> ! {
    // SAFETY: `begin` was given the only reference to it, for ever, and has let go of it.
    main(unsafe { &mut *state })
}
