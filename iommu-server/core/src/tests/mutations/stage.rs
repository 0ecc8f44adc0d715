//! [`Stage`]: a unit with firmware's leftovers, a back end over it, and
//! operations of which single steps are left out.

use std::cell::{Cell, RefCell};
use std::format;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use sim::vtd::{Dma, Memory, Model, Order, Step, Vtd};

use super::super::machine::{TABLES, TestTables};
use super::Scenario;
use crate::vtd::{self, Quarantine};
use crate::{DomainId, InterruptMessage, TableMemory};

pub const PAGES: u32 = 32;
pub const ONE: u16 = 0x18;
pub const TWO: u16 = 0x20;
/// On another bus, of which the unit has no table.
pub const FAR: u16 = 0x520;
pub const AT: u64 = 0x20_0000;
pub const NEXT: u64 = AT + 0x1000;
/// Another gigabyte.
pub const OTHER: u64 = 0x4000_0000;
/// Where firmware's tables lead.
pub const FIRMWARE: u64 = 0x9000;

/// What memory holds before the tables are written: as a table entry, a context entry or a root entry it leads to a
/// page of the same words, so that whoever reads it gets through to there.
pub const JUNK: u64 = 0xde_0001;
pub const JUNK_PAGE: u64 = 0xde_0000;

pub type Outcome = Result<(), String>;

pub const ADDRESSES: [u64; 6] = [0, FIRMWARE, AT, NEXT, OTHER, OTHER + AT];

/// A step of an operation, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Site {
    Step(usize),
    Flush(usize),
}

/// How a step is named: operation, and what it is.
pub type Name = (&'static str, String);

/// Table memory of which single write-backs can be left out, and after each change of which the devices try.
pub struct Leaky {
    pub tables: TestTables,
    pub unit: Vtd,
    pub flushes: Rc<Flushes>,
}

#[derive(Default)]
pub struct Flushes {
    done: RefCell<Vec<&'static str>>,
    pub left_out: Cell<Option<usize>>,
}

impl Leaky {
    /// What a write-back is about.
    fn what(&self, page: u32, index: u16, count: u16) -> &'static str {
        let value = self.tables.read64(page, index);
        if count == 512 {
            return if value == 0 {
                "zeros of a new table"
            } else {
                "table of the scratch domain"
            };
        }
        let address = TABLES + u64::from(page) * 0x1000;
        let root = hw::Mmio::read64(&self.unit, 0x20) & !0xfff;
        let interrupts = hw::Mmio::read64(&self.unit, 0xb8) & !0xfff;
        let of_root = (0..256).any(|bus| {
            let entry = self.tables.memory.read(root + bus * 16);
            entry & 1 == 1 && entry & !0xfff == address
        });
        let first_half = index.is_multiple_of(2);
        if address == root {
            "root entry"
        } else if interrupts != 0 && (interrupts..interrupts + 0x2000).contains(&address) {
            match (first_half, value) {
                (false, _) => "interrupt entry, second half",
                (true, 0) => "interrupt entry taken away",
                (true, _) => "interrupt entry, first half",
            }
        } else if of_root {
            match (first_half, value & 1) {
                (false, _) => "context entry, second half",
                (true, 0) => "context entry taken away",
                (true, _) => "context entry, first half",
            }
        } else if value == 0 {
            "translation or table taken away"
        } else if (TABLES..TABLES + u64::from(PAGES) * 0x1000).contains(&value) {
            "pointer to a table"
        } else if value & 0x80 != 0 {
            "large translation"
        } else {
            "translation"
        }
    }
}

impl TableMemory for Leaky {
    fn pages(&self) -> u32 {
        self.tables.pages()
    }
    fn read64(&self, page: u32, index: u16) -> u64 {
        self.tables.read64(page, index)
    }
    fn write64(&mut self, page: u32, index: u16, value: u64) {
        self.tables.write64(page, index, value);
    }
    fn write_back(&mut self, page: u32, index: u16, count: u16) {
        let what = self.what(page, index, count);
        let number = self.flushes.done.borrow().len();
        self.flushes.done.borrow_mut().push(what);
        if self.flushes.left_out.get() != Some(number) {
            self.tables.write_back(page, index, count);
        }
        self.unit.attack();
    }
}

pub struct Stage {
    pub unit: Vtd,
    pub memory: Memory,
    pub flushes: Rc<Flushes>,
    pub quarantine: Quarantine,
    pub vtd: Option<TestedVtd>,
    pub domains: Vec<DomainId>,
    pub message: Option<InterruptMessage>,
    /// What is to be left out: a step of an operation, by number.
    pub left_out: Option<(usize, Site)>,
    pub operations: usize,
    /// Every step so far.
    pub sites: Vec<(Name, (usize, Site))>,
}

