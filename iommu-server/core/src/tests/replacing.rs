//! The order of steps when a requester changes domains: at every moment it
//! reaches what the old domain says, nothing, or what the new one says.

use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

use ipc_proto::{Access, ClientId};
use sim::vtd::{Dma, Memory, Model, Order, Vtd};

use super::kernel::forever;
use super::machine::{MESSAGE, OPTIONS, TABLES, TestTables, device, dirty_tables, small};
use crate::vtd::{self, Options, Quarantine, UnitSetup};
use crate::{Backend, DeviceCache, TableMemory};

const IOVA: u64 = 0x10_0000;
const ID: u16 = 0x18;
const OLD: u64 = 0x5000;
const NEW: u64 = 0x6000;

/// Tables whose every change is watched: what the device reaches right after it.
struct Watched {
    tables: TestTables,
    unit: Vtd,
    seen: Rc<RefCell<Vec<Option<u64>>>>,
}

impl Watched {
    fn look(&self) {
        let reached = self.unit.dma(ID, IOVA, Dma::Read).ok();
        self.seen.borrow_mut().push(reached);
    }
}

impl TableMemory for Watched {
    fn pages(&self) -> u32 {
        self.tables.pages()
    }
    fn read64(&self, page: u32, index: u16) -> u64 {
        self.tables.read64(page, index)
    }
    fn write64(&mut self, page: u32, index: u16, value: u64) {
        self.tables.write64(page, index, value);
        self.look();
    }
    fn write_back(&mut self, page: u32, index: u16, count: u16) {
        self.tables.write_back(page, index, count);
        self.look();
    }
}

fn models() -> [Model; 5] {
    [
        Model::QEMU,
        Model::QEMU.caching(),
        Model::QEMU.snooping(),
        Model::QEMU.write_buffer(),
        Model::QEMU.four_levels().snooping().caching(),
    ]
}

type Seen = Rc<RefCell<Vec<Option<u64>>>>;

fn watched(model: Model, quarantine: Quarantine) -> (Vtd, Seen, vtd::Vtd<'static, Vtd, Watched>) {
    let memory = Memory::new();
    let unit = Vtd::new(model, memory.clone());
    dirty_tables(&memory, 64);
    unit.set_order(Order::Reversed);
    unit.attack_with(&[ID], &[IOVA, 0], 0);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let tables = Watched {
        tables: TestTables { memory, pages: 256 },
        unit: unit.clone(),
        seen: seen.clone(),
    };
    let setup = UnitSetup {
        window: unit.clone(),
        segment: 0,
        include_all: true,
        scopes: &[],
        message: MESSAGE,
    };
    let options = Options {
        quarantine,
        ..OPTIONS
    };
    let setups = core::iter::once(setup);
    let storage = forever(vtd::Storage::new());
    let vtd = vtd::Vtd::start(storage, tables, TABLES, setups, &options);
    seen.borrow_mut().clear();
    (unit, seen, vtd)
}

/// What was seen, without repetitions.
fn course(seen: &Seen) -> Vec<Option<u64>> {
    let mut course = std::mem::take(&mut *seen.borrow_mut());
    course.dedup();
    course
}

#[test]
fn from_one_domain_to_another_a_device_is_blocked_and_never_let_through() {
    for model in models() {
        let (unit, seen, mut vtd) = watched(model, Quarantine::Blocking);
        let one = vtd.create_domain(ClientId(0)).unwrap();
        let other = vtd.create_domain(ClientId(1)).unwrap();
        vtd.map(one, IOVA, &[small(OLD, 1)], Access::Read).unwrap();
        vtd.map(other, IOVA, &[small(NEW, 1)], Access::Read)
            .unwrap();
        assert_eq!(course(&seen), [None]);
        vtd.attach(device(ID.into()), one, DeviceCache::None)
            .unwrap();
        let attached = course(&seen);
        assert!(attached.iter().all(|at| [None, Some(OLD)].contains(at)));
        vtd.detach(device(ID.into()), one).unwrap();
        assert!(unit.dma(ID, IOVA, Dma::Read).is_err());
        let left = course(&seen);
        assert!(
            left.iter().all(|at| [None, Some(OLD)].contains(at)),
            "{left:x?}"
        );
        vtd.attach(device(ID.into()), other, DeviceCache::None)
            .unwrap();
        let attached = course(&seen);
        assert!(
            attached.iter().all(|at| [None, Some(NEW)].contains(at)),
            "{attached:x?}"
        );
        assert_eq!(unit.dma(ID, IOVA, Dma::Read), Ok(NEW));
    }
}

#[test]
fn in_the_scratch_domain_reads_give_zeros_and_writes_nothing() {
    for model in models() {
        let (unit, seen, mut vtd) = watched(model, Quarantine::Scratch);
        let of_client = vtd.create_domain(ClientId(0)).unwrap();
        vtd.map(of_client, IOVA, &[small(OLD, 1)], Access::ReadWrite)
            .unwrap();
        // It has never been attached: blocked.
        assert!(unit.dma(ID, IOVA, Dma::Read).is_err());
        vtd.attach(device(ID.into()), of_client, DeviceCache::None)
            .unwrap();
        assert_eq!(unit.dma(ID, IOVA, Dma::Read), Ok(OLD));
        course(&seen);
        vtd.detach(device(ID.into()), of_client).unwrap();
        let scratch = unit.dma(ID, IOVA, Dma::Read).unwrap();
        assert!((TABLES..TABLES + (256 << 12)).contains(&scratch));
        for address in [0, 0x1000, IOVA, 0xfee0_0000, (1 << 39) - 0x1000] {
            assert_eq!(
                unit.dma(ID, address, Dma::Read),
                Ok(scratch),
                "{address:#x}"
            );
            assert!(unit.dma(ID, address, Dma::Write).is_err(), "{address:#x}");
        }
        let left = course(&seen);
        let allowed = [None, Some(OLD), Some(scratch)];
        assert!(left.iter().all(|at| allowed.contains(at)), "{left:x?}");
        // Between the two it was blocked.
        assert!(left.contains(&None), "{left:x?}");
        vtd.attach(device(ID.into()), of_client, DeviceCache::None)
            .unwrap();
        let back = course(&seen);
        assert!(back.iter().all(|at| allowed.contains(at)), "{back:x?}");
        assert_eq!(unit.dma(ID, IOVA, Dma::Write), Ok(OLD));
        // One that was silenced is blocked, not indulged.
        vtd.silence(device(ID.into()), Some(of_client)).unwrap();
        vtd.detach(device(ID.into()), of_client).unwrap();
        assert!(unit.dma(ID, IOVA, Dma::Read).is_err());
        vtd.unmap(of_client, IOVA, 0x1000).unwrap();
        vtd.destroy_domain(of_client).unwrap();
    }
}

#[test]
fn the_scratch_page_stays_empty() {
    let (_, _, mut vtd) = watched(Model::QEMU, Quarantine::Scratch);
    // Tables taken afterwards never overlap it: everything that can be mapped is, and undone.
    let before = vtd.tables().used();
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    for place in 0..4 {
        vtd.map(domain, place << 30, &[small(OLD, 1)], Access::Read)
            .unwrap();
    }
    vtd.destroy_domain(domain).unwrap();
    assert_eq!(vtd.tables().used(), before);
}
