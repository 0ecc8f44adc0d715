//! Registers of a VT-d unit: where they are and what their bits mean.
//! Section numbers are of the Intel VT-d specification, revision 3.0.

use hw::Mmio;

/// Offsets in bytes from the unit's base (10.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Register {
    /// Version, 32 bits (10.4.1).
    Version = 0x00,
    /// Capabilities, 64 bits (10.4.2); see [`super::capability`].
    Capability = 0x08,
    /// Extended capabilities, 64 bits (10.4.3).
    ExtendedCapability = 0x10,
    /// Global command, 32 bits, write only (10.4.4); bits in [`global`].
    GlobalCommand = 0x18,
    /// Global status, 32 bits (10.4.5).
    GlobalStatus = 0x1c,
    /// Root table address, 64 bits (10.4.6).
    RootTable = 0x20,
    /// Fault status, 32 bits (10.4.9); bits in [`fault_status`].
    FaultStatus = 0x34,
    /// Fault event control, 32 bits (10.4.10); bits in [`fault_control`].
    FaultControl = 0x38,
    /// Message data of the fault event, 32 bits (10.4.11).
    FaultData = 0x3c,
    /// Message address of the fault event, 32 bits (10.4.12).
    FaultAddress = 0x40,
    /// Upper half of it, 32 bits (10.4.13).
    FaultUpperAddress = 0x44,
    /// Protected memory enable, 32 bits (10.4.16); bits in [`protected_memory`].
    ProtectedMemory = 0x64,
    /// Invalidation queue head, 64 bits (10.4.21).
    QueueHead = 0x80,
    /// Invalidation queue tail, 64 bits (10.4.22).
    QueueTail = 0x88,
    /// Invalidation queue address, 64 bits (10.4.23).
    QueueAddress = 0x90,
    /// Interrupt remapping table, 64 bits (10.4.29): address; bits 0..=3 its size, 2^(this + 1) entries.
    InterruptTable = 0xb8,
}

/// Bits of the global command and status registers; the same place in both.
pub mod global {
    /// Translation enabled.
    pub const TRANSLATION: u32 = 1 << 31;
    /// Command: take the root table pointer. Status: taken.
    pub const ROOT_POINTER: u32 = 1 << 30;
    /// Command: flush the write buffer. Status: still flushing.
    pub const WRITE_BUFFER: u32 = 1 << 27;
    /// Queued invalidation enabled.
    pub const QUEUE: u32 = 1 << 26;
    /// Interrupt remapping enabled.
    pub const INTERRUPT_REMAPPING: u32 = 1 << 25;
    /// Command: take the interrupt table pointer. Status: taken.
    pub const INTERRUPT_TABLE: u32 = 1 << 24;
    /// Messages in the compatibility format pass although interrupts are remapped.
    pub const COMPATIBILITY: u32 = 1 << 23;
    /// Status bits that must not be written back with the next command: they stand for commands
    /// that act once (root pointer, fault log, write buffer, interrupt table pointer).
    pub const ONE_SHOT: u32 = 1 << 30 | 1 << 29 | 1 << 27 | 1 << 24;
}

/// Bits of the fault status register.
pub mod fault_status {
    /// A fault came when every record was in use. Cleared by writing one.
    pub const OVERFLOW: u32 = 1 << 0;
    /// Some record is in use. Falls when all are cleared.
    pub const PENDING: u32 = 1 << 1;
    /// The unit met an invalid descriptor. Cleared by writing one.
    pub const QUEUE_ERROR: u32 = 1 << 4;
    /// A device answered an invalidation wrongly. Cleared by writing one.
    pub const COMPLETION_ERROR: u32 = 1 << 5;
    /// A device did not answer an invalidation. Cleared by writing one.
    pub const TIMEOUT_ERROR: u32 = 1 << 6;
    /// All that is cleared by writing one, with the two of advanced logging.
    pub const CLEARABLE: u32 = 0x7d;

    /// The oldest record in use.
    #[must_use]
    pub const fn first_record(status: u32) -> u16 {
        (status >> 8 & 0xff) as u16
    }
}

/// Bits of the fault event control register.
pub mod fault_control {
    /// No message is sent.
    pub const MASKED: u32 = 1 << 31;
}

/// Bits of the protected memory enable register.
pub mod protected_memory {
    /// The regions are on.
    pub const ENABLE: u32 = 1 << 31;
    /// Status of that.
    pub const STATUS: u32 = 1 << 0;
}

/// A unit's register window.
pub struct Registers<M>(pub M);

impl<M: Mmio> Registers<M> {
    /// Reads a 32-bit register.
    pub fn read32(&self, register: Register) -> u32 {
        self.0.read32(register as usize)
    }

    /// Writes a 32-bit register.
    pub fn write32(&mut self, register: Register, value: u32) {
        self.0.write32(register as usize, value);
    }

    /// Reads a 64-bit register.
    pub fn read64(&self, register: Register) -> u64 {
        self.0.read64(register as usize)
    }

    /// Writes a 64-bit register.
    pub fn write64(&mut self, register: Register, value: u64) {
        self.0.write64(register as usize, value);
    }

    /// Reads `register` until `done` says so of its value. `false` when it never did in
    /// [`POLL_LIMIT`] reads.
    #[must_use]
    pub fn poll32(&self, register: Register, done: impl Fn(u32) -> bool) -> bool {
        for _ in 0..POLL_LIMIT {
            if done(self.read32(register)) {
                return true;
            }
            core::hint::spin_loop();
        }
        false
    }
}

/// Most reads of a register or status word for one answer. A register read takes at least some
/// hundred nanoseconds on real hardware, so this is well over 10 ms; units answer in microseconds.
pub const POLL_LIMIT: u32 = if cfg!(test) { 10_000 } else { 100_000 };
