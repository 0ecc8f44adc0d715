//! Interrupt remapping (5.1): which messages get through, as which interrupt.

use super::{Reason, State, Vtd};

/// An interrupt as it reaches a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// Destination, an APIC id.
    pub destination: u32,
    /// Vector.
    pub vector: u8,
    /// Delivery mode.
    pub mode: u8,
}

/// Compatibility format passes (CFIS); interrupt remapping is on (IRES).
const STATUS_COMPATIBILITY: u32 = 1 << 23;
const STATUS_REMAPPING: u32 = 1 << 25;

impl Vtd {
    /// A requester writes `data` to `address`, which lies in 0xfeexxxxx.
    ///
    /// # Errors
    /// The message was blocked, and a record made if there was room.
    pub fn message(&self, requester: u16, address: u64, data: u32) -> Result<Interrupt, Reason> {
        self.0.borrow_mut().message(requester, address, data)
    }
}

impl State {
    fn message(&mut self, requester: u16, address: u64, data: u32) -> Result<Interrupt, Reason> {
        assert_eq!(address >> 20, 0xfee, "no interrupt message");
        if self.status & STATUS_REMAPPING == 0 {
            return Ok(compatible(address, data));
        }
        if address & 1 << 4 == 0 {
            if self.status & STATUS_COMPATIBILITY != 0 {
                return Ok(compatible(address, data));
            }
            self.record(requester, 0, Reason::Compatibility);
            return Err(Reason::Compatibility);
        }
        let handle = (address >> 5 & 0x7fff | (address >> 2 & 1) << 15) as u16;
        let subhandle = if address & 1 << 3 != 0 {
            data as u16
        } else {
            0
        };
        let index = handle.wrapping_add(subhandle);
        let outcome = self.look_up(requester, index);
        if let Err(reason) = outcome {
            self.record(requester, u64::from(index) << 48, reason);
        }
        outcome
    }

    pub(super) fn look_up(&mut self, requester: u16, index: u16) -> Result<Interrupt, Reason> {
        let entries = 2u32 << (self.interrupt_table & 0xf);
        if u32::from(index) >= entries {
            return Err(Reason::InterruptIndex);
        }
        let (low, high) = match self.caches.interrupts.get(&index) {
            Some(entry) => *entry,
            None => {
                let at = (self.interrupt_table & !0xfff) + u64::from(index) * 16;
                let entry = (self.read(at), self.read(at + 8));
                if entry.0 & 1 == 1 || self.caching_mode() {
                    self.caches.interrupts.insert(index, entry);
                }
                entry
            }
        };
        if low & 1 == 0 {
            return Err(Reason::InterruptNotPresent);
        }
        if low & 0x00ff_ffff_ff00_7010 != 0 && low & 0xff00_7000 != 0 || high >> 20 != 0 {
            return Err(Reason::InterruptReserved);
        }
        let id = high as u16;
        let right = match high >> 18 & 3 {
            0 => true,
            1 => {
                let ignored = [0, 4, 6, 7][(high >> 16 & 3) as usize];
                requester & !ignored == id & !ignored
            }
            2 => (id >> 8..=id & 0xff).contains(&(requester >> 8)),
            _ => return Err(Reason::InterruptReserved),
        };
        if !right {
            return Err(Reason::InterruptSource);
        }
        Ok(Interrupt {
            destination: (low >> 40) as u32 & 0xff,
            vector: (low >> 16) as u8,
            mode: (low >> 5) as u8 & 7,
        })
    }

    fn record(&mut self, requester: u16, address: u64, reason: Reason) {
        self.record_fault(requester, address, reason as u8, false);
    }

    /// Forgets entries (6.5.2.7): all, or 2^mask from `first` on.
    pub(super) fn forget_interrupts(&mut self, low: u64) {
        if low >> 4 & 1 == 0 {
            self.caches.interrupts.clear();
            return;
        }
        let (mask, first) = (low >> 27 & 0x1f, (low >> 32) as u32);
        let first = first & 0xffff & !((1 << mask) - 1);
        let range = first..first + (1 << mask);
        self.caches
            .interrupts
            .retain(|index, _| !range.contains(&u32::from(*index)));
    }
}

fn compatible(address: u64, data: u32) -> Interrupt {
    Interrupt {
        destination: (address >> 12) as u32 & 0xff,
        vector: data as u8,
        mode: (data >> 8) as u8 & 7,
    }
}
