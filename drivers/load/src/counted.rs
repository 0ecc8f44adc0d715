//! [`Counted`]: seL4 as the client library sees it, with every request counted by its interface.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use client::{KernelError, Platform};
use ipc_proto::{Message, Rule, Transport};
use sel4_client::SeL4Platform;

/// Labels below this one are the kernel's own errors: no server has seen the request.
const KERNEL_ERRORS: u64 = 16;

/// Requests by interface (the high half of a label), and those that went wrong.
static REQUESTS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static LOST: AtomicU64 = AtomicU64::new(0);

/// The kernel, and a count of what passes.
#[derive(Clone, Copy)]
pub struct Counted(&'static SeL4Platform);

impl Counted {
    /// One a program.
    pub const fn new(platform: &'static SeL4Platform) -> Self {
        Self(platform)
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        LOST.store(0, Relaxed);
        for count in &REQUESTS {
            count.store(0, Relaxed);
        }
    }

    /// Requests to pci-, iommu- and msi-servers that were answered.
    pub fn requests(&self) -> [u64; 3] {
        [1, 2, 3].map(|interface: usize| REQUESTS[interface].load(Relaxed))
    }

    /// Requests that nobody answered as the contract says.
    pub fn lost(&self) -> u64 {
        LOST.load(Relaxed)
    }
}

/// An endpoint's capability.
#[derive(Clone, Copy)]
pub struct CountedPort(<SeL4Platform as Platform>::Port);

impl Transport for CountedPort {
    fn call(&self, request: &Message) -> Message {
        let reply = self.0.call(request);
        let nobody = (1..KERNEL_ERRORS).contains(&reply.label);
        if nobody || reply.label == Rule::BadReply as u64 {
            LOST.fetch_add(1, Relaxed);
        } else if let Some(count) = REQUESTS.get((request.label >> 8) as usize) {
            count.fetch_add(1, Relaxed);
        }
        reply
    }
}

impl Platform for Counted {
    type Port = CountedPort;
    type Registers = <SeL4Platform as Platform>::Registers;
    type Memory = <SeL4Platform as Platform>::Memory;

    fn slots_in_use(&self) -> &[AtomicU64] {
        self.0.slots_in_use()
    }
    fn port(&self, slot: u64) -> CountedPort {
        CountedPort(self.0.port(slot))
    }
    fn window_port(&self, slot: u16) -> CountedPort {
        CountedPort(self.0.window_port(slot))
    }
    fn window_address(&self, slot: u16) -> u64 {
        self.0.window_address(slot)
    }
    fn map_registers(
        &self,
        first: u16,
        pages: u16,
        page_bits: u8,
    ) -> Result<Self::Registers, KernelError> {
        self.0.map_registers(first, pages, page_bits)
    }
    fn unmap_registers(
        &self,
        registers: &mut Self::Registers,
        first: u16,
        pages: u16,
        page_bits: u8,
    ) {
        self.0.unmap_registers(registers, first, pages, page_bits);
    }
    fn map_memory(
        &self,
        first: u16,
        pages: u16,
        page_bits: u8,
    ) -> Result<Self::Memory, KernelError> {
        self.0.map_memory(first, pages, page_bits)
    }
    fn unmap_memory(&self, memory: &mut Self::Memory, first: u16, pages: u16, page_bits: u8) {
        self.0.unmap_memory(memory, first, pages, page_bits);
    }
    fn forget_memory(&self, memory: &mut Self::Memory, pages: u16, page_bits: u8) {
        self.0.forget_memory(memory, pages, page_bits);
    }
    fn clear(&self, slot: u16) {
        self.0.clear(slot);
    }
    fn post(&self, mailbox: u64, place: u16, from: u16) -> Result<(), KernelError> {
        self.0.post(mailbox, place, from)
    }
    fn fetch(&self, mailbox: u64, place: u16, to: u16) -> Result<(), KernelError> {
        self.0.fetch(mailbox, place, to)
    }
    fn signal(&self, slot: u64) {
        self.0.signal(slot);
    }
    fn bind_interrupt(&self, slot: u16, flags: u64) -> Result<(), KernelError> {
        self.0.bind_interrupt(slot, flags)
    }
    fn wait(&self) -> u64 {
        self.0.wait()
    }
    fn poll(&self) -> u64 {
        self.0.poll()
    }
    fn log(&self, line: fmt::Arguments<'_>) {
        self.0.log(line);
    }
}
