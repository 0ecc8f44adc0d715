//! [`Vtd`]: a model of an Intel VT-d unit (specification revision 3.0, legacy
//! mode): registers, queued invalidation, translation, interrupt remapping,
//! devices that keep translations, fault records.
//!
//! It caches everything it may, for ever ([`cache`]), and reads memory as real
//! units do ([`memory`]), so a driver that forgets an invalidation, a cache
//! flush or an order of steps lets a device reach memory it should not, or not
//! reach what it should. [`Fault`]s can be provoked, and answers withheld.
//!
//! Layouts are written here from the specification, not taken from the driver.

mod attack;
pub mod cache;
mod device_tlb;
mod interrupts;
pub mod memory;
mod queue;
mod registers;
mod translate;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub use attack::{Order, Step};
pub use cache::{CachedContext, CachedPage, Caches};
pub use interrupts::Interrupt;
pub use memory::{Memory, Snoop};

/// Direction of a device's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dma {
    /// The device reads memory.
    Read,
    /// The device writes memory.
    Write,
}

/// Why a request was blocked: the unit's reason codes (7.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Reason {
    /// The root entry is not present.
    RootNotPresent = 1,
    /// The context entry is not present.
    ContextNotPresent = 2,
    /// The context entry asks for what the unit does not have.
    ContextInvalid = 3,
    /// The address is too wide.
    BeyondWidth = 4,
    /// No permission to write.
    Write = 5,
    /// No permission to read.
    Read = 6,
    /// A reserved bit of a root entry is set.
    RootReserved = 10,
    /// A reserved bit of a context entry is set.
    ContextReserved = 11,
    /// A reserved bit of a paging entry is set.
    PagingReserved = 12,
    /// The context entry does not let the device keep translations.
    Translated = 13,
    /// The interrupt's index is beyond the table.
    InterruptIndex = 0x21,
    /// The interrupt entry is not present.
    InterruptNotPresent = 0x22,
    /// A reserved bit of an interrupt entry is set.
    InterruptReserved = 0x24,
    /// A message in the compatibility format was blocked.
    Compatibility = 0x25,
    /// The interrupt entry is for another requester.
    InterruptSource = 0x26,
}

/// What a unit does not do although it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ailment {
    /// It answers everything.
    Healthy,
    /// Commands never show in the status.
    IgnoresCommands,
    /// Descriptors are never fetched.
    QueueStuck,
    /// Every descriptor is called invalid.
    RejectsDescriptors,
    /// The next so many batches end with "device did not answer".
    DeviceSilent(u32),
    /// This requester never answers invalidations of what it keeps.
    DeviceMute(u16),
    /// Context invalidations are confirmed but not carried out: what a driver
    /// that never sends them would get.
    DeafToContexts,
    /// The same for translations.
    DeafToTranslations,
    /// The fault status always claims a pending fault, and no record has one.
    ClaimsFaults,
}

/// What changed in the unit, in order: for tests of the order of steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The root table pointer was taken.
    RootTaken(u64),
    /// Translation went on.
    TranslationOn,
    /// Translation went off.
    TranslationOff,
    /// Queued invalidation went on.
    QueueOn,
    /// Queued invalidation went off.
    QueueOff,
    /// All context entries were forgotten.
    ContextsForgotten,
    /// All translations were forgotten.
    TranslationsForgotten,
    /// The interrupt table pointer was taken.
    InterruptTableTaken(u64),
    /// All interrupt entries were forgotten.
    InterruptsForgotten,
    /// Interrupt remapping went on, with the compatibility format blocked or not.
    RemappingOn {
        /// Messages in the compatibility format pass.
        compatibility: bool,
    },
    /// Interrupt remapping went off.
    RemappingOff,
}

#[derive(Debug)]
pub(crate) struct State {
    memory: Memory,
    capability: u64,
    extended: u64,
    version: u32,
    /// Global status as it is, and as it reads until `shown_after` more reads.
    status: u32,
    shown: u32,
    shown_after: u32,
    response_delay: u32,
    root_written: u64,
    root: u64,
    fault_status: u32,
    fault_control: u32,
    fault_data: u32,
    fault_address: u32,
    fault_upper: u32,
    protected: u32,
    queue_head: u64,
    queue_tail: u64,
    queue_address: u64,
    records: Vec<(u64, u64)>,
    next_record: usize,
    caches: Caches,
    interrupts: Vec<(u64, u32)>,
    events: Vec<Event>,
    ailment: Ailment,
    /// Descriptors carried out.
    descriptors: u64,
    interrupt_table_written: u64,
    interrupt_table: u64,
    page_requests_on: bool,
    /// What devices keep: (requester, page) -> physical address.
    device_tlbs: BTreeMap<(u16, u64), u64>,
    /// With caching mode: what a hypervisor that shadows the tables has understood. Domain id of each
    /// requester whose context was invalidated since it became present, and those of them whose domain was
    /// invalidated after that.
    known: BTreeMap<u16, u16>,
    shadowed: BTreeSet<u16>,
    attackers: Vec<u16>,
    attacked: Vec<u64>,
    attacked_entries: u16,
    order: Order,
    steps: Vec<Step>,
    left_out: Option<usize>,
}

/// A unit. Clones share it: one goes to the driver as its register window, another stays with the
/// test.
#[derive(Clone, Debug)]
pub struct Vtd(Rc<RefCell<State>>);

/// What a unit is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Model {
    /// Capability register.
    pub capability: u64,
    /// Extended capability register.
    pub extended: u64,
}

