//! [`Pd`]: a protection domain's start, and what it was given.
//!
//! ```text
//! sel4_rt::entry!(main);
//! fn main(_argument: u64) -> ! {
//!     let pd = Pd::start();
//!     ...
//!     pd.ready();
//! ```

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ipc_proto::log::{LogRing, RING_BYTES};
use ipc_proto::{Refusal, Rule, console, iommu, msi, supervisor, timer};
use sel4::{Endpoint, Reply};
use system::info::{ConsoleInfo, IommuInfo, MsiInfo, PciInfo, PdInfo, Role, TimerInfo};
use system::layout::{ledger_pages, slot, va};
use system::model::FORMAT;

use crate::port::outgoing;
use crate::{
    AddressSpace, Below, CSpace, EcamSpace, MmioRegion, Port, TablePages, TscClock, log, parking,
};

/// Bytes of HPET registers (IA-PC HPET 1.0a, 2.3.1).
const HPET_BYTES: usize = 1024;

/// A protection domain.
#[derive(Debug)]
pub struct Pd {
    info: PdInfo,
    restarts: u64,
}

/// A value that is made once, by the PD's only thread.
struct Once<T> {
    begun: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: `make` hands the value out once and to one caller.
unsafe impl<T> Sync for Once<T> {}

impl<T> Once<T> {
    const fn new() -> Self {
        Self {
            begun: AtomicBool::new(false),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Makes the value in place; `None` when that was tried before.
    #[expect(
        clippy::mut_from_ref,
        reason = "the flag lets one caller have the one reference"
    )]
    fn make(
        &'static self,
        make: impl FnOnce(&mut MaybeUninit<T>) -> Option<&mut T>,
    ) -> Option<&'static mut T> {
        if self.begun.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: the flag lets exactly one caller come here, so there is no other reference.
        make(unsafe { &mut *self.value.get() })
    }
}

static PD: Once<Pd> = Once::new();
static CSPACE: Once<CSpace> = Once::new();
static ADDRESSES: Once<AddressSpace> = Once::new();