pub type TestedVtd = vtd::Vtd<'static, Vtd, Leaky>;
pub type Phase = (&'static str, fn(&mut Stage) -> Outcome);

/// Memory as firmware leaves it.
pub fn firmware(model: Model) -> Memory {
    let memory = Memory::new();
    for page in (0..u64::from(PAGES))
        .map(|page| TABLES + page * 0x1000)
        .chain([JUNK_PAGE])
    {
        for word in 0..512 {
            memory.write(page + word * 8, JUNK);
        }
        memory.write_back(page, 0x1000);
    }
    // As interrupt entries that would be for everybody: the pages after the first.
    for word in 0..1024 {
        let value = if word % 2 == 0 { 0x66_0001 } else { 0 };
        memory.write(TABLES + 0x1000 + word * 8, value);
    }
    memory.write_back(TABLES + 0x1000, 0x2000);
    // Firmware lets a requester reach a page under the id that the first domain will have.
    let (root, context, table) = (0x10_0000, 0x10_1000, 0x10_2000);
    let width = if model.capability >> 9 & 1 == 1 { 1 } else { 2 };
    let mut entries = Vec::from([
        (root, context | 1),
        (context + u64::from(ONE) * 16, table | 1),
        (context + u64::from(ONE) * 16 + 8, width | 1 << 8),
        (0x11_1000, 0x77_0001),
    ]);
    for level in 0..width + 2 {
        let here = table + level * 0x1000;
        let leaf = level == width + 1;
        let index = if leaf { FIRMWARE >> 12 } else { 0 };
        let leads = if leaf { FIRMWARE } else { here + 0x1000 };
        entries.push((here + index * 8, leads | 3));
    }
    for (address, value) in entries {
        memory.write(address, value);
        memory.write_back(address, 8);
    }
    memory
}

impl Stage {
    pub fn new(scenario: &Scenario, model: Model, memory: &Memory) -> Self {
        let memory = memory.copy();
        let quarantine = scenario.quarantine;
        let root = 0x10_0000;
        let unit = Vtd::new(model, memory.clone());
        unit.leave_on(root, 0x11_0000, 0x40);
        unit.leave_interrupts(0x11_1000);
        unit.set_order(Order::Reversed);
        unit.attack_with(&[ONE, TWO, FAR], &ADDRESSES, 8);
        unit.attack();
        Self {
            unit,
            memory,
            flushes: Rc::default(),
            quarantine,
            vtd: None,
            domains: Vec::new(),
            message: None,
            left_out: None,
            operations: 0,
            sites: Vec::new(),
        }
    }

    /// An operation of the back end, with a step left out if it is this one's turn.
    pub fn operation<R>(&mut self, name: &'static str, run: impl FnOnce(&mut TestedVtd) -> R) -> R {
        self.begin();
        let outcome = run(self.vtd.as_mut().unwrap());
        self.end(name);
        outcome
    }

    pub fn begin(&mut self) {
        let here = self
            .left_out
            .filter(|(number, _)| *number == self.operations);
        let (step, flush) = match here {
            Some((_, Site::Step(nth))) => (Some(nth), None),
            Some((_, Site::Flush(nth))) => (None, Some(nth)),
            None => (None, None),
        };
        self.unit.leave_out(step);
        self.flushes.done.borrow_mut().clear();
        self.flushes.left_out.set(flush);
    }

    pub fn end(&mut self, operation: &'static str) {
        let mut before = String::from("nothing");
        for (nth, step) in self.unit.steps().iter().enumerate() {
            let what = match step {
                Step::Invalidation(low) => {
                    let about = match (low & 0xf, low >> 4 & 3) {
                        (1, 1) => "all contexts",
                        (1, _) if low >> 16 & 0xffff == 0 => "a context that was not present",
                        (1, _) => "a context",
                        (2, 1) => "all translations",
                        (2, 2) => "a domain",
                        (2, _) => "pages",
                        (3, _) => "a device's cache",
                        (_, 0) => "all interrupt entries",
                        _ => "interrupt entries",
                    };
                    before = about.into();
                    format!("invalidation of {about}")
                }
                Step::Fence => format!("fence after {before}"),
                Step::BufferFlush => "flush of the write buffer".into(),
            };
            let number = self.operations;
            self.sites
                .push(((operation, what), (number, Site::Step(nth))));
        }
        for (nth, what) in self.flushes.done.borrow().iter().enumerate() {
            let site = (self.operations, Site::Flush(nth));
            let operation = match *what {
                "zeros of a new table" => "any",
                _ => operation,
            };
            self.sites
                .push(((operation, format!("write-back: {what}")), site));
        }
        self.operations += 1;
        self.flushes.left_out.set(None);
        self.unit.leave_out(None);
    }

    pub fn reaches(&self, requester: u16, address: u64, expected: Option<u64>) -> Outcome {
        for direction in [Dma::Read, Dma::Write] {
            let reached = self.unit.dma(requester, address, direction).ok();
            if reached != expected {
                return Err(format!("{requester:#x} at {address:#x}: {reached:x?}"));
            }
        }
        Ok(())
    }

    /// The devices reach nothing of what was ever mapped, or of what memory held before.
    pub fn nobody_else(&self, allowed: &[(u16, u64)]) -> Outcome {
        for requester in [ONE, TWO, FAR] {
            for address in ADDRESSES {
                if !allowed.contains(&(requester, address)) {
                    let reached = self.unit.dma(requester, address, Dma::Read);
                    if let Ok(reached) = reached {
                        return Err(format!("{requester:#x} at {address:#x}: {reached:#x}"));
                    }
                }
            }
        }
        Ok(())
    }

    pub fn delivered(
        &self,
        requester: u16,
        message: InterruptMessage,
        vector: Option<u8>,
    ) -> Outcome {
        let sent = self.unit.message(requester, message.address, message.data);
        let got = sent.ok().map(|interrupt| interrupt.vector);
        if got == vector {
            Ok(())
        } else {
            Err(format!("{requester:#x} raised {got:x?}"))
        }
    }
}
