//! [`Queue`]: a unit's invalidation queue (VT-d 3.0, 6.5.2), 256 descriptors of
//! 128 bits in one page, used synchronously: a batch is written, the tail
//! register moved, and the last descriptor makes the unit write a number that
//! is waited for. The queue is empty between two batches, so it cannot overrun.
//!
//! The unit's accesses to the queue and its status write are always coherent
//! (10.4.3, field C), so nothing here flushes caches.

use hw::Mmio;
use thiserror::Error;

use super::registers::{POLL_LIMIT, Register, Registers, fault_status};
use crate::TableMemory;
use crate::tables::{Page, Tables};

/// Descriptors in the queue.
pub const DESCRIPTORS: u16 = 256;

/// Most reads of the status word for one batch. Each takes some nanoseconds with the pause between,
/// so this is tens of milliseconds; a unit takes microseconds.
pub const STATUS_POLLS: u32 = if cfg!(test) { 10_000 } else { 1_000_000 };

/// The unit's error bits are looked at every so many polls: a register read is slow.
const POLLS_A_LOOK: u32 = 256;

/// A request to forget (6.5.2.1 and following).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidate {
    /// Every context entry.
    AllContexts,
    /// The context entry of one requester, that was cached under a domain id.
    Context {
        /// Requester id.
        requester: u16,
        /// Domain id that the entry had; 0 for one that was not present.
        domain: u16,
    },
    /// Every translation.
    AllTranslations,
    /// Every translation of a domain, and cached pointers to its tables.
    Domain {
        /// Domain id.
        domain: u16,
    },
    /// The translations of 2^`mask` pages.
    Pages {
        /// Domain id.
        domain: u16,
        /// Address of the first, aligned to their size.
        iova: u64,
        /// See above.
        mask: u8,
        /// Whether cached pointers to tables may stay.
        changed: Changed,
    },
    /// What a device keeps of the translations of 2^`mask` pages ([`EVERYTHING`]: all it keeps). A unit may
    /// answer a device from its own cache, which must have forgotten before (6.5.2.5).
    DeviceTlb {
        /// Requester id.
        requester: u16,
        /// Invalidations that may be under way to it at a time, 1 to 32.
        depth: u8,
        /// Address of the first page, aligned to their size.
        iova: u64,
        /// See above.
        mask: u8,
    },
    /// Every interrupt remapping entry.
    AllInterrupts,
    /// 2^`mask` interrupt remapping entries.
    Interrupts {
        /// The first, aligned to their number.
        first: u16,
        /// See above.
        mask: u8,
    },
    /// No request, an order: what follows starts when what precedes is done.
    Fence,
}

/// Mask of a device-TLB invalidation: every page.
pub const EVERYTHING: u8 = 52;

/// Which entries were changed before a page-selective invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Leaves only: the unit may keep pointers to tables (invalidation hint, 6.5.2.3).
    Leaves,
    /// Pointers to tables too.
    Tables,
}

/// Whether requests in flight are drained with a translation invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drain {
    /// Reads (DR).
    pub reads: bool,
    /// Writes (DW).
    pub writes: bool,
}

/// Why a batch was not confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum QueueError {
    /// The status was not written in [`STATUS_POLLS`] polls.
    #[error("no confirmation in time")]
    Timeout,
    /// The unit stopped at a descriptor that it calls invalid (IQE).
    #[error("it calls a descriptor invalid")]
    Rejected,
    /// A device answered wrongly (ICE) or not at all (ITE); what was under way is given up.
    #[error("a device did not answer, twice")]
    Device,
}

const TYPE_CONTEXT: u64 = 1;
const TYPE_TRANSLATION: u64 = 2;
const TYPE_DEVICE_TLB: u64 = 3;
const TYPE_INTERRUPTS: u64 = 4;
const TYPE_WAIT: u64 = 5;
const ALL: u64 = 1 << 4;
const OF_DOMAIN: u64 = 2 << 4;
/// One requester (contexts) or pages (translations).
const SELECTED: u64 = 3 << 4;
/// Entries from an index on, not all (interrupts).
const BY_INDEX: u64 = 1 << 4;
/// More than one page (device-TLB); how many is in the address.
const SEVERAL: u64 = 1;
const DRAIN_WRITES: u64 = 1 << 6;
const DRAIN_READS: u64 = 1 << 7;
const WAIT_WRITES_STATUS: u64 = 1 << 5;
const WAIT_FENCE: u64 = 1 << 6;
const HINT_LEAVES: u64 = 1 << 6;

