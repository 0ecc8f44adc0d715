//! The surroundings of the servers below: [`Memory`] (what the iommu-server
//! needs of the kernel), [`TableWindow`], [`Handlers`] (the msi-server's).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hw::{Clock, Mmio, Sbdf};
use iommu_core::{EffectError, Env, Note, Placed, Slot, TableMemory, Target};
use ipc_proto::{Badge, ClientId, Refusal, Rule, Turns};
use ledger::Words;

use crate::hardware::{Hardware, TABLE_PAGES, TABLES};
use crate::kernel::{Kernel, Object, Place, Refused, Server};
use crate::mortal::{Ledger, Lives};

/// The refusal of an effect.
pub const REFUSED: Refusal = Refusal::new(Rule::KernelRefused, 77);

/// The iommu-server's free slots.
pub const IOMMU_SLOTS: system::info::Slots = system::info::Slots {
    first: 1000,
    count: 4096,
};

/// Effects of the iommu-server.
#[derive(Clone)]
pub struct Memory {
    /// All capabilities.
    pub kernel: Kernel,
    /// The machine.
    pub hardware: Rc<Hardware>,
    /// When its timer runs out.
    pub wake: Rc<Cell<Option<u64>>>,
    /// Has it signalled the pci-server?
    pub trouble: Rc<Cell<bool>>,
    /// Bytes that it gave up.
    pub lost: Rc<Cell<u64>>,
    /// What it notes.
    pub ledger: Ledger,
    /// After a restart: slots that stay.
    pub adopted: Rc<RefCell<BTreeSet<Slot>>>,
}

fn refused(_: Refused) -> EffectError {
    EffectError::Kernel(77)
}

impl Words for Memory {
    fn count(&self) -> usize {
        self.ledger.count()
    }
    fn load(&self, at: usize) -> u64 {
        self.ledger.load(at)
    }
    fn store(&mut self, at: usize, value: u64) {
        self.ledger.store(at, value);
    }
}

