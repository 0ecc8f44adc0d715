//! A unit's event log (2.5): 256 events of two words in one page, read from head
//! to tail, a bounded number at a time.

use hw::{Mmio, Sbdf};
use ipc_proto::Access;

use super::unit::{Register, control, status};
use crate::TableMemory;
use crate::backend::{Drained, Fault};
use crate::tables::{Page, Tables};

const BYTES: u64 = 0x1000;
/// Event codes that are about a device's request (2.5.2 and following).
const PAGE_FAULT: u64 = 2;
const ILLEGAL_ENTRY: u64 = 1;
const INVALID_REQUEST: u64 = 8;
/// In the first word of a page fault: the request was an interrupt; a write.
const INTERRUPT: u64 = 1 << 51;
const WROTE: u64 = 1 << 53;

/// Reads up to `allowance` events of a unit.
pub fn drain<M: Mmio, T: TableMemory>(
    registers: &mut M,
    tables: &Tables<'_, T>,
    log: Page,
    segment: u16,
    allowance: u32,
    sink: &mut dyn FnMut(Fault),
) -> Drained {
    let mut drained = Drained::default();
    let tail = registers.read64(Register::EventTail as usize) & (BYTES - 16);
    let mut head = registers.read64(Register::EventHead as usize) & (BYTES - 16);
    // A log has so many places; whatever the unit says, no more are read.
    for _ in 0..BYTES / 16 {
        if head == tail {
            break;
        }
        if drained.records == allowance {
            drained.more = true;
            break;
        }
        let at = (head / 8) as u16;
        let (first, address) = (tables.get(log, at), tables.get(log, at + 1));
        let code = first >> 60;
        if matches!(code, PAGE_FAULT | ILLEGAL_ENTRY | INVALID_REQUEST) {
            sink(Fault {
                device: Sbdf::from_requester_id(segment, first as u16),
                address: if first & INTERRUPT == 0 {
                    address & !0xfff
                } else {
                    address & 0x7ff
                },
                access: if first & WROTE == 0 {
                    Access::Read
                } else {
                    Access::Write
                },
                reason: code as u8,
            });
        }
        drained.records += 1;
        head = (head + 16) % BYTES;
    }
    registers.write64(Register::EventHead as usize, head);
    let state = registers.read64(Register::Status as usize);
    if state & status::EVENT_OVERFLOW != 0 {
        drained.overflow = true;
        // The log stops when it is full; it is started again from where it stands (2.5).
        let on = registers.read64(Register::Control as usize);
        registers.write64(Register::Control as usize, on & !control::EVENT_LOG);
        registers.write64(Register::Status as usize, status::EVENT_OVERFLOW);
        registers.write64(Register::Control as usize, on);
    }
    registers.write64(Register::Status as usize, status::EVENT_INTERRUPT);
    drained
}