/// A unit's queue.
pub struct Queue {
    page: Page,
    /// Where the unit writes its status: a word of a page.
    status: (Page, u16),
    /// Physical address of that word.
    status_address: u64,
    tail: u16,
    /// Number of the latest wait descriptor.
    sequence: u32,
    /// Flags of translation invalidations.
    drain: u64,
    /// Device-TLB invalidations name the physical function too (DIT).
    names_function: bool,
}

impl Queue {
    /// A queue in `page`, with `status` as status word.
    pub fn new<T: TableMemory>(
        tables: &Tables<'_, T>,
        page: Page,
        status: (Page, u16),
        drain: Drain,
    ) -> Self {
        let mut flags = 0;
        if drain.reads {
            flags |= DRAIN_READS;
        }
        if drain.writes {
            flags |= DRAIN_WRITES;
        }
        Self {
            page,
            status,
            status_address: tables.physical(status.0) + u64::from(status.1) * 8,
            tail: 0,
            sequence: 0,
            drain: flags,
            names_function: false,
        }
    }

    /// Has device-TLB invalidations name the physical function besides the requester (6.5.2.5, where the
    /// unit throttles them). It is taken to be the requester itself: for a virtual function the unit then counts
    /// those under way to it apart from its physical function's.
    pub fn name_function(&mut self) {
        self.names_function = true;
    }

    /// The queue's page.
    pub fn page(&self) -> Page {
        self.page
    }

    /// Goes on after descriptor `tail - 1`, which an earlier life of the shard has written last and the unit has
    /// fetched: numbers go on from its, so that no late status of it is taken for one of ours.
    pub fn go_on<T: TableMemory>(&mut self, tables: &Tables<'_, T>, tail: u16) {
        self.tail = tail % DESCRIPTORS;
        let last = self.tail.wrapping_add(DESCRIPTORS - 1) % DESCRIPTORS;
        let low = tables.get(self.page, last * 2);
        self.sequence = if low & 0xf == TYPE_WAIT {
            (low >> 32) as u32
        } else {
            tables.get(self.status.0, self.status.1) as u32
        };
    }

    /// Waits until the unit has fetched every descriptor, a counted number of polls. Devices that do not answer are
    /// passed over. `false`: it did not, or met an invalid one.
    pub fn drain<M: Mmio>(registers: &mut Registers<M>) -> bool {
        for _ in 0..POLL_LIMIT {
            let head = registers.read64(Register::QueueHead);
            if head == registers.read64(Register::QueueTail) {
                return true;
            }
            if check(registers) == Err(QueueError::Rejected) {
                return false;
            }
            core::hint::spin_loop();
        }
        false
    }

    /// Has the unit carry out the requests in order, and waits until it says that they are done.
    ///
    /// # Errors
    /// See [`QueueError`]; the requests may or may not have been carried out.
    #[inline(always)]
    pub fn run<M: Mmio, T: TableMemory>(
        &mut self,
        registers: &mut Registers<M>,
        tables: &mut Tables<'_, T>,
        batch: &[Invalidate],
    ) -> Result<(), QueueError> {
        for &request in batch {
            let (low, high) = self.encode(request);
            self.push(tables, low, high);
        }
        let (low, high) = self.wait(0);
        self.push(tables, low, high);
        registers.write64(Register::QueueTail, u64::from(self.tail) << 4);
        self.confirm(registers, tables)
    }

    /// Waits for the latest wait descriptor's status.
    #[inline]
    fn confirm<M: Mmio, T: TableMemory>(
        &self,
        registers: &mut Registers<M>,
        tables: &Tables<'_, T>,
    ) -> Result<(), QueueError> {
        let done = || tables.get(self.status.0, self.status.1) as u32 == self.sequence;
        if done() {
            return Ok(());
        }
        self.poll(registers, done)
    }

