//! [`Below`]: a thread of the root task below its first one, for kernel calls that take long and that nobody waits for.
//! Whatever the first thread and the servers have to do comes before them.

use sel4::bootinfo::slot;
use sel4::tcb::Then;
use sel4::{CNode, CapData, Notification, Result, Tcb, TcbConfiguration, VSpace};

use super::second::{Stack, begin};

/// What such a thread is made of. It must never allocate, and has no IPC buffer: it makes only kernel calls whose
/// words fit registers and that take no capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Below {
    /// Its thread object.
    pub tcb: Tcb,
    /// What it waits for.
    pub events: Notification,
}

impl Below {
    /// Starts the thread: it calls `main` with `state`, on the core of the first thread, at this priority, which is below
    /// the first thread's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start<T: Send, const BYTES: usize>(
        &self,
        priority: u8,
        stack: &'static Stack<BYTES>,
        state: &'static mut T,
        main: fn(&'static mut T) -> !,
    ) -> Result {
        self.tcb.configure(&TcbConfiguration {
            // Nobody could restart it.
            fault_endpoint: 0,
            cspace: CNode::at(slot::CNODE),
            cspace_data: CapData::NONE,
            vspace: VSpace::at(slot::VSPACE),
            ipc_buffer: None,
            authority: Tcb::at(slot::TCB),
            priority,
            max_controlled_priority: priority,
        })?;
        self.tcb
            .write_registers(&begin(stack, state, main), Then::Switch)
    }

    /// Changes the thread's priority.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_priority(&self, priority: u8) -> Result {
        self.tcb.set_priority(Tcb::at(slot::TCB), priority)
    }
}
