//! The back end: VT-d or AMD units taken over, the kernel's I/O spaces, or none.
//!
//! Interrupts are remapped where a unit can and the description does not say
//! otherwise, with the compatibility format blocked. The kernel writes I/O APIC
//! entries in just that format, so where a unit sits between the I/O APIC and
//! the processor, every line interrupt would be lost, the timer's first of all.
//! Whether that is so is tried ([`lines_arrive`]); if it is, the compatibility
//! format passes, and no device is told that its interrupts are isolated
//! (`docs/adr/0005-interrupt-isolation.md`).

use hw::{Clock, Mmio};
use iommu_core::amdvi::{self, AmdVi};
use iommu_core::iospace::{self, IoSpaces};
use iommu_core::pool::Slots;
use iommu_core::vtd::unit::{Compatibility, FaultMessage, Remapping, State};
use iommu_core::vtd::{self, Options, Quarantine, Remap, Report, UnitSetup, Vtd};
use iommu_core::{Chosen, Physical, TableMemory};
use ipc_proto::Badge;
use sel4::{IrqHandler, Notification};
use sel4_glue::{CSpace, MmioRegion, Pd, TablePages, log, start};
use system::info::{IoSpaceInfo, UnitInfo};
use system::layout::{event, slot};
use system::model::{self, IommuChoice};

use crate::spaces::KernelSpaces;

/// What this server's shard runs on.
pub type Units = Chosen<
    Vtd<'static, MmioRegion, Tables>,
    Chosen<AmdVi<'static, MmioRegion, Tables>, Chosen<IoSpaces<'static, KernelSpaces>, Physical>>,
>;

/// Memory of either back end.
pub struct Memory {
    vtd: vtd::Storage,
    amdvi: amdvi::Storage,
    spaces: iospace::Storage,
    space_slots: Slots,
}

impl Memory {
    /// Empty.
    pub const fn new() -> Self {
        Self {
            vtd: vtd::Storage::new(),
            amdvi: amdvi::Storage::new(),
            spaces: iospace::Storage::new(),
            space_slots: Slots::empty(),
        }
    }
}

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

/// Whether this is the server's first life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Units are taken over with every device blocked.
    First,
    /// Units are taken up as an earlier life has left them.
    Again,
}

/// Takes every unit over with all devices blocked, or takes up those that run, and says in the log how each is.
pub fn start(
    pd: &'static Pd,
    cspace: &mut CSpace,
    memory: &'static mut Memory,
    life: Life,
) -> Units {
    let info = pd.iommu_info();
    if life == Life::Again && info.io_space.is_some() {
        log!(
            "what the kernel has mapped for devices cannot be read back: devices go on, nothing more is served"
        );
        start::stop("no restart over the kernel's driver");
    }
    if let Some(kernel) = info.io_space {
        return Chosen::None(Chosen::None(Chosen::Units(start_kernel(
            pd, cspace, kernel, memory,
        ))));
    }
    if info.units.is_empty() {
        log!(
            "no IOMMU: devices reach all memory, and are assigned only if the description says so"
        );
        return Chosen::None(Chosen::None(Chosen::None(Physical)));
    }
    for (number, unit) in info.units.iter().enumerate() {
        let handler = IrqHandler::at(unit.irq_handler.into());
        if let Err(refusal) = cspace.bind_interrupt(handler, event::INTERRUPT << number) {
            log!("unit {number}: its fault event cannot be bound: {refusal}");
            start::stop("no fault event")
        }
    }
    let options = Options {
        remap: if info.interrupt_remapping {
            Remap::WherePossible
        } else {
            Remap::Nowhere
        },
        quarantine: match info.quarantine {
            model::Quarantine::Blocking => Quarantine::Blocking,
            model::Quarantine::Scratch => Quarantine::Scratch,
        },
        clients: pd.info().clients.len(),
    };
    let tables = Tables(pd.tables());
    if info
        .units
        .iter()
        .any(|unit| unit.kind == IommuChoice::AmdVi)
    {
        return Chosen::None(Chosen::Units(start_amd(
            pd,
            &mut memory.amdvi,
            tables,
            &options,
            life,
        )));
    }
    let setups = info
        .units
        .iter()
        .enumerate()
        .filter_map(|(number, unit)| Some(setup(unit, pd.unit_registers(number)?)));
    let (storage, paddr) = (&mut memory.vtd, info.tables_paddr);
    let mut vtd = match life {
        Life::First => Vtd::start(storage, tables, paddr, setups, &options),
        Life::Again => Vtd::adopt(storage, tables, paddr, setups, &options),
    };
    // A unit that is taken up says itself what passes.
    if life == Life::First && info.interrupt_remapping && !lines_arrive(pd) {
        log!("line interrupts are lost with the compatibility format blocked: it passes");
        if !vtd.pass_compatibility() {
            start::stop("line interrupts are lost")
        }
    }
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

/// Works through the kernel's own driver, which has blocked every device when it started.
fn start_kernel(
    pd: &'static Pd,
    cspace: &mut CSpace,
    kernel: IoSpaceInfo,
    memory: &'static mut Memory,
) -> IoSpaces<'static, KernelSpaces> {
    // Half of the slots: each page mapped for a device takes one, as each page of a buffer does.
    let count = cspace.free() / 2;
    let taken = cspace.take_run(count).ok();
    if let Some(slots) = taken.and_then(|first| Slots::new(first, count)) {
        memory.space_slots = slots;
    }
    log!(
        "the kernel drives the IOMMU: every device blocked; pages of 4 KiB, 39-bit addresses, {count} mapped pages at most"
    );
    log!(
        "the kernel's driver does not remap interrupts: a device can forge any; it prints faults and tells nobody"
    );
    let spaces = KernelSpaces::new(kernel, pd.info().cnode_bits);
    let clients = pd.info().clients.len();
    IoSpaces::new(spaces, &mut memory.spaces, &mut memory.space_slots, clients)
}