    #[inline(never)]
    fn poll<M: Mmio>(
        &self,
        registers: &mut Registers<M>,
        done: impl Fn() -> bool,
    ) -> Result<(), QueueError> {
        for poll in 1..=STATUS_POLLS {
            if done() {
                return Ok(());
            }
            if poll % POLLS_A_LOOK == 0 {
                check(registers)?;
            }
            core::hint::spin_loop();
        }
        check(registers)?;
        Err(QueueError::Timeout)
    }

    #[inline(always)]
    fn push<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, low: u64, high: u64) {
        let at = self.tail % DESCRIPTORS * 2;
        tables.set_pair(self.page, at, low, high);
        self.tail = self.tail.wrapping_add(1) % DESCRIPTORS;
    }

    /// A wait descriptor (6.5.2.8). It always writes the status, a fence too: some units
    /// (QEMU's) refuse a wait that neither writes nor interrupts.
    #[inline(always)]
    fn wait(&mut self, flags: u64) -> (u64, u64) {
        self.sequence = self.sequence.wrapping_add(1);
        let low = TYPE_WAIT | WAIT_WRITES_STATUS | flags | u64::from(self.sequence) << 32;
        (low, self.status_address)
    }

    #[inline(always)]
    fn encode(&mut self, request: Invalidate) -> (u64, u64) {
        let drain = self.drain;
        match request {
            Invalidate::AllContexts => (TYPE_CONTEXT | ALL, 0),
            Invalidate::Context { requester, domain } => (
                TYPE_CONTEXT | SELECTED | u64::from(domain) << 16 | u64::from(requester) << 32,
                0,
            ),
            Invalidate::AllTranslations => (TYPE_TRANSLATION | ALL | drain, 0),
            Invalidate::Domain { domain } => {
                let low = TYPE_TRANSLATION | OF_DOMAIN | drain | u64::from(domain) << 16;
                (low, 0)
            }
            Invalidate::Pages {
                domain,
                iova,
                mask,
                changed,
            } => {
                let low = TYPE_TRANSLATION | SELECTED | drain | u64::from(domain) << 16;
                let hint = match changed {
                    Changed::Leaves => HINT_LEAVES,
                    Changed::Tables => 0,
                };
                (low, iova & !0xfff | hint | u64::from(mask & 0x3f))
            }
            Invalidate::DeviceTlb {
                requester,
                depth,
                iova,
                mask,
            } => {
                let mut low =
                    TYPE_DEVICE_TLB | u64::from(depth & 0x1f) << 16 | u64::from(requester) << 32;
                if self.names_function {
                    low |= u64::from(requester & 0xf) << 12 | u64::from(requester >> 4) << 52;
                }
                (low, span(iova, mask))
            }
            Invalidate::AllInterrupts => (TYPE_INTERRUPTS, 0),
            Invalidate::Interrupts { first, mask } => {
                let low = TYPE_INTERRUPTS | BY_INDEX | u64::from(mask & 0x1f) << 27;
                (low | u64::from(first) << 32, 0)
            }
            Invalidate::Fence => self.wait(WAIT_FENCE),
        }
    }
}

/// Address field of a device-TLB invalidation of 2^`mask` pages: the lowest bit from 12 up that is zero says
/// how many (PCIe 5.0, 10.2.3.3).
fn span(iova: u64, mask: u8) -> u64 {
    match mask {
        0 => iova & !0xfff,
        EVERYTHING.. => i64::MAX as u64 & !0xfff | SEVERAL,
        mask => {
            let bytes = 0x1000u64 << mask;
            iova & !(bytes - 1) | (bytes / 2).wrapping_sub(0x1000) | SEVERAL
        }
    }
}

/// The error that the unit's status register shows, if any. Errors about devices are cleared, so
/// that the unit goes on; an invalid descriptor stops it for good.
fn check<M: Mmio>(registers: &mut Registers<M>) -> Result<(), QueueError> {
    let status = registers.read32(Register::FaultStatus);
    if status & fault_status::QUEUE_ERROR != 0 {
        return Err(QueueError::Rejected);
    }
    let device = status & (fault_status::COMPLETION_ERROR | fault_status::TIMEOUT_ERROR);
    if device != 0 {
        registers.write32(Register::FaultStatus, device);
        return Err(QueueError::Device);
    }
    Ok(())
}