impl Pd {
    /// Finds the PD's log and information, and checks that the information is for this program and kernel.
    /// To be called once, first. A PD that cannot start says why in its log and stops.
    #[must_use]
    pub fn start() -> &'static Self {
        Self::start_again(0)
    }

    /// The same for a server that may have been restarted: `restarts` is what its entry point was given. The one
    /// whose request was being served when the server ended is told so first of all.
    #[must_use]
    pub fn start_again(restarts: u64) -> &'static Self {
        if restarts == GIVEN_UP {
            refuse_everybody()
        }
        if restarts > 0 {
            // Of the kernel's thread object, which outlived what the thread was doing.
            let (info, words) = outgoing(&Refusal::new(Rule::Restarted, 0).to_message(), 0);
            Reply::new().send(info, words);
        }
        // SAFETY: the root task maps a log ring here for the PD's life; it is made of atomics alone.
        let ring =
            unsafe { &*core::ptr::with_exposed_provenance::<LogRing>(va::LOG_RING as usize) };
        log::install(ring);
        let Some(pd) = PD.make(|place| decode(information(), restarts, place)) else {
            stop("the PD was started twice or its information is damaged")
        };
        if pd.info.format != FORMAT {
            stop("the PD's information has another format: rebuild the image");
        }
        if pd.info.abi_fingerprint != sel4::ABI_FINGERPRINT {
            stop("this program was built for another kernel than the root task: rebuild the image");
        }
        pd
    }

    /// What the root task told the PD.
    #[must_use]
    pub const fn info(&self) -> &PdInfo {
        &self.info
    }

    /// How often the PD was restarted: 0 at the first start.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// The server's ledger, which is kept when it is restarted; nothing in a PD of another kind.
    #[must_use]
    pub fn ledger(&self) -> &'static [AtomicU64] {
        let pages = match &self.info.role {
            Role::Pci(_) => ledger_pages::PCI,
            Role::Iommu(_) => ledger_pages::IOMMU,
            Role::Msi(_) => ledger_pages::MSI,
            Role::Console(_) | Role::Timer(_) | Role::Client(_) => return &[],
        };
        // SAFETY: the root task maps these pages for the PD's life, apart from all else; any bytes are atomics.
        unsafe {
            core::slice::from_raw_parts(
                core::ptr::with_exposed_provenance::<AtomicU64>(va::LEDGER as usize),
                pages as usize * (4096 / size_of::<AtomicU64>()),
            )
        }
    }

    /// The PD's capability slots, once; stops when asked again, since two pools would hand out the same slots.
    #[must_use]
    pub fn cspace(&self) -> &'static mut CSpace {
        match CSPACE.make(|place| Some(place.write(CSpace::new(&self.info, self.restarts)))) {
            Some(cspace) => cspace,
            None => stop("the capability slots were asked for twice"),
        }
    }

    /// The ranges where the PD maps frames itself, once; stops when asked again. Only clients and pci-server
    /// shards have the page tables for it.
    #[must_use]
    pub fn address_space(&self) -> &'static mut AddressSpace {
        match ADDRESSES.make(|place| Some(place.write(AddressSpace::new()))) {
            Some(addresses) => addresses,
            None => stop("the address space was asked for twice"),
        }
    }

    /// The time-stamp counter as a clock.
    #[must_use]
    pub const fn clock(&self) -> TscClock {
        TscClock::new(self.info.tsc_mhz)
    }

    /// What a pci-server shard was given; stops in a PD of another kind.
    #[must_use]
    pub fn pci_info(&self) -> &PciInfo {
        match &self.info.role {
            Role::Pci(info) => info,
            _ => wrong_kind(),
        }
    }

    /// What an iommu-server shard was given; stops in a PD of another kind.
    #[must_use]
    pub fn iommu_info(&self) -> &IommuInfo {
        match &self.info.role {
            Role::Iommu(info) => info,
            _ => wrong_kind(),
        }
    }

    /// What an msi-server shard was given; stops in a PD of another kind.
    #[must_use]
    pub fn msi_info(&self) -> &MsiInfo {
        match &self.info.role {
            Role::Msi(info) => info,
            _ => wrong_kind(),
        }
    }

    /// What the console service was given; stops in a PD of another kind.
    #[must_use]
    pub fn console_info(&self) -> &ConsoleInfo {
        match &self.info.role {
            Role::Console(info) => info,
            _ => wrong_kind(),
        }
    }

    /// What the timer service was given; stops in a PD of another kind.
    #[must_use]
    pub fn timer_info(&self) -> &TimerInfo {
        match &self.info.role {
            Role::Timer(info) => info,
            _ => wrong_kind(),
        }
    }

    /// What a client was given; stops in a PD of another kind.
    #[must_use]
    pub fn client_info(&self) -> &system::info::ClientInfo {
        match &self.info.role {
            Role::Client(info) => info,
            _ => wrong_kind(),
        }
    }

    /// pci-server: configuration space of the shard's buses.
    #[must_use]
    pub fn ecam(&self) -> EcamSpace {
        // SAFETY: the root task mapped these windows for the PD's life, apart from all else.
        unsafe { EcamSpace::new(&self.pci_info().ecam) }
    }

    /// iommu-server: registers of unit `index`.
    #[must_use]
    pub fn unit_registers(&self, index: usize) -> Option<MmioRegion> {
        let unit = self.iommu_info().units.get(index)?;
        // SAFETY: the root task mapped these registers for the PD's life, apart from all else.
        Some(unsafe { MmioRegion::new(unit.vaddr, unit.bytes as usize) })
    }

    /// iommu-server: the table memory.
    #[must_use]
    pub fn tables(&self) -> TablePages {
        let info = self.iommu_info();
        // SAFETY: the root task mapped this memory for the PD's life, apart from all else.
        let region =
            unsafe { MmioRegion::new(info.tables_vaddr, info.tables_pages as usize * 4096) };
        TablePages::new(region, info.tables_paddr)
    }

    /// Timer service: the HPET's registers.
    #[must_use]
    pub fn hpet(&self) -> MmioRegion {
        // SAFETY: the root task mapped this page for the PD's life, apart from all else.
        unsafe { MmioRegion::new(self.timer_info().hpet_vaddr, HPET_BYTES) }
    }

    /// Console service: the log ring of PD `pd`; `None` when there is no such PD.
    #[must_use]
    pub fn ring(&self, pd: usize) -> Option<&'static LogRing> {
        self.console_info().names.get(pd)?;
        let address = va::RINGS as usize + pd * RING_BYTES;
        // SAFETY: the root task mapped a ring for every PD that has a name here; rings are made of atomics alone.
        Some(unsafe { &*core::ptr::with_exposed_provenance::<LogRing>(address) })
    }

    /// The supervisor.
    #[must_use]
    pub const fn supervisor(&self) -> supervisor::Stub<Port> {
        supervisor::Stub(Port::at(slot::SUPERVISOR))
    }

    /// The timer service.
    #[must_use]
    pub const fn timer(&self) -> timer::Stub<Port> {
        timer::Stub(Port::at(slot::TIMER))
    }

    /// The console service.
    #[must_use]
    pub const fn console(&self) -> console::Stub<Port> {
        console::Stub(Port::at(slot::CONSOLE))
    }

    /// pci-server: iommu-server shard `shard`.
    #[must_use]
    pub const fn iommu(&self, shard: u8) -> iommu::Stub<Below> {
        iommu::Stub(Below(Port::at(slot::IOMMU + shard as u64)))
    }

    /// pci-server: msi-server shard `shard`.
    #[must_use]
    pub const fn msi(&self, shard: u8) -> msi::Stub<Below> {
        msi::Stub(Below(Port::at(slot::MSI + shard as u64)))
    }

    /// Tells the supervisor that the PD has done its start-up. Stops when the supervisor refuses.
    pub fn ready(&self) {
        if let Err(refusal) = self.supervisor().ready() {
            crate::log!("the supervisor refused: {refusal}");
            stop("the supervisor does not know this PD");
        }
        // What came before was no turn of a server's loop.
        crate::turns::begin();
    }

    /// Tells the supervisor that the PD has finished. 0 is success. What was logged is written first.
    pub fn exit(&self, code: u32) -> ! {
        log::flush();
        // Not answered: the supervisor takes the PD down. An answer is a refusal.
        let _ = self.supervisor().exit(code);
        stop("the supervisor did not take the PD down")
    }
}

