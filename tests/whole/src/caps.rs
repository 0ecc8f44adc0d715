//! [`Caps`]: the pci-server's slots and its capabilities in them, and its ledger.

use ipc_proto::{Badge, ClientId, Refusal, Rule};
use ledger::Words;
use pci_core::bank::Objects;

use crate::below::{REFUSED, Slots};
use crate::kernel::{Kernel, Object, Place, Server};
use crate::mortal::{Ledger, Lives};
use crate::setting::WINDOW_BITS;

/// Slots of the masters of device capabilities, by assignment slot.
pub const DEVICES: u32 = 500;
/// Slots of the masters of narrowed ones.
pub const VIEWS: u32 = 600;

/// Slots of the pci-server and the kernel.
pub struct Caps {
    kernel: Kernel,
    slots: Slots,
    /// What the pci-server notes.
    ledger: Ledger,
}

impl Caps {
    /// Nothing is taken, nothing noted.
    #[must_use]
    pub fn new(kernel: Kernel, lives: &Lives) -> Self {
        Self {
            kernel,
            slots: Slots::default(),
            ledger: Ledger::new(lives),
        }
    }

    /// The server has died: which of its slots are used is to be found out.
    pub fn after_death(&mut self) {
        self.slots = Slots::default();
    }

    /// Empties all slots that are not used, with all that was derived from what lies there.
    pub fn sweep(&mut self) {
        let places = self.kernel.shape().into_keys();
        let own = places.filter_map(|place| match place {
            Place::Pci(slot) if Slots::has(slot) => Some(slot),
            _ => None,
        });
        for slot in own.filter(|slot| !self.slots.is_used(*slot)) {
            // What is made of memory goes with it.
            if self.kernel.object(Place::Pci(slot)).is_some() {
                self.kernel.revoke(Place::Pci(slot));
                self.kernel.delete(Place::Pci(slot));
            }
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

    /// Mints a device capability into the slot `master` and places a copy.
    ///
    /// # Errors
    /// As the window refuses it.
    pub fn mint(
        &mut self,
        master: u32,
        badge: Badge,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        let object = Object::Endpoint {
            server: Server::Pci,
            badge: badge.to_word(),
        };
        let made = self
            .kernel
            .make(Place::Pci(master), object)
            .map_err(|_| REFUSED)
            .and_then(|()| self.place(master, client, slot));
        if made.is_err() {
            self.kernel.delete(Place::Pci(master));
        }
        made
    }

    /// Takes a master and every copy of it away, if there is one.
    pub fn retire(&mut self, master: u32) {
        if self.kernel.object(Place::Pci(master)).is_some() {
            self.kernel.revoke(Place::Pci(master));
            self.kernel.delete(Place::Pci(master));
        }
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
        self.slots.claim(first, count)
    }
    fn unmap(&mut self, _: u32, _: u8) {}
}

impl Words for Caps {
    fn count(&self) -> usize {
        pci_core::notes::WORDS
    }
    fn load(&self, at: usize) -> u64 {
        self.ledger.load(at)
    }
    fn store(&mut self, at: usize, value: u64) {
        self.ledger.store(at, value);
    }
}
