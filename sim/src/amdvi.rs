//! [`AmdVi`]: a model of an AMD IOMMU (I/O Virtualization Technology, 3.05):
//! registers, command buffer, device table, page tables, interrupt tables, event log.
//!
//! It caches everything it may, for ever, entries that are not present too, and
//! carries commands between two completion waits out in the opposite order: a driver
//! that forgets one shows. Layouts are written here from the specification, not
//! taken from the driver.

mod commands;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::vtd::{Dma, Interrupt, Memory, Snoop};
pub use commands::Step;

/// Why a request was blocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocked {
    /// No permission, or nothing there.
    PageFault,
    /// The device's entry makes no sense.
    IllegalEntry,
    /// A message that the device may not send.
    Interrupt,
}

/// What a unit does not do although it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ailment {
    /// It does everything.
    Healthy,
    /// Commands are never fetched.
    Stuck,
    /// Commands are confirmed but nothing is forgotten.
    Deaf,
}

type Entry = [u64; 4];

#[derive(Clone, Copy, Debug)]
struct CachedPage {
    physical: u64,
    bits: u32,
    read: bool,
    write: bool,
}

#[derive(Debug)]
struct State {
    memory: Memory,
    registers: BTreeMap<usize, u64>,
    features: u64,
    entries: BTreeMap<u16, Entry>,
    /// (domain, address >> bits, bits)
    pages: BTreeMap<(u16, u64, u32), CachedPage>,
    /// (domain, address >> bits, bits of what the table covers) -> table
    tables: BTreeMap<(u16, u64, u32), u64>,
    interrupts: BTreeMap<(u16, u16), u32>,
    ailment: Ailment,
    raised: usize,
    commands: u64,
    /// Commands fetched since [`AmdVi::leave_out`] was called last, and which of them is not carried out.
    steps: Vec<Step>,
    left_out: Option<usize>,
    /// Commands that wait for the next completion wait.
    group: Vec<(u64, u64)>,
    attack: Option<Attack>,
}

/// Devices that try all the time.
#[derive(Clone, Debug)]
struct Attack {
    requesters: Vec<u16>,
    addresses: Vec<u64>,
    messages: u16,
}

/// A unit. Clones share it.
#[derive(Clone, Debug)]
pub struct AmdVi(Rc<RefCell<State>>);

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl AmdVi {
    /// A unit at reset. `features` is its extended feature register.
    #[must_use]
    pub fn new(memory: Memory, features: u64) -> Self {
        Self(Rc::new(RefCell::new(State {
            memory,
            registers: BTreeMap::new(),
            features,
            entries: BTreeMap::new(),
            pages: BTreeMap::new(),
            tables: BTreeMap::new(),
            interrupts: BTreeMap::new(),
            ailment: Ailment::Healthy,
            raised: 0,
            commands: 0,
            steps: Vec::new(),
            left_out: None,
            group: Vec::new(),
            attack: None,
        })))
    }

    /// QEMU's features: prefetch, peripheral pages, guest translation, invalidate all, hardware errors.
    pub const QEMU: u64 = 0x2_5f | 1 << 6;

    /// A device's request; `Ok` is the physical address it reaches.
    ///
    /// # Errors
    /// It was blocked, and an event logged if there was room.
    pub fn dma(&self, requester: u16, address: u64, direction: Dma) -> Result<u64, Blocked> {
        self.0.borrow_mut().dma(requester, address, direction)
    }

    /// A device writes `data` to `address`, an interrupt message.
    ///
    /// # Errors
    /// It was blocked, and an event logged if there was room.
    pub fn message(&self, requester: u16, address: u64, data: u32) -> Result<Interrupt, Blocked> {
        self.0.borrow_mut().message(requester, address, data)
    }

    /// Makes the unit misbehave, or stop to.
    pub fn set_ailment(&self, ailment: Ailment) {
        self.0.borrow_mut().ailment = ailment;
    }

    /// Interrupts of the unit itself since the last call.
    #[must_use]
    pub fn take_raised(&self) -> usize {
        std::mem::take(&mut self.0.borrow_mut().raised)
    }

    /// Commands carried out.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.0.borrow().commands
    }

    /// From now on the `nth` step is left out: a command is not carried out, a wait does not keep what precedes it
    /// apart from what follows. Forgets the steps so far.
    pub fn leave_out(&self, nth: Option<usize>) {
        let state = &mut *self.0.borrow_mut();
        state.left_out = nth;
        state.steps.clear();
    }

    /// Commands that were fetched, and that no wait has had carried out yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.borrow().group.len()
    }

    /// Steps since [`Self::leave_out`] was called.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.0.borrow().steps.clone()
    }

    /// Has these devices try to reach these addresses, and send as many messages, after each command and whenever
    /// [`Self::attack`] is called: so the unit caches whatever is to be seen at that moment.
    pub fn attack_with(&self, requesters: &[u16], addresses: &[u64], messages: u16) {
        self.0.borrow_mut().attack = Some(Attack {
            requesters: requesters.to_vec(),
            addresses: addresses.to_vec(),
            messages,
        });
    }

    /// The devices try.
    pub fn attack(&self) {
        self.0.borrow_mut().attack();
    }

    /// As firmware may leave it: on, with a device table at `table`.
    pub fn leave_on(&self, table: u64) {
        let state = &mut *self.0.borrow_mut();
        state.registers.insert(0x00, table | 511);
        state.registers.insert(0x18, 1);
    }
}