impl Env for Memory {
    fn adopt(&mut self, first: Slot, count: u32) -> Result<(), EffectError> {
        let own = |slot| (IOMMU_SLOTS.first..IOMMU_SLOTS.first + IOMMU_SLOTS.count).contains(&slot);
        if !(first..first.saturating_add(count)).all(own) {
            return Err(EffectError::Kernel(77));
        }
        self.adopted.borrow_mut().extend(first..first + count);
        Ok(())
    }
    fn sweep(&mut self) {
        let adopted = std::mem::take(&mut *self.adopted.borrow_mut());
        for slot in IOMMU_SLOTS.first..IOMMU_SLOTS.first + IOMMU_SLOTS.count {
            let place = Place::Iommu(slot);
            if !adopted.contains(&slot) && self.kernel.object(place).is_some() {
                self.kernel.revoke(place);
                self.kernel.delete(place);
            }
        }
    }
    fn turns(&self) -> Turns {
        Turns::default()
    }
    fn split(&mut self, untyped: Slot, half_bits: u8, into: Slot) -> Result<(), EffectError> {
        let place = |number| Place::Iommu(into + number);
        self.kernel
            .retype(Place::Iommu(untyped), false, half_bits, 2, place)
            .map_err(refused)
    }
    fn frames(
        &mut self,
        untyped: Slot,
        page_bits: u8,
        into: Target,
        count: u32,
    ) -> Result<(), EffectError> {
        let place = |number: u32| match into {
            Target::Own(first) => Place::Iommu(first + number),
            Target::Window(client, first) => Place::Window(client.0, first + number as u16),
        };
        let empty = |number| self.kernel.object(place(number)).is_none();
        if let Target::Window(..) = into
            && !(0..count).all(empty)
        {
            return Err(EffectError::Occupied);
        }
        self.kernel
            .retype(Place::Iommu(untyped), true, page_bits, count, place)
            .map_err(refused)
    }
    fn revoke(&mut self, slot: Slot) -> Result<(), EffectError> {
        self.kernel.revoke(Place::Iommu(slot));
        Ok(())
    }
    fn retire(&mut self, slot: Slot) -> Result<(), EffectError> {
        self.kernel.revoke(Place::Iommu(slot));
        self.kernel.delete(Place::Iommu(slot));
        Ok(())
    }
    fn mint(&mut self, badge: Badge, into: Slot) -> Result<(), EffectError> {
        let object = Object::Endpoint {
            server: Server::Iommu,
            badge: badge.to_word(),
        };
        self.kernel
            .make(Place::Iommu(into), object)
            .map_err(refused)
    }
    fn place(
        &mut self,
        what: Placed,
        slot: Slot,
        client: ClientId,
        window_slot: u16,
    ) -> Result<(), EffectError> {
        let window = Place::Window(client.0, window_slot);
        if self.kernel.object(window).is_some() {
            return Err(EffectError::Occupied);
        }
        let object = self.kernel.object(Place::Iommu(slot));
        let endpoint = matches!(object, Some(Object::Endpoint { .. }));
        assert_eq!(endpoint, what == Placed::Buffer);
        self.kernel
            .copy(Place::Iommu(slot), window)
            .map_err(refused)
    }
    fn take_back(&mut self, client: ClientId, window_slot: u16) {
        self.kernel.delete(Place::Window(client.0, window_slot));
    }
    fn signal(&mut self, _: ClientId) {}
    fn signal_shard(&mut self, shard: u16) {
        assert_eq!(shard, 0);
        self.trouble.set(true);
    }
    fn now_us(&self) -> u64 {
        self.hardware.clock.now_us()
    }
    fn wake_in(&mut self, micros: u64) {
        self.wake.set(Some(self.now_us() + micros.max(1)));
    }
    fn note(&mut self, note: Note) {
        if let Note::MemoryLost { bytes } = note {
            self.lost.set(self.lost.get() + bytes);
        }
    }
}

/// The unit's tables.
pub struct TableWindow(pub Rc<Hardware>);

impl TableWindow {
    fn address(page: u32, index: u16) -> u64 {
        TABLES + u64::from(page) * 0x1000 + u64::from(index) * 8
    }
}

impl TableMemory for TableWindow {
    fn pages(&self) -> u32 {
        TABLE_PAGES
    }
    fn read64(&self, page: u32, index: u16) -> u64 {
        self.0.memory.read(Self::address(page, index))
    }
    fn write64(&mut self, page: u32, index: u16, value: u64) {
        assert!(page < TABLE_PAGES && index < 512);
        self.0.lives.effect();
        self.0.memory.write(Self::address(page, index), value);
    }
    fn write_back(&mut self, page: u32, index: u16, count: u16) {
        let bytes = u64::from(count) * 8;
        self.0.memory.write_back(Self::address(page, index), bytes);
    }
}

/// The unit's registers.
pub struct Registers(pub Rc<Hardware>);

impl Mmio for Registers {
    fn len(&self) -> usize {
        self.0.unit.len()
    }
    fn read32(&self, offset: usize) -> u32 {
        self.0.unit.read32(offset)
    }
    fn read64(&self, offset: usize) -> u64 {
        self.0.unit.read64(offset)
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.0.lives.effect();
        self.0.unit.clone().write32(offset, value);
    }
    fn write64(&mut self, offset: usize, value: u64) {
        self.0.lives.effect();
        self.0.unit.clone().write64(offset, value);
    }
}

/// Vectors that were given out, and whose messages raise each.
pub type Issued = Rc<RefCell<BTreeMap<u16, Sbdf>>>;

/// Effects of the msi-server.
#[derive(Clone)]
pub struct Handlers {
    /// All capabilities.
    pub kernel: Kernel,
    /// What it gave out.
    pub issued: Issued,
    /// What outlives it.
    pub ledger: Ledger,
}

