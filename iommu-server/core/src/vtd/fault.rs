//! Fault records of a unit (VT-d 3.0, 7.2.1 and 10.4.14): read, handed over and
//! cleared, a bounded number at a time.
//!
//! While the pending bit stays set the unit sends no further message, so a
//! driver that stops reading throttles a storm; it must come back by itself.

use hw::{Mmio, Sbdf};
use ipc_proto::Access;

use super::capability::Capabilities;
use super::registers::{Register, Registers, fault_status};
use crate::backend::{Drained, Fault};

const RECORD_BYTES: usize = 16;
/// In the upper half: the record is in use. Cleared by writing one.
const IN_USE: u64 = 1 << 63;
/// Reasons from here on are about interrupt messages; the lower half holds the entry's number (10.4.14).
const FIRST_OF_INTERRUPTS: u8 = 0x20;
/// In the upper half: the request was a read.
const WAS_READ: u64 = 1 << 62;

/// Reads up to `allowance` records of devices in `segment`.
pub fn drain<M: Mmio>(
    registers: &mut Registers<M>,
    capabilities: &Capabilities,
    segment: u16,
    allowance: u32,
    sink: &mut dyn FnMut(Fault),
) -> Drained {
    let mut drained = Drained::default();
    // Each round reads a record or clears an overflow; a unit that pretends otherwise is left alone.
    for _ in 0..=allowance.saturating_add(2) {
        let status = registers.read32(Register::FaultStatus);
        if status == u32::MAX {
            // The unit does not answer any more.
            return drained;
        }
        let overflow = status & fault_status::OVERFLOW;
        if overflow != 0 {
            drained.overflow = true;
            // While the bit is set nothing is recorded and no message sent.
            registers.write32(Register::FaultStatus, overflow);
        }
        if status & fault_status::PENDING == 0 {
            if overflow != 0 {
                continue;
            }
            return drained;
        }
        let before = drained.records;
        let mut record = fault_status::first_record(status);
        // Records are used round robin from the one that the status names. It goes on naming that
        // one until none is in use, so records cleared before are passed over.
        for _ in 0..capabilities.fault_records {
            if record >= capabilities.fault_records {
                record = 0;
            }
            let at = capabilities.fault_records_at as usize + usize::from(record) * RECORD_BYTES;
            record += 1;
            let high = registers.0.read64(at + 8);
            if high & IN_USE == 0 {
                continue;
            }
            if drained.records == allowance {
                drained.more = true;
                return drained;
            }
            let low = registers.0.read64(at);
            let reason = (high >> 32) as u8;
            sink(Fault {
                device: Sbdf::from_requester_id(segment, high as u16),
                address: if reason < FIRST_OF_INTERRUPTS {
                    low & !0xfff
                } else {
                    low >> 48
                },
                access: if high & WAS_READ != 0 {
                    Access::Read
                } else {
                    Access::Write
                },
                reason,
            });
            // The topmost bit is "write one to clear"; the rest is read only.
            registers.0.write32(at + 12, (IN_USE >> 32) as u32);
            drained.records += 1;
        }
        if drained.records == before && overflow == 0 {
            // Pending, but no record in use: the unit contradicts itself.
            return drained;
        }
    }
    drained
}
