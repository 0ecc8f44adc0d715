//! [`Controller`]: an NVMe controller's registers and its admin queue, generic
//! over how registers and memory are reached; commands of the two that the
//! tests need: Identify, Virtualization Management, and those that make I/O queues, whose memory and use are the caller's.
//!
//! Sections are those of the NVM Express Base Specification 1.4. Nothing that
//! the controller says is trusted: a completion for another command than the
//! one under way is an error, and every wait is the caller's, and bounded.

#![no_std]
#![forbid(unsafe_code)]

use client::{Memory, Mmio};

/// Registers and the first doorbells: pages of BAR 0 (3.1).
pub const PAGES: u16 = 2;
/// Bytes of memory for the two admin queues.
pub const QUEUE_BYTES: u64 = 2 * PAGE;
/// Bytes of what Identify tells (5.15).
pub const IDENTIFY_BYTES: usize = 4096;

const PAGE: u64 = 4096;
/// Entries of each queue; a submission entry has 64 bytes, a completion entry 16.
const ENTRIES: u16 = 16;
const SUBMISSION_BYTES: usize = 64;
const COMPLETION_BYTES: usize = 16;
const COMPLETIONS_AT: usize = PAGE as usize;

/// 3.1: offsets of registers.
mod register {
    pub const CAPABILITIES: usize = 0x00;
    pub const CONFIGURATION: usize = 0x14;
    pub const STATUS: usize = 0x1c;
    pub const ADMIN_QUEUES: usize = 0x24;
    pub const SUBMISSION_BASE: usize = 0x28;
    pub const COMPLETION_BASE: usize = 0x30;
    pub const DOORBELLS: usize = 0x1000;
}

/// CC (3.1.5): enabled, entries of 2^6 and 2^4 bytes, pages of 4 KiB, NVM commands.
const ENABLE: u32 = 4 << 20 | 6 << 16 | 1;
/// CSTS (3.1.6).
const READY: u32 = 1;
const FATAL: u32 = 1 << 1;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The controller says of itself that it has failed (CSTS.CFS).
    Fatal,
    /// It did not answer in time.
    Silent,
    /// Status of the command (4.6.1.1): type and code. 4 is a data transfer error.
    Status(u16),
    /// It answered what nobody asked.
    Nonsense,
}

/// A resource that secondary controllers have (5.22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Queues, the admin queue among them.
    Queues = 0,
    /// Interrupts.
    Interrupts = 1,
}

/// What becomes of a controller's resources (5.22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The primary controller keeps so many that could be given away, from its next reset on.
    Keep(Resource, u16),
    /// A secondary controller has so many.
    Assign(Resource, u16),
    /// A secondary controller works.
    Online,
}

/// Which end of a pair of queues has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// The tail of the submission queue.
    Submissions = 0,
    /// The head of the completion queue.
    Completions = 1,
}

/// A command (4.2): opcode, data address, dwords 10 and 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    opcode: u8,
    data: u64,
    dwords: [u32; 2],
}

impl Command {
    /// Has what the controller is (5.15.2.2) written to I/O virtual address `data`.
    #[must_use]
    pub const fn identify(data: u64) -> Self {
        Self {
            opcode: 0x06,
            data,
            dwords: [0x01, 0],
        }
    }

    /// Has the list of secondary controllers (5.15.2.14) written to I/O virtual address `data`.
    #[must_use]
    pub const fn list_secondary(data: u64) -> Self {
        Self {
            opcode: 0x06,
            data,
            dwords: [0x15, 0],
        }
    }

    /// Makes I/O completion queue `queue` (5.3) of `entries` entries at I/O virtual address `at`, with interrupt `vector`.
    #[must_use]
    pub const fn create_completions(queue: u16, entries: u16, at: u64, vector: u16) -> Self {
        Self {
            opcode: 0x05,
            data: at,
            dwords: [
                (entries.saturating_sub(1) as u32) << 16 | queue as u32,
                // Interrupts enabled, contiguous memory.
                (vector as u32) << 16 | 3,
            ],
        }
    }

    /// Makes I/O submission queue `queue` (5.4) of `entries` entries at I/O virtual address `at`; completions go to the
    /// completion queue of the same number.
    #[must_use]
    pub const fn create_submissions(queue: u16, entries: u16, at: u64) -> Self {
        Self {
            opcode: 0x01,
            data: at,
            dwords: [
                (entries.saturating_sub(1) as u32) << 16 | queue as u32,
                // Contiguous memory.
                (queue as u32) << 16 | 1,
            ],
        }
    }

    /// Virtualization Management (5.22) of controller `id`.
    #[must_use]
    pub const fn virtualization(id: u16, action: Action) -> Self {
        let (code, resource, count) = match action {
            Action::Keep(resource, count) => (1, resource, count),
            Action::Assign(resource, count) => (8, resource, count),
            Action::Online => (9, Resource::Queues, 0),
        };
        Self {
            opcode: 0x1c,
            data: 0,
            dwords: [
                (id as u32) << 16 | (resource as u32) << 8 | code,
                count as u32,
            ],
        }
    }
}

/// A secondary controller (5.15.2.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secondary {
    /// Its id.
    pub id: u16,
    /// Number of its virtual function, from 1.
    pub function: u16,
    /// Is it online?
    pub online: bool,
}