/// What a server is started with that is not to serve any more: it died too often.
pub const GIVEN_UP: u64 = u64::MAX;

/// Refuses whatever is asked, and first of all what was being served and what waits, so that nobody waits for a dead
/// server.
fn refuse_everybody() -> ! {
    let refusal = Refusal::from(Rule::ServerBroken);
    let (info, words) = outgoing(&refusal.to_message(), 0);
    let endpoint = Endpoint::at(slot::ENDPOINT);
    let mut reply = Reply::new();
    reply.send(info, words);
    // The information is the root task's, whatever has become of this PD's own memory. If it were damaged, those who wait would wait on.
    if let Some(pd) = PD.make(|place| decode(information(), 0, place)) {
        parking::refuse_all(&pd.info, &refusal);
    }
    loop {
        // Nobody is answered after an event. What comes along is deleted with the next that comes.
        let _ = endpoint.reply_recv(&mut reply, info, words);
    }
}

/// Where the root task has put the PD's information.
fn information() -> &'static [u8] {
    // SAFETY: the root task maps the information here, read-only, for the PD's life.
    unsafe {
        core::slice::from_raw_parts(
            core::ptr::with_exposed_provenance::<u8>(va::INFO as usize),
            va::INFO_BYTES as usize,
        )
    }
}

fn wrong_kind() -> ! {
    stop("the PD's information is for another kind of PD")
}

/// Logs why, and stops by a fault that the supervisor sees.
#[expect(
    clippy::panic,
    reason = "the way to stop: the supervisor is told by a fault, and the reason is in the log"
)]
pub fn stop(why: &str) -> ! {
    panic!("{why}")
}

/// Decodes the PD's information where it is to stay.
#[inline(never)]
fn decode<'p>(region: &[u8], restarts: u64, place: &'p mut MaybeUninit<Pd>) -> Option<&'p mut Pd> {
    let (length, bytes) = region.split_first_chunk::<4>()?;
    let bytes = bytes.get(..u32::from_le_bytes(*length) as usize)?;
    let pd = place.write(
        const {
            Pd {
                info: PdInfo::empty(),
                restarts: 0,
            }
        },
    );
    pd.restarts = restarts;
    pd.info.read(bytes).ok()?;
    Some(pd)
}
