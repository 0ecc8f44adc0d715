//! The back end: VT-d units taken over, or none.

use hw::Mmio;
use iommu_core::vtd::unit::{Compatibility, FaultMessage, Remapping, State};
use iommu_core::vtd::{Options, Quarantine, Remap, Report, Storage, UnitSetup, Vtd};
use iommu_core::{Chosen, Physical, TableMemory};
use sel4::IrqHandler;
use sel4_glue::{CSpace, MmioRegion, Pd, TablePages, log, start};
use system::info::UnitInfo;
use system::layout::event;

/// What this server's shard runs on.
pub type Units = Chosen<Vtd<'static, MmioRegion, Tables>, Physical>;

/// Table memory as the core wants it.
pub struct Tables(TablePages);

impl TableMemory for Tables {
    fn pages(&self) -> u32 {
        self.0.pages()
    }

    #[inline]
    fn read64(&self, page: u32, index: u16) -> u64 {
        self.0.read64(page, index)
    }

    #[inline]
    fn write64(&mut self, page: u32, index: u16, value: u64) {
        self.0.write64(page, index, value);
    }

    #[inline]
    fn write_back(&mut self, page: u32, index: u16, count: u16) {
        self.0.flush(page, index, count);
    }
}

/// Takes every unit over with all devices blocked, and says in the log how each is.
pub fn start(pd: &'static Pd, cspace: &mut CSpace, storage: &'static mut Storage) -> Units {
    let info = pd.iommu_info();
    if info.units.is_empty() {
        log!(
            "no IOMMU: devices reach all memory, and are assigned only if the description says so"
        );
        return Chosen::None(Physical);
    }
    for (number, unit) in info.units.iter().enumerate() {
        let handler = IrqHandler::at(unit.irq_handler.into());
        if let Err(refusal) = cspace.bind_interrupt(handler, event::INTERRUPT << number) {
            log!("unit {number}: its fault event cannot be bound: {refusal}");
            start::stop("no fault event")
        }
    }
    let setups = info
        .units
        .iter()
        .enumerate()
        .filter_map(|(number, unit)| Some(setup(unit, pd.unit_registers(number)?)));
    let options = Options {
        remap: if info.interrupt_remapping {
            Remap::WherePossible
        } else {
            Remap::Nowhere
        },
        quarantine: Quarantine::Blocking,
        clients: pd.info().clients.len(),
    };
    let tables = Tables(pd.tables());
    let vtd = Vtd::start(storage, tables, info.tables_paddr, setups, &options);
    for (number, unit) in info.units.iter().enumerate() {
        if let Some(report) = vtd.report(number) {
            describe(number, unit, &report);
        }
    }
    if let Some(shape) = vtd.geometry() {
        log!(
            "page tables of {} levels for {}-bit addresses, pages of 2 MiB {}, of 1 GiB {}",
            shape.levels,
            shape.address_bits,
            yes(shape.large_pages),
            yes(shape.huge_pages),
        );
    }
    Chosen::Units(vtd)
}

fn setup<M: Mmio>(unit: &UnitInfo, window: M) -> UnitSetup<'_, M> {
    UnitSetup {
        window,
        segment: unit.segment,
        include_all: unit.include_all,
        scopes: &unit.scopes,
        message: FaultMessage {
            address: unit.irq_address,
            data: unit.irq_data,
        },
    }
}

fn describe(number: usize, unit: &UnitInfo, report: &Report) {
    let (paddr, segment) = (unit.paddr, unit.segment);
    match (report.state, report.capabilities) {
        (State::Running, Some(has)) => log!(
            "unit {number} at {paddr:#x}, segment {segment}: every device blocked; {} domains, {} fault record(s), \
             caching mode {}, device caches {}, interrupts {}",
            has.domains,
            has.fault_records,
            yes(has.caching_mode),
            yes(has.device_tlb),
            match report.remapping {
                Remapping::Off => "pass",
                Remapping::On {
                    compatibility: Compatibility::Blocked,
                } => "remapped, compatibility format off",
                Remapping::On {
                    compatibility: Compatibility::Passes,
                } => "remapped, compatibility format passes",
            },
        ),
        (State::Failed(error), _) => log!(
            "unit {number} at {paddr:#x}, segment {segment}: {error}; no device behind it will be assigned"
        ),
        (State::Running, None) => {}
    }
}

fn yes(property: bool) -> &'static str {
    if property { "yes" } else { "no" }
}