/// The `index`-th entry of a list of secondary controllers.
#[must_use]
pub fn secondary(list: &impl Memory, index: usize) -> Option<Secondary> {
    let mut count = [0];
    list.read(0, &mut count);
    let mut entry = [0; 32];
    if index >= usize::from(count[0]) || !list.read(32 + 32 * index, &mut entry) {
        return None;
    }
    Some(Secondary {
        id: u16::from_le_bytes([entry[0], entry[1]]),
        online: entry[4] & 1 != 0,
        function: u16::from_le_bytes([entry[8], entry[9]]),
    })
}

/// A controller with its admin queue.
#[derive(Debug)]
pub struct Controller<R, M> {
    registers: R,
    queues: M,
    stride: usize,
    tail: u16,
    head: u16,
    phase: bool,
    id: u16,
}

impl<R: Mmio, M: Memory> Controller<R, M> {
    /// Enables a controller. Its queues are in `queues` ([`QUEUE_BYTES`]), which the controller finds at `iova`. `wait` is
    /// called between two looks; `false` ends the waiting.
    ///
    /// # Errors
    /// [`Error::Fatal`], [`Error::Silent`].
    pub fn enable(
        mut registers: R,
        queues: M,
        iova: u64,
        mut wait: impl FnMut() -> bool,
    ) -> Result<Self, Error> {
        registers.write32(register::CONFIGURATION, 0);
        while registers.read32(register::STATUS) & READY != 0 {
            if !wait() {
                return Err(Error::Silent);
            }
        }
        for page in 0..2 {
            queues.write(page * PAGE as usize, &[0; PAGE as usize]);
        }
        let sizes = u32::from(ENTRIES - 1);
        registers.write32(register::ADMIN_QUEUES, sizes << 16 | sizes);
        registers.write64(register::SUBMISSION_BASE, iova);
        registers.write64(register::COMPLETION_BASE, iova + PAGE);
        registers.write32(register::CONFIGURATION, ENABLE);
        loop {
            let status = registers.read32(register::STATUS);
            if status & FATAL != 0 {
                return Err(Error::Fatal);
            }
            if status & READY != 0 {
                break;
            }
            if !wait() {
                return Err(Error::Silent);
            }
        }
        // CAP.DSTRD (3.1.1).
        let stride = 4 << (registers.read64(register::CAPABILITIES) >> 32 & 0xf);
        Ok(Self {
            registers,
            queues,
            stride,
            tail: 0,
            head: 0,
            phase: true,
            id: 0,
        })
    }

    /// Writes the doorbell (3.1.24, 3.1.25) of an I/O queue.
    pub fn ring(&mut self, queue: u16, doorbell: Doorbell, value: u16) {
        let pair = 2 * usize::from(queue) + doorbell as usize;
        self.registers
            .write32(register::DOORBELLS + pair * self.stride, value.into());
    }

    /// Has the controller begin with a command.
    pub fn begin(&mut self, command: Command) {
        self.id = self.id.wrapping_add(1);
        let mut entry = [0u8; SUBMISSION_BYTES];
        let mut put = |dword: usize, value: u32| {
            if let Some(bytes) = entry.get_mut(4 * dword..4 * dword + 4) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        };
        put(0, u32::from(self.id) << 16 | u32::from(command.opcode));
        put(6, command.data as u32);
        put(7, (command.data >> 32) as u32);
        put(10, command.dwords[0]);
        put(11, command.dwords[1]);
        self.queues
            .write(usize::from(self.tail) * SUBMISSION_BYTES, &entry);
        self.tail = (self.tail + 1) % ENTRIES;
        self.registers
            .write32(register::DOORBELLS, self.tail.into());
    }

    /// Has a command done and waits for its completion.
    ///
    /// # Errors
    /// The command's status, or what is wrong with the controller.
    pub fn execute(
        &mut self,
        command: Command,
        mut wait: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        self.begin(command);
        loop {
            if let Some(outcome) = self.completion() {
                return outcome;
            }
            if self.registers.read32(register::STATUS) & FATAL != 0 {
                return Err(Error::Fatal);
            }
            if !wait() {
                return Err(Error::Silent);
            }
        }
    }

    /// The outcome of the command under way, once there is one (4.6).
    pub fn completion(&mut self) -> Option<Result<(), Error>> {
        let mut entry = [0u8; COMPLETION_BYTES];
        let at = COMPLETIONS_AT + usize::from(self.head) * COMPLETION_BYTES;
        self.queues.read(at, &mut entry);
        let id = u16::from_le_bytes([entry[12], entry[13]]);
        let status = u16::from_le_bytes([entry[14], entry[15]]);
        if (status & 1 != 0) != self.phase {
            return None;
        }
        self.head = (self.head + 1) % ENTRIES;
        self.phase ^= self.head == 0;
        self.registers
            .write32(register::DOORBELLS + self.stride, self.head.into());
        // Type and code; above them is whether trying again makes sense.
        let status = status >> 1 & 0x7ff;
        Some(match (id == self.id, status) {
            (false, _) => Err(Error::Nonsense),
            (true, 0) => Ok(()),
            (true, status) => Err(Error::Status(status)),
        })
    }
}