impl hw::Mmio for AmdVi {
    fn len(&self) -> usize {
        0x4000
    }
    fn read32(&self, offset: usize) -> u32 {
        (self.read64(offset & !7) >> (offset % 8 * 8)) as u32
    }
    fn read64(&self, offset: usize) -> u64 {
        let state = self.0.borrow();
        match offset {
            0x30 => state.features,
            _ => state.register(offset),
        }
    }
    fn write32(&mut self, offset: usize, value: u32) {
        // Half of a register (3.4): the other stays as it is, and bits that are cleared by ones are not touched.
        let whole = offset & !7;
        let before = match whole {
            0x2020 => 0,
            _ => self.0.borrow().register(whole),
        };
        let shift = offset % 8 * 8;
        let mask = 0xffff_ffff << shift;
        self.write64(whole, before & !mask | u64::from(value) << shift);
    }
    fn write64(&mut self, offset: usize, value: u64) {
        let state = &mut *self.0.borrow_mut();
        match offset {
            0x2020 => {
                let left = state.register(0x2020) & !(value & 0x3);
                state.registers.insert(0x2020, left);
            }
            _ => {
                state.registers.insert(offset, value);
            }
        }
        if offset == 0x2008 || offset == 0x18 {
            state.run();
        }
    }
}

impl State {
    fn register(&self, offset: usize) -> u64 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn on(&self, bit: u32) -> bool {
        self.register(0x18) >> bit & 1 == 1
    }

    fn read(&self, address: u64) -> u64 {
        let snoop = if self.on(10) { Snoop::Yes } else { Snoop::No };
        self.memory.unit_read(address, snoop)
    }

    fn entry(&mut self, requester: u16) -> Entry {
        if let Some(entry) = self.entries.get(&requester) {
            return *entry;
        }
        let table = self.register(0);
        let pages = (table & 0x1ff) + 1;
        let offset = u64::from(requester) * 32;
        let mut entry = [3, 0, 1, 0];
        if offset < pages * 0x1000 {
            for (word, value) in entry.iter_mut().enumerate() {
                *value = self.read((table & ADDRESS) + offset + word as u64 * 8);
            }
        }
        self.entries.insert(requester, entry);
        entry
    }

    fn dma(&mut self, requester: u16, address: u64, direction: Dma) -> Result<u64, Blocked> {
        if !self.on(0) {
            return Ok(address);
        }
        let entry = self.entry(requester);
        let outcome = self.translate(&entry, address, direction);
        if let Err(blocked) = outcome
            && entry[1] >> 34 & 1 == 0
        {
            let write = u64::from(direction == Dma::Write) << 53;
            let code = if blocked == Blocked::PageFault { 2 } else { 1 };
            self.log(code << 60 | write | u64::from(requester), address);
        }
        outcome
    }

    fn translate(&mut self, entry: &Entry, address: u64, direction: Dma) -> Result<u64, Blocked> {
        let [first, second, ..] = *entry;
        if first & 1 == 0 {
            return Ok(address);
        }
        if first & 2 == 0 || first & 0x1fc != 0 {
            return Err(Blocked::IllegalEntry);
        }
        let (may_read, may_write) = (first >> 61 & 1 == 1, first >> 62 & 1 == 1);
        let levels = first >> 9 & 7;
        let allowed = |read, write| match direction {
            Dma::Read => read,
            Dma::Write => write,
        };
        if !allowed(may_read, may_write) {
            return Err(Blocked::PageFault);
        }
        if levels == 0 {
            return Ok(address);
        }
        if address >> (12 + 9 * levels) != 0 {
            return Err(Blocked::PageFault);
        }
        let page = self.page(second as u16, first & ADDRESS, levels as u32, address);
        if !allowed(page.read, page.write) {
            return Err(Blocked::PageFault);
        }
        Ok(page.physical + (address & ((1 << page.bits) - 1)))
    }