/// Takes AMD's units over. One segment's: the device table is one for all.
fn start_amd(
    pd: &'static Pd,
    storage: &'static mut amdvi::Storage,
    tables: Tables,
    options: &Options,
    life: Life,
) -> AmdVi<'static, MmioRegion, Tables> {
    let info = pd.iommu_info();
    let segment = info.units.first().map_or(0, |unit| unit.segment);
    let of_segment = |(_, unit): &(usize, &UnitInfo)| unit.segment == segment;
    let setups = info
        .units
        .iter()
        .enumerate()
        .filter(of_segment)
        .filter_map(|(number, unit)| {
            Some(amdvi::UnitSetup {
                window: pd.unit_registers(number)?,
                include_all: unit.include_all,
                scopes: &unit.scopes,
            })
        });
    let paddr = info.tables_paddr;
    let amd = match life {
        Life::First => AmdVi::start(storage, tables, paddr, segment, setups, options),
        Life::Again => AmdVi::adopt(storage, tables, paddr, segment, setups, options),
    };
    for (number, unit) in info.units.iter().enumerate() {
        match amd.report(number) {
            Some(amdvi::unit::State::Running) => {
                log!(
                    "AMD unit {number} at {:#x}: every device blocked",
                    unit.paddr
                );
            }
            Some(amdvi::unit::State::Failed(error)) => {
                log!(
                    "AMD unit {number} at {:#x}: {error}; no device behind it will be assigned",
                    unit.paddr
                );
            }
            None => log!("AMD unit {number}: of another segment, left alone"),
        }
    }
    amd
}

/// How long a line interrupt is waited for, and the timer that raises it, in microseconds.
const TRIAL_US: u64 = 50_000;
const TRIAL_TIMER_US: u64 = 1_000;

/// Whether line interrupts reach the processor: the timer service's is one. Events of units that come meanwhile are
/// taken with it: their records are to be read afterwards.
fn lines_arrive(pd: &Pd) -> bool {
    let clock = pd.clock();
    let end = clock.now_us().saturating_add(TRIAL_US);
    if pd.timer().arm(TRIAL_TIMER_US).is_err() {
        // Without a timer nothing can be learned, and nothing waits for a line.
        return true;
    }
    while clock.now_us() < end {
        let flags = Badge::event_flags(Notification::at(slot::EVENTS).poll());
        if flags.is_some_and(|flags| flags & event::TIMER != 0) {
            return true;
        }
        core::hint::spin_loop();
    }
    false
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
