//! [`Caps`]: the pci-server's slots and its capabilities in them, and its ledger.

use ipc_proto::{Badge, ClientId, Refusal, Rule};
use ledger::Words;
use pci_core::bank::Objects;

use crate::below::{REFUSED, Slots};
use crate::kernel::{Kernel, Object, Place, Server};
use crate::setting::WINDOW_BITS;

/// Slots of the pci-server and the kernel.
pub struct Caps {
    kernel: Kernel,
    slots: Slots,
    /// What the pci-server notes.
    ledger: Vec<u64>,
}

impl Caps {
    /// Nothing is taken, nothing noted.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            slots: Slots::default(),
            ledger: vec![0; pci_core::notes::WORDS],
        }
    }

    /// Slots in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.slots.used()
    }

    fn retype(&mut self, from: u32, frames: bool, bits: u8, count: u32) -> Result<u32, Refusal> {
        let first = self.slots.take(count)?;
        let place = |number| Place::Pci(first + number);
        let made = self
            .kernel
            .retype(Place::Pci(from), frames, bits, count, place);
        if made.is_err() {
            self.slots.give_back(first, count);
            return Err(REFUSED);
        }
        Ok(first)
    }

    fn place(&mut self, from: u32, client: ClientId, slot: u16) -> Result<(), Refusal> {
        if slot >> WINDOW_BITS != 0 {
            return Err(Refusal::new(Rule::WindowSlotOutOfRange, slot.into()));
        }
        let window = Place::Window(client.0, slot);
        if self.kernel.object(window).is_some() {
            return Err(Refusal::new(Rule::WindowSlotOccupied, slot.into()));
        }
        self.kernel
            .copy(Place::Pci(from), window)
            .map_err(|_| REFUSED)
    }

    /// Mints a device capability and places a copy; gives the slot of its master.
    ///
    /// # Errors
    /// As the window refuses it.
    pub fn mint(&mut self, badge: Badge, client: ClientId, slot: u16) -> Result<u32, Refusal> {
        let master = self.slots.take(1)?;
        let object = Object::Endpoint {
            server: Server::Pci,
            badge: badge.to_word(),
        };
        let made = self
            .kernel
            .make(Place::Pci(master), object)
            .map_err(|_| REFUSED)
            .and_then(|()| self.place(master, client, slot));
        if let Err(refusal) = made {
            self.kernel.delete(Place::Pci(master));
            self.slots.give_back(master, 1);
            return Err(refusal);
        }
        Ok(master)
    }

    /// Takes a master and every copy of it away.
    pub fn retire(&mut self, master: u32) {
        self.kernel.revoke(Place::Pci(master));
        self.kernel.delete(Place::Pci(master));
        self.slots.give_back(master, 1);
    }
}

impl Objects for Caps {
    fn split(&mut self, untyped: u32, bits: u8, count: u32) -> Result<u32, Refusal> {
        self.retype(untyped, false, bits, count)
    }
    fn frames(&mut self, untyped: u32, bits: u8, count: u32) -> Result<u32, Refusal> {
        self.retype(untyped, true, bits, count)
    }
    fn revoke(&mut self, slot: u32) -> Result<(), Refusal> {
        self.kernel.revoke(Place::Pci(slot));
        Ok(())
    }
    fn forget(&mut self, first: u32, count: u32) {
        for slot in first..first + count {
            assert_eq!(
                self.kernel.object(Place::Pci(slot)),
                None,
                "slot {slot} given back full"
            );
        }
        self.slots.give_back(first, count);
    }
    fn place(&mut self, frame: u32, client: ClientId, slot: u16) -> Result<(), Refusal> {
        Caps::place(self, frame, client, slot)
    }
    fn clear(&mut self, client: ClientId, slot: u16) {
        self.kernel.delete(Place::Window(client.0, slot));
    }
    fn adopt(&mut self, first: u32, count: u32) -> bool {
        // They are counted as taken as long as nobody gives them back, whoever has begun anew.
        (first..first.saturating_add(count))
            .all(|slot| self.kernel.object(Place::Pci(slot)).is_some())
    }
    fn unmap(&mut self, _: u32, _: u8) {}
}

impl Words for Caps {
    fn count(&self) -> usize {
        self.ledger.len()
    }
    fn load(&self, at: usize) -> u64 {
        self.ledger.get(at).copied().unwrap_or(0)
    }
    fn store(&mut self, at: usize, value: u64) {
        if let Some(word) = self.ledger.get_mut(at) {
            *word = value;
        }
    }
}
