//! What a server begins a life with.

use std::rc::Rc;
use std::slice::IterMut;

use iommu_core::vtd::unit::FaultMessage;
use iommu_core::vtd::{self, Options, Quarantine, Remap, UnitSetup};
use iommu_core::{ClientLimits, Setup};
use pci_core::bank::Bank;

use crate::above::IommuShard;
use crate::below::{IOMMU_SLOTS, Memory, Registers, TableWindow};
use crate::hardware::TABLES;
use crate::setting::{DEVICE_MEMORY, POOL, QUOTA, Setting, WINDOW_BITS};

/// The device memory of the pci-server.
pub(crate) fn bank() -> Bank {
    let mut bank = Bank::new();
    for (slot, base, bits) in DEVICE_MEMORY {
        bank.add(slot, base, bits).expect("room in the bank");
    }
    bank
}

/// Memory of a server's next life.
pub(crate) fn life<'s, T>(
    spare: &mut IterMut<'s, Option<Box<T>>>,
    make: impl FnOnce() -> T,
) -> &'s mut T {
    let place = spare.next().expect("so many lives");
    place.insert(Box::new(make()))
}

pub(crate) fn boot_iommu<'s>(
    storage: &'s mut iommu_core::Storage,
    units: &'s mut vtd::Storage,
    memory: &Memory,
    setting: &Setting,
) -> IommuShard<'s> {
    let hardware = &memory.hardware;
    let unit = UnitSetup {
        window: Registers(Rc::clone(hardware)),
        segment: 0,
        include_all: true,
        scopes: &[],
        message: FaultMessage {
            address: 0xfee0_1000,
            data: 0x4e,
        },
    };
    let options = Options {
        remap: Remap::WherePossible,
        quarantine: Quarantine::Blocking,
        clients: usize::from(setting.clients),
    };
    let tables = TableWindow(Rc::clone(hardware));
    let unit = std::iter::once(unit);
    let again = iommu_core::has_started(memory);
    let vtd = if again {
        memory.adopted.borrow_mut().clear();
        vtd::Vtd::adopt(units, tables, TABLES, unit, &options)
    } else {
        vtd::Vtd::start(units, tables, TABLES, unit, &options)
    };
    let limits = ClientLimits {
        quota: QUOTA,
        largest: u64::MAX,
        window_bits: WINDOW_BITS,
    };
    let limits = vec![limits; usize::from(setting.clients)];
    let setup = Setup {
        clients: &limits,
        buses: &[(0, 0, 0x3f)],
        slots: IOMMU_SLOTS,
        pool: &POOL,
        reserved: &[],
        aliases: &[],
        reserved_allowed: &[],
        // The rules try everything at every step: no device is silenced for it.
        fault_bound: u32::MAX,
    };
    let shard = if again {
        iommu_core::Shard::recover(storage, memory.clone(), vtd, &setup)
    } else {
        iommu_core::Shard::new(storage, memory.clone(), vtd, &setup)
    };
    shard.expect("a shard")
}