impl Handlers {
    /// With the handlers of these vectors, as the root task has made them.
    #[must_use]
    pub fn new(kernel: Kernel, lives: &Lives, vectors: std::ops::Range<u16>) -> Self {
        for vector in vectors {
            kernel.give(Place::Msi(vector), Object::Handler { vector });
        }
        Self {
            kernel,
            issued: Issued::default(),
            ledger: Ledger::new(lives),
        }
    }
}

impl msi_core::Env for Handlers {
    type Ledger = Ledger;
    fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
    fn turns(&self) -> Turns {
        Turns::default()
    }
    fn place(&mut self, vector: u16, client: ClientId, slot: u16) -> Result<(), Refusal> {
        let window = Place::Window(client.0, slot);
        if slot >> crate::setting::WINDOW_BITS != 0 {
            return Err(Refusal::new(Rule::WindowSlotOutOfRange, slot.into()));
        }
        if self.kernel.object(window).is_some() {
            return Err(Refusal::new(Rule::WindowSlotOccupied, slot.into()));
        }
        self.kernel
            .copy(Place::Msi(vector), window)
            .map_err(|_| REFUSED)
    }
    fn reclaim(&mut self, vector: u16) -> Result<(), Refusal> {
        self.kernel.revoke(Place::Msi(vector));
        Ok(())
    }
    // Nobody is metered.
    fn meter(&mut self, _: u16, _: usize) -> Result<(), Refusal> {
        Err(REFUSED)
    }
    fn hush(&mut self, _: u16) {}
    fn name(&mut self, _: u16, _: ClientId, _: u64) -> Result<(), Refusal> {
        Err(REFUSED)
    }
    fn pass(&mut self, _: u16) {}
    fn unname(&mut self, _: u16) {}
    // There are no lines here.
    fn acknowledge(&mut self, _: usize) {}
    fn tell_client(&mut self, _: ClientId) {}
    fn tell_shard(&mut self, _: u16) {}
    fn now_us(&self) -> u64 {
        0
    }
    fn arm(&mut self, _: u64) {}
    fn slots_used(&self) -> u32 {
        0
    }
}

/// Places that are used of a server's slots.
#[derive(Default)]
pub struct Slots {
    used: BTreeSet<u32>,
}

impl Slots {
    const FIRST: u32 = 1000;
    const COUNT: u32 = 4096;

    /// `count` in a row.
    ///
    /// # Errors
    /// `SlotsExhausted`.
    pub fn take(&mut self, count: u32) -> Result<u32, Refusal> {
        let mut first = Self::FIRST;
        for used in &self.used {
            if used - first >= count {
                break;
            }
            first = used + 1;
        }
        if first + count > Self::FIRST + Self::COUNT {
            return Err(Refusal::new(Rule::SlotsExhausted, Self::COUNT.into()));
        }
        self.used.extend(first..first + count);
        Ok(first)
    }

    /// Is it one of them?
    #[must_use]
    pub fn has(slot: u32) -> bool {
        (Self::FIRST..Self::FIRST + Self::COUNT).contains(&slot)
    }

    /// Is it taken?
    #[must_use]
    pub fn is_used(&self, slot: u32) -> bool {
        self.used.contains(&slot)
    }

    /// Takes these; `false`, and nothing happens, unless all are there and free.
    pub fn claim(&mut self, first: u32, count: u32) -> bool {
        let mut run = first..first.saturating_add(count);
        let free = run.all(|slot| Self::has(slot) && !self.is_used(slot));
        if free {
            self.used.extend(first..first + count);
        }
        free
    }

    /// Gives slots back.
    pub fn give_back(&mut self, first: u32, count: u32) {
        for slot in first..first + count {
            assert!(self.used.remove(&slot), "slot {slot} given back twice");
        }
    }

    /// How many are used.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.len() as u32
    }
}
