//! [`Platform`]: what the kernel does for a driver.

use core::fmt;
use core::sync::atomic::AtomicU64;

use hw::Mmio;
use ipc_proto::{Rule, Transport, kernel_error_name};

/// What was tried for the PD itself, and why it could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelError {
    /// What was tried.
    pub action: &'static str,
    /// [`Rule::KernelRefused`], or what there is no more of in this PD.
    pub rule: Rule,
    /// The kernel's error number, or how many were wanted.
    pub code: u64,
}

/// Where the kernel has no memory for a page table, say.
const NOT_ENOUGH_MEMORY: u64 = 10;

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, rule, code } = *self;
        if rule != Rule::KernelRefused {
            return write!(f, "no room to {action} ({code})");
        }
        let name = kernel_error_name(code).unwrap_or("unknown");
        write!(f, "the kernel refused to {action}: {name} (error {code})")?;
        if code == NOT_ENOUGH_MEMORY {
            write!(f, "; raise `untyped` of the client")?;
        }
        Ok(())
    }
}

/// Memory that a device shares: every access is volatile, bounds are checked
/// (an access past the end reads zeros or does nothing and says so).
pub trait Memory {
    /// Bytes mapped.
    fn len(&self) -> usize;
    /// Whether nothing is mapped.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies out of the memory; false when the range leaves it.
    fn read(&self, offset: usize, into: &mut [u8]) -> bool;
    /// Copies into the memory; false when the range leaves it.
    fn write(&self, offset: usize, from: &[u8]) -> bool;
    /// Address of the first byte in this PD.
    fn address(&self) -> usize;
}

/// What the kernel does for a driver: calls, mappings, waiting.
/// Window slots are numbers in the PD's grant window.
pub trait Platform {
    /// An endpoint capability that can be called.
    type Port: Transport + Copy;
    /// Mapped device registers.
    type Registers: Mmio;
    /// Mapped DMA memory.
    type Memory: Memory;

    /// A bit for each slot of the grant window, lowest first, set while the slot is in use: [`crate::WINDOW_WORDS`] words
    /// are enough for every window. It is the library's to change.
    fn slots_in_use(&self) -> &[AtomicU64];
    /// The endpoint at a private slot.
    fn port(&self, slot: u64) -> Self::Port;
    /// The endpoint in a window slot.
    fn window_port(&self, slot: u16) -> Self::Port;
    /// CSpace address of a window slot, to hand its capability along.
    fn window_address(&self, slot: u16) -> u64;

    /// Maps `pages` frames of 2^`page_bits` bytes from window slots `first`... in a row, uncached.
    ///
    /// # Errors
    /// The kernel's, or no room; nothing stays mapped then.
    fn map_registers(
        &self,
        first: u16,
        pages: u16,
        page_bits: u8,
    ) -> Result<Self::Registers, KernelError>;
    /// Takes such a mapping away.
    fn unmap_registers(
        &self,
        registers: &mut Self::Registers,
        first: u16,
        pages: u16,
        page_bits: u8,
    );
    /// Maps `pages` frames of 2^`page_bits` bytes from window slots `first`... in a row, cached.
    ///
    /// # Errors
    /// The kernel's, or no room; nothing stays mapped then.
    fn map_memory(
        &self,
        first: u16,
        pages: u16,
        page_bits: u8,
    ) -> Result<Self::Memory, KernelError>;
    /// Takes such a mapping away.
    fn unmap_memory(&self, memory: &mut Self::Memory, first: u16, pages: u16, page_bits: u8);
    /// Takes the addresses of such a mapping back, of which every frame was revoked: the kernel has unmapped them.
    fn forget_memory(&self, memory: &mut Self::Memory, pages: u16, page_bits: u8);
    /// Empties a window slot (one that a server emptied already is fine).
    fn clear(&self, slot: u16);
    /// Copies the capability in window slot `from` to slot `place` of a channel's mailbox, at private slot `mailbox`.
    ///
    /// # Errors
    /// The kernel's: 8 when the place is taken.
    fn post(&self, mailbox: u64, place: u16, from: u16) -> Result<(), KernelError>;
    /// Moves the capability in slot `place` of a channel's mailbox to window slot `to`.
    ///
    /// # Errors
    /// The kernel's: 6 when the place is empty.
    fn fetch(&self, mailbox: u64, place: u16, to: u16) -> Result<(), KernelError>;
    /// Signals the notification at a private slot.
    fn signal(&self, slot: u64);
    /// Lets the interrupt handler in a window slot signal `flags` on the PD's event notification.
    ///
    /// # Errors
    /// The kernel's.
    fn bind_interrupt(&self, slot: u16, flags: u64) -> Result<(), KernelError>;

    /// Waits for the PD's event notification; the flags that were signalled.
    fn wait(&self) -> u64;
    /// The flags that were signalled, without waiting.
    fn poll(&self) -> u64;
    /// Writes a line to the log; waits until the console has room.
    fn log(&self, line: fmt::Arguments<'_>);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn an_error_says_what_the_kernel_means_and_what_helps() {
        let said = |rule, code| {
            let action = "map memory";
            std::format!("{}", KernelError { action, rule, code })
        };
        assert_eq!(
            said(Rule::KernelRefused, 10),
            "the kernel refused to map memory: not enough memory (error 10); raise `untyped` of the client"
        );
        assert_eq!(
            said(Rule::KernelRefused, 8),
            "the kernel refused to map memory: delete first (error 8)"
        );
        assert_eq!(
            said(Rule::SlotsExhausted, 1536),
            "no room to map memory (1536)"
        );
    }
}