impl Model {
    /// QEMU's: 39 bits, 2 MiB and 1 GiB pages, one fault record, does not snoop.
    pub const QEMU: Self = Self {
        capability: 0x00d2_008c_2226_0206,
        extended: 0x00f0_0f4a,
    };

    /// With entries that are not present cached too.
    #[must_use]
    pub const fn caching(mut self) -> Self {
        self.capability |= 1 << 7;
        self
    }

    /// With 4-level tables only.
    #[must_use]
    pub const fn four_levels(mut self) -> Self {
        self.capability = self.capability & !(0x1f << 8 | 0x3f << 16) | 4 << 8 | 47 << 16;
        self
    }

    /// Without large pages.
    #[must_use]
    pub const fn small_pages(mut self) -> Self {
        self.capability &= !(0xf << 34);
        self
    }

    /// Without page-selective invalidation.
    #[must_use]
    pub const fn whole_domains(mut self) -> Self {
        self.capability &= !(1 << 39);
        self
    }

    /// With `count` fault records (1..=256).
    #[must_use]
    pub const fn records(mut self, count: u64) -> Self {
        self.capability = self.capability & !(0xff << 40) | (count - 1) << 40;
        self
    }

    /// Snooping the processor's cache.
    #[must_use]
    pub const fn snooping(mut self) -> Self {
        self.extended |= 1;
        self
    }

    /// Devices may keep translations.
    #[must_use]
    pub const fn device_tlb(mut self) -> Self {
        self.extended |= 1 << 2;
        self
    }

    /// Without interrupt remapping.
    #[must_use]
    pub const fn no_remapping(mut self) -> Self {
        self.extended &= !(1 << 3);
        self
    }

    /// Behind a chipset with a write buffer.
    #[must_use]
    pub const fn write_buffer(mut self) -> Self {
        self.capability |= 1 << 4;
        self
    }
}

impl Vtd {
    /// A unit at reset, over a machine's memory.
    #[must_use]
    pub fn new(model: Model, memory: Memory) -> Self {
        if model.capability >> 4 & 1 == 1 {
            memory.with_write_buffer();
        }
        let records = (model.capability >> 40 & 0xff) as usize + 1;
        Self(Rc::new(RefCell::new(State {
            memory,
            capability: model.capability,
            extended: model.extended,
            version: 0x10,
            status: 0,
            shown: 0,
            shown_after: 0,
            response_delay: 0,
            root_written: 0,
            root: 0,
            fault_status: 0,
            fault_control: 1 << 31,
            fault_data: 0,
            fault_address: 0,
            fault_upper: 0,
            protected: 0,
            queue_head: 0,
            queue_tail: 0,
            queue_address: 0,
            records: vec![(0, 0); records],
            next_record: 0,
            caches: Caches::default(),
            interrupts: Vec::new(),
            events: Vec::new(),
            ailment: Ailment::Healthy,
            descriptors: 0,
            interrupt_table_written: 0,
            interrupt_table: 0,
            page_requests_on: false,
            device_tlbs: BTreeMap::new(),
            known: BTreeMap::new(),
            shadowed: BTreeSet::new(),
            attackers: Vec::new(),
            attacked: Vec::new(),
            attacked_entries: 0,
            order: Order::Written,
            steps: Vec::new(),
            left_out: None,
        })))
    }

    /// A device's request; `Ok` is the physical address it reaches.
    ///
    /// # Errors
    /// It was blocked, and a record made if there was room.
    pub fn dma(&self, requester: u16, address: u64, direction: Dma) -> Result<u64, Reason> {
        self.0.borrow_mut().dma(requester, address, direction)
    }

    /// Makes the unit misbehave, or stop to.
    pub fn set_ailment(&self, ailment: Ailment) {
        self.0.borrow_mut().ailment = ailment;
    }

    /// The status follows a command only after so many reads.
    pub fn set_response_delay(&self, reads: u32) {
        self.0.borrow_mut().response_delay = reads;
    }

    /// Takes the messages sent since the last call: (address, data).
    #[must_use]
    pub fn take_interrupts(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.0.borrow_mut().interrupts)
    }

    /// Takes what happened since the last call.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.borrow_mut().events)
    }

    /// Descriptors carried out since reset.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        self.0.borrow().descriptors
    }

    /// Everything cached now.
    #[must_use]
    pub fn caches(&self) -> Caches {
        self.0.borrow().caches.clone()
    }

    /// The protected memory enable register.
    #[must_use]
    pub fn protected_memory(&self) -> u32 {
        self.0.borrow().protected
    }

    /// As firmware may leave it: an interrupt remapping table of 2 entries at `table`.
    pub fn leave_interrupts(&self, table: u64) {
        self.0.borrow_mut().interrupt_table = table;
    }

    /// As firmware may leave it: protected memory on, interrupt remapping on, translation through a
    /// root table at `root`, a queue at `queue` in which `head` is also the tail.
    pub fn leave_on(&self, root: u64, queue: u64, head: u64) {
        let state = &mut *self.0.borrow_mut();
        state.status = 1 << 31 | 1 << 30 | 1 << 26 | 1 << 25 | 1 << 24;
        state.shown = state.status;
        state.root_written = root;
        state.root = root;
        state.queue_address = queue;
        state.queue_head = head;
        state.queue_tail = head;
        state.protected = 1 << 31 | 1;
        state.fault_status = 0x70;
        state.records[0] = (0x1000, 1 << 63 | 5 << 32 | 0x99);
    }
}