    fn page(&mut self, domain: u16, root: u64, levels: u32, address: u64) -> CachedPage {
        for bits in [12, 21, 30] {
            if let Some(page) = self.pages.get(&(domain, address >> bits, bits)) {
                return *page;
            }
        }
        let whole = 12 + 9 * levels;
        let cached = [21, 30].into_iter().find_map(|bits| {
            let table = self.tables.get(&(domain, address >> bits, bits))?;
            Some((*table, bits))
        });
        let (mut table, mut bits) = cached
            .filter(|(_, bits)| *bits < whole)
            .unwrap_or((root, whole));
        let (mut read, mut write) = (true, true);
        loop {
            let covers = bits - 9;
            let found = self.read(table + (address >> covers & 0x1ff) * 8);
            read &= found >> 61 & 1 == 1;
            write &= found >> 62 & 1 == 1;
            let next = (found >> 9 & 7) as u32;
            let present = found & 1 == 1;
            // A level may not be passed over here.
            let sensible = next == 0 || 12 + 9 * next == covers;
            if !present || next == 0 || covers == 12 || !sensible {
                let good = present && sensible && next == 0;
                let page = CachedPage {
                    physical: found & ADDRESS & !((1 << covers) - 1),
                    bits: covers,
                    read: good && read,
                    write: good && write,
                };
                self.pages.insert((domain, address >> covers, covers), page);
                return page;
            }
            (table, bits) = (found & ADDRESS, covers);
            self.tables.insert((domain, address >> bits, bits), table);
        }
    }

    fn message(&mut self, requester: u16, address: u64, data: u32) -> Result<Interrupt, Blocked> {
        assert_eq!(address >> 20, 0xfee, "no interrupt message");
        let plain = Interrupt {
            destination: (address >> 12) as u32 & 0xff,
            vector: data as u8,
            mode: (data >> 8) as u8 & 7,
        };
        if !self.on(0) {
            return Ok(plain);
        }
        let third = self.entry(requester)[2];
        if third & 1 == 0 || third >> 60 & 3 == 1 {
            return Ok(plain);
        }
        let index = data as u16 & 0x7ff;
        let size = 1u32 << (third >> 1 & 0xf);
        let outcome = if third >> 60 & 3 == 2 && u32::from(index) < size {
            let key = (requester, index);
            let found = match self.interrupts.get(&key) {
                Some(found) => *found,
                None => {
                    let at = (third & 0x000f_ffff_ffff_ffc0) + u64::from(index) * 4;
                    let found = (self.read(at & !7) >> (at % 8 * 8)) as u32;
                    self.interrupts.insert(key, found);
                    found
                }
            };
            (found & 1 == 1).then_some(Interrupt {
                destination: found >> 8 & 0xff,
                vector: (found >> 16) as u8,
                mode: (found >> 2) as u8 & 7,
            })
        } else {
            None
        };
        outcome.ok_or(Blocked::Interrupt).inspect_err(|_| {
            self.log(2 << 60 | 1 << 51 | u64::from(requester), index.into());
        })
    }

    fn log(&mut self, first: u64, second: u64) {
        if !self.on(2) || self.register(0x2020) & 1 != 0 {
            return;
        }
        let (head, tail) = (self.register(0x2010), self.register(0x2018));
        let next = (tail + 16) % 0x1000;
        if next == head {
            self.registers.insert(0x2020, self.register(0x2020) | 1);
            return;
        }
        let at = (self.register(0x10) & ADDRESS) + tail;
        for (offset, word) in [(0, first), (8, second)] {
            self.memory.unit_write32(at + offset, word as u32);
            self.memory
                .unit_write32(at + offset + 4, (word >> 32) as u32);
        }
        self.registers.insert(0x2018, next);
        let before = self.register(0x2020);
        self.registers.insert(0x2020, before | 2);
        if before & 2 == 0 && self.on(3) {
            self.raised += 1;
        }
    }
}
