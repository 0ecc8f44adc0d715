//! What units and devices are told to forget, and in which order.
//!
//! After a change of tables: the chipset's write buffer first, so that the unit
//! cannot read the old entry again; then the unit's own cache, waited for; then
//! each device that keeps translations, waited for: the unit answers a device's
//! questions from its own cache (VT-d 3.0, 6.5.2.5).

use hw::{Mmio, Sbdf};

use super::capability::Capabilities;
use super::queue::{Changed, EVERYTHING, Invalidate};
use super::unit::{DeviceError, Unit, UnitError};
use super::{Caching, Domain, Entry, Fate, Slot, context};
use crate::TableMemory;
use crate::backend::{BackendError, DomainId};
use crate::tables::Tables;

/// What units are to forget of a domain.
#[derive(Clone, Copy)]
pub enum Forget {
    /// That these addresses had no translation.
    NewRange { iova: u64, bytes: u64 },
    /// The translations of these addresses.
    OldRange { iova: u64, bytes: u64 },
    /// Everything, pointers to tables too.
    All,
}

/// Tells the units that have devices of the domain to forget part of it, and waits.
#[inline(always)]
pub(super) fn tell<M: Mmio, T: TableMemory>(
    units: &mut [Entry<M>],
    tables: &mut Tables<'_, T>,
    found: &Domain,
    domain: DomainId,
    what: Forget,
) -> Result<(), BackendError> {
    let mut outcome = Ok(());
    for (entry, attached) in units.iter_mut().zip(&found.attached) {
        if *attached == 0 {
            continue;
        }
        if let Slot::Driven(unit) = &mut entry.slot
            && tell_unit(unit, tables, domain, what).is_err()
        {
            outcome = Err(BackendError::Unconfirmed);
        }
    }
    outcome
}

#[inline(never)]
fn tell_unit<M: Mmio, T: TableMemory>(
    unit: &mut Unit<M>,
    tables: &mut Tables<'_, T>,
    domain: DomainId,
    what: Forget,
) -> Result<(), UnitError> {
    unit.flush_write_buffer()?;
    let capabilities = unit.capabilities();
    let request = match what {
        // Nothing is cached of entries that were not present; they are past the chipset's write buffer.
        Forget::NewRange { .. } if !capabilities.caching_mode => return Ok(()),
        Forget::NewRange { iova, bytes } => {
            pages(capabilities, domain.0, iova, bytes, Changed::Tables)
        }
        Forget::OldRange { iova, bytes } => {
            pages(capabilities, domain.0, iova, bytes, Changed::Leaves)
        }
        Forget::All => Invalidate::Domain { domain: domain.0 },
    };
    unit.run_here(tables, &[request])
}

/// The smallest invalidation that covers the range: one naturally aligned block of pages, since
/// forgetting too much only costs time; the whole domain where the unit has nothing finer.
fn pages(
    capabilities: &Capabilities,
    domain: u16,
    iova: u64,
    bytes: u64,
    changed: Changed,
) -> Invalidate {
    let (iova, mask) = block(iova, bytes);
    match capabilities.page_selective {
        Some(largest) if mask <= largest => Invalidate::Pages {
            domain,
            iova,
            mask,
            changed,
        },
        _ => Invalidate::Domain { domain },
    }
}

/// The smallest naturally aligned block of 2^n pages that covers a range: its address, and n.
fn block(iova: u64, bytes: u64) -> (u64, u8) {
    let first = iova >> 12;
    let last = iova.wrapping_add(bytes).wrapping_sub(1) >> 12;
    let mask = (u64::BITS - (first ^ last).leading_zeros()) as u8;
    (iova & (u64::MAX << (12 + u32::from(mask))), mask)
}

/// Has a unit forget a requester's context entry, which is not present any more, and what could be
/// fetched through it.
pub(super) fn forget_requester<M: Mmio, T: TableMemory>(
    unit: &mut Unit<M>,
    tables: &mut Tables<'_, T>,
    requester: u16,
    domain: u16,
) -> Result<(), UnitError> {
    let batch = [
        Invalidate::Context { requester, domain },
        Invalidate::Fence,
        Invalidate::Domain { domain },
    ];
    unit.flush_write_buffer()?;
    unit.run(tables, &batch)
}

