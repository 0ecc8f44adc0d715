//! Leaves of 2 MiB and 1 GiB: used where everything is aligned, mixed with
//! small ones, and cheap.

use std::cell::Cell;
use std::rc::Rc;

use ipc_proto::{Access, ClientId};
use sim::vtd::{Dma, Memory, Model, Vtd};

use super::kernel::forever;
use super::machine::{MESSAGE, Machine, OPTIONS, TABLES, TestTables, device, small};
use crate::vtd::{self, UnitSetup};
use crate::{Backend, DeviceCache, Extent, TableMemory};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn extent(physical: u64, bytes: u64) -> Extent {
    Extent {
        physical,
        bytes,
        frames: 0,
        page_bits: 21,
    }
}

#[test]
fn a_gigabyte_takes_one_entry() {
    for model in [
        Model::QEMU,
        Model::QEMU.caching(),
        Model::QEMU.four_levels(),
    ] {
        let Machine { units, mut vtd } = Machine::new(&[model]);
        let domain = vtd.create_domain(ClientId(0)).unwrap();
        vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
        let dma = |iova| units[0].dma(0x18, iova, Dma::Write);
        let (at, physical) = (4 * GIB, 16 * GIB);
        // An empty directory and table are in the way of one of them.
        vtd.map(domain, at + 5 * MIB, &[small(0x5000, 1)], Access::Read)
            .unwrap();
        assert!(units[0].dma(0x18, at + 5 * MIB, Dma::Read).is_ok());
        vtd.unmap(domain, at + 5 * MIB, 0x1000).unwrap();
        let tables = vtd.tables_used();
        vtd.map(domain, at, &[extent(physical, 2 * GIB)], Access::ReadWrite)
            .unwrap();
        assert_eq!(vtd.tables_used(), tables - 2);
        for offset in [0, 5 * MIB, GIB - 1, GIB, 2 * GIB - 1] {
            assert_eq!(dma(at + offset), Ok(physical + offset));
        }
        assert!(dma(at - 1).is_err() && dma(at + 2 * GIB).is_err());
        vtd.unmap(domain, at, 2 * GIB).unwrap();
        for offset in [0, 5 * MIB, GIB, 2 * GIB - 1] {
            assert!(dma(at + offset).is_err());
        }
        vtd.map(domain, at + MIB, &[small(0x6000, 1)], Access::ReadWrite)
            .unwrap();
        assert_eq!(dma(at + MIB), Ok(0x6000));
        assert!(dma(at + MIB + 0x1000).is_err());
    }
}

#[test]
fn an_extent_that_begins_and_ends_oddly_takes_leaves_of_all_sizes() {
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU]);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    let dma = |iova| units[0].dma(0x18, iova, Dma::Read);
    // 4 KiB, 2 MiB, 1 GiB, 2 MiB, 4 KiB.
    let lead = 2 * MIB + 0x1000;
    let bytes = GIB + 2 * lead;
    let (at, physical) = (8 * GIB - lead, 32 * GIB - lead);
    vtd.map(domain, at, &[extent(physical, bytes)], Access::Read)
        .unwrap();
    // Root; a directory and a table at either end.
    assert_eq!(vtd.tables_used(), 5);
    for offset in [
        0,
        0xfff,
        0x1000,
        lead - 1,
        lead,
        lead + GIB - 1,
        lead + GIB,
        bytes - 0x1000,
        bytes - 1,
    ] {
        assert_eq!(dma(at + offset), Ok(physical + offset), "{offset:#x}");
    }
    assert!(dma(at - 1).is_err() && dma(at + bytes).is_err());
    vtd.unmap(domain, at, bytes).unwrap();
    for offset in [0, 0x1000, lead, lead + GIB, bytes - 1] {
        assert!(dma(at + offset).is_err(), "{offset:#x}");
    }
    vtd.detach(device(0x18), domain).unwrap();
    vtd.destroy_domain(domain).unwrap();
    assert_eq!(vtd.tables_used(), 0);
}

#[test]
fn units_without_them_get_smaller_leaves() {
    let mut no_huge = Model::QEMU;
    no_huge.capability &= !(1 << 35);
    for (model, tables) in [(no_huge, 2), (Model::QEMU.small_pages(), 10)] {
        let Machine { units, mut vtd } = Machine::new(&[model]);
        let domain = vtd.create_domain(ClientId(0)).unwrap();
        vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
        vtd.map(domain, GIB, &[extent(4 * GIB, 16 * MIB)], Access::Read)
            .unwrap();
        assert_eq!(vtd.tables_used(), tables);
        let last = units[0].dma(0x18, GIB + 16 * MIB - 1, Dma::Read);
        assert_eq!(last, Ok(4 * GIB + 16 * MIB - 1));
    }
}

/// Counts accesses.
struct Counted {
    tables: TestTables,
    accesses: Rc<Cell<usize>>,
}

impl Counted {
    fn count(&self) {
        self.accesses.set(self.accesses.get() + 1);
    }
}

impl TableMemory for Counted {
    fn pages(&self) -> u32 {
        self.tables.pages()
    }
    fn read64(&self, page: u32, index: u16) -> u64 {
        self.count();
        self.tables.read64(page, index)
    }
    fn write64(&mut self, page: u32, index: u16, value: u64) {
        self.count();
        self.tables.write64(page, index, value);
    }
    fn write_back(&mut self, page: u32, index: u16, count: u16) {
        self.count();
        self.tables.write_back(page, index, count);
    }
}

#[test]
fn two_mebibytes_cost_what_four_kibibytes_cost_and_sixteen_little_more() {
    let memory = Memory::new();
    let unit = Vtd::new(Model::QEMU, memory.clone());
    let accesses = Rc::new(Cell::new(0));
    let tables = Counted {
        tables: TestTables { memory, pages: 64 },
        accesses: accesses.clone(),
    };
    let setup = UnitSetup {
        window: unit.clone(),
        segment: 0,
        include_all: true,
        scopes: &[],
        message: MESSAGE,
    };
    let setups = core::iter::once(setup);
    let storage = forever(vtd::Storage::new());
    let mut vtd = vtd::Vtd::start(storage, tables, TABLES, setups, &OPTIONS);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    let mut cost = |at: u64, bytes: u64| {
        // The first time makes tables.
        let mut cost = (0, 0);
        for _ in 0..2 {
            accesses.set(0);
            let memory = [extent(4 * GIB, bytes)];
            vtd.map(domain, at, &memory, Access::ReadWrite).unwrap();
            let mapped = accesses.replace(0);
            vtd.unmap(domain, at, bytes).unwrap();
            cost = (mapped, accesses.get());
        }
        cost
    };
    // Mapping: an entry and its flush. Unmapping: the same, four words of descriptors, and the status read.
    let small = cost(0x10_0000, 0x1000);
    assert_eq!(small, (2, 7));
    // The entry is looked at before it is written or cleared.
    let large = cost(0x20_0000, 2 * MIB);
    assert_eq!(large, (3, 8));
    let eight = cost(0x40_0000, 16 * MIB);
    assert_eq!(eight, (17, 22));
}
