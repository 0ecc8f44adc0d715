//! [`Kernel`]: the core's effects on seL4.

use core::sync::atomic::AtomicU64;

use hw::Clock;
use iommu_core::{EffectError, Env, Note, Placed, Slot, Target};
use ipc_proto::{Badge, ClientId, Refusal, Rule, Trouble, Turns};
use ledger::Words;
use sel4::object::FrameSize;
use sel4::{CapData, Error, Notification, ObjectType, Rights};
use sel4_glue::cspace::signal_client;
use sel4_glue::{CSpace, Pd, TscClock, error_code, log};
use system::info::ClientEntry;
use system::layout::slot;

const LARGE_BITS: u8 = 21;

/// Capability effects, signals, time and log of this PD.
pub struct Kernel {
    cspace: &'static mut CSpace,
    ledger: &'static [AtomicU64],
    clients: &'static [ClientEntry],
    pd: &'static Pd,
    clock: TscClock,
}

impl Kernel {
    /// Effects on the PD's slots, which nothing else changes from now on.
    pub fn new(pd: &'static Pd, cspace: &'static mut CSpace) -> Self {
        Self {
            cspace,
            ledger: pd.ledger(),
            clients: &pd.info().clients,
            pd,
            clock: pd.clock(),
        }
    }

    fn client(&self, client: ClientId) -> Option<&'static ClientEntry> {
        self.clients.get(usize::from(client.0))
    }

    fn retype(
        &self,
        untyped: Slot,
        kind: ObjectType,
        into: Slot,
        count: u32,
    ) -> Result<(), EffectError> {
        self.cspace
            .retype_into(untyped, kind, into, count)
            .map_err(|refusal| EffectError::Kernel(refusal.about))
    }
}

fn refused(error: Error) -> EffectError {
    EffectError::Kernel(error_code(error))
}

/// Why a capability did not come into a window.
fn placing(refusal: Refusal) -> EffectError {
    match refusal.rule {
        Rule::WindowSlotOccupied => EffectError::Occupied,
        _ => EffectError::Kernel(refusal.about),
    }
}

impl Words for Kernel {
    fn count(&self) -> usize {
        self.ledger.count()
    }

    #[inline(always)]
    fn load(&self, at: usize) -> u64 {
        self.ledger.load(at)
    }

    #[inline(always)]
    fn store(&mut self, at: usize, value: u64) {
        self.ledger.store(at, value);
    }
}

impl Env for Kernel {
    fn adopt(&mut self, first: Slot, count: u32) -> Result<(), EffectError> {
        self.cspace
            .adopt(first, count)
            .map_err(|refusal| EffectError::Kernel(refusal.about))
    }

    fn sweep(&mut self) {
        let stuck = self.cspace.sweep();
        if stuck > 0 {
            log!("{stuck} slots cannot be emptied: they are not used again");
        }
    }

    fn split(&mut self, untyped: Slot, half_bits: u8, into: Slot) -> Result<(), EffectError> {
        self.retype(untyped, ObjectType::Untyped(half_bits), into, 2)
    }

    fn frames(
        &mut self,
        untyped: Slot,
        page_bits: u8,
        into: Target,
        count: u32,
    ) -> Result<(), EffectError> {
        let size = if page_bits == LARGE_BITS {
            FrameSize::Large
        } else {
            FrameSize::Small
        };
        let kind = ObjectType::Frame(size);
        match into {
            Target::Own(first) => self.retype(untyped, kind, first, count),
            Target::Window(client, first) => {
                let client = self.client(client).ok_or(refused(Error::FailedLookup))?;
                self.cspace
                    .retype_to_window(client, first, untyped, kind, count)
                    .map_err(placing)
            }
        }
    }

    fn revoke(&mut self, slot: Slot) -> Result<(), EffectError> {
        self.cspace.slot(slot).revoke().map_err(refused)
    }

    fn retire(&mut self, slot: Slot) -> Result<(), EffectError> {
        let slot = self.cspace.slot(slot);
        slot.revoke().map_err(refused)?;
        match slot.cancel_badged_sends() {
            // An empty slot: an earlier life was killed before it could note that it had emptied it.
            Err(Error::IllegalOperation) => {}
            result => result.map_err(refused)?,
        }
        slot.delete().map_err(refused)
    }

    fn mint(&mut self, badge: Badge, into: Slot) -> Result<(), EffectError> {
        let badge = sel4::Badge::new(badge.to_word()).map_or(CapData::NONE, CapData::badge);
        // The master has all rights: without them the kernel does not cancel sends. It never leaves
        // this PD; what is placed in a window has fewer.
        self.cspace
            .slot(into)
            .mint_from(self.cspace.slot(slot::ENDPOINT as u32), Rights::ALL, badge)
            .map_err(refused)
    }

    fn place(
        &mut self,
        what: Placed,
        slot: Slot,
        client: ClientId,
        window_slot: u16,
    ) -> Result<(), EffectError> {
        let rights = match what {
            Placed::Buffer => Rights::CALL,
            Placed::Frame => Rights::READ_WRITE,
        };
        let client = self.client(client).ok_or(refused(Error::FailedLookup))?;
        self.cspace
            .copy_to_window(client, window_slot, slot, rights)
            .map_err(placing)
    }

    fn take_back(&mut self, client: ClientId, window_slot: u16) {
        if let Some(client) = self.client(client) {
            // The window is the client's: if the slot is gone, so is what was in it.
            let _ = self.cspace.clear_window(client, window_slot);
        }
    }

    fn signal(&mut self, client: ClientId) {
        if let Some(client) = self.client(client) {
            signal_client(client);
        }
    }

    fn signal_shard(&mut self, shard: u16) {
        let signals = &self.pd.iommu_info().shard_signals;
        if let Some(signal) = signals.get(usize::from(shard)) {
            Notification::at(u64::from(*signal)).signal();
        }
    }

    fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    fn turns(&self) -> Turns {
        sel4_glue::turns::turns()
    }

    fn wake_in(&mut self, micros: u64) {
        // Without the timer, records are read with the next request for one.
        let _ = self.pd.timer().arm(micros);
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Fault {
                fault,
                holder,
                count,
            } => {
                let name = holder
                    .and_then(|holder| self.client(holder))
                    .map_or("nobody", |client| client.name.as_str());
                log!(
                    "fault {count} of {name}: {} at {:#x} by {}, reason {}",
                    fault.device,
                    fault.address,
                    if fault.access.writes() {
                        "write"
                    } else {
                        "read"
                    },
                    fault.reason,
                );
            }
            Note::Storm { unit } => {
                log!("unit {unit}: faults come faster than they are read; some are dropped");
            }
            Note::Trouble {
                device,
                trouble,
                count,
            } => match trouble {
                Trouble::FaultStorm => {
                    log!("{device}: blocked and not recorded any more after {count} faults");
                }
                Trouble::DeviceTlbTimeout => {
                    log!("{device}: blocked: it did not say that it forgot a translation");
                }
                // Each has a note of its own.
                Trouble::Fault => {}
            },
            Note::MemoryLost { bytes } => {
                log!("{bytes} bytes of DMA memory are lost: a device may still reach them");
            }
        }
    }
}