/// Has a unit see that a requester's context entry has changed, or is not present any more. It stays in its domain: what
/// could be fetched through it is forgotten when it is unmapped, or the requester leaves.
pub(super) fn forget_entry<M: Mmio, T: TableMemory>(
    unit: &mut Unit<M>,
    tables: &mut Tables<'_, T>,
    requester: u16,
    domain: u16,
) -> Result<(), UnitError> {
    unit.flush_write_buffer()?;
    unit.run(tables, &[Invalidate::Context { requester, domain }])
}

/// Has a unit see a context entry that has become present.
pub(super) fn show_requester<M: Mmio, T: TableMemory>(
    unit: &mut Unit<M>,
    tables: &mut Tables<'_, T>,
    requester: u16,
    domain: u16,
) -> Result<(), UnitError> {
    unit.flush_write_buffer()?;
    if !unit.capabilities().caching_mode {
        // Nothing is cached of an entry that was not present.
        return Ok(());
    }
    // What was cached said "not present", under domain 0.
    let batch = [
        Invalidate::Context {
            requester,
            domain: 0,
        },
        Invalidate::Fence,
        Invalidate::Domain { domain },
    ];
    unit.run(tables, &batch)
}

/// Has a unit that has just forgotten everything see a context entry that was present all the time (caching mode).
pub(super) fn show_again<M: Mmio, T: TableMemory>(
    unit: &mut Unit<M>,
    tables: &mut Tables<'_, T>,
    requester: u16,
    domain: u16,
) -> Result<(), UnitError> {
    let batch = [
        Invalidate::Context { requester, domain },
        Invalidate::Fence,
        Invalidate::Domain { domain },
    ];
    unit.run(tables, &batch)
}

/// Has a device forget all it keeps.
pub(super) fn forget_all_of_device<M: Mmio, T: TableMemory>(
    unit: &mut Unit<M>,
    tables: &mut Tables<'_, T>,
    caching: &Caching,
) -> Result<(), DeviceError> {
    let request = Invalidate::DeviceTlb {
        requester: caching.device.requester_id(),
        depth: caching.depth,
        iova: 0,
        mask: EVERYTHING,
    };
    unit.run_for_device(tables, request)
}

/// Has the devices of a domain that keep translations forget those of a range; the units have forgotten
/// them already. A device that does not answer is blocked and handed to `silent`.
#[cold]
pub(super) fn tell_devices<M: Mmio, T: TableMemory>(
    units: &mut [Entry<M>],
    tables: &mut Tables<'_, T>,
    found: &mut Domain,
    domain: DomainId,
    range: (u64, u64),
    mut silent: impl FnMut(Sbdf),
) -> Result<(), BackendError> {
    let mut outcome = Ok(());
    let (iova, mask) = block(range.0, range.1);
    let mut place = 0;
    while let Some(caching) = found.caching.get(place).copied() {
        place += 1;
        let slot = units.get_mut(usize::from(caching.unit));
        let Some(Slot::Driven(unit)) = slot.map(|entry| &mut entry.slot) else {
            continue;
        };
        let requester = caching.device.requester_id();
        let request = Invalidate::DeviceTlb {
            requester,
            depth: caching.depth,
            iova,
            mask,
        };
        match unit.run_for_device(tables, request) {
            Ok(()) => {}
            Err(DeviceError::Unit(_)) => outcome = Err(BackendError::Unconfirmed),
            Err(DeviceError::Silent) => {
                place -= 1;
                found.caching.swap_remove(place);
                silent(caching.device);
                let bus = caching.device.bus();
                if let Some(table) = context::existing(tables, unit.root(), bus) {
                    context::silence(tables, table, requester);
                }
                if forget_entry(unit, tables, requester, domain.0).is_err() {
                    found.fate = Fate::Retired;
                    outcome = Err(BackendError::Unconfirmed);
                } else if outcome.is_ok() {
                    outcome = Err(BackendError::DeviceSilent);
                }
            }
        }
    }
    outcome
}
