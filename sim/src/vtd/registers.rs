//! The register window: what reads give and writes do (10.4).

use super::{Ailment, Event, State, Step, Vtd};

const STATUS_TRANSLATION: u32 = 1 << 31;
const STATUS_ROOT: u32 = 1 << 30;
const STATUS_QUEUE: u32 = 1 << 26;
const STATUS_REMAPPING: u32 = 1 << 25;
const STATUS_INTERRUPT_TABLE: u32 = 1 << 24;
const STATUS_COMPATIBILITY: u32 = 1 << 23;
/// Fault control: masked; pending.
const MASK: u32 = 1 << 31;
const HELD: u32 = 1 << 30;

impl hw::Mmio for Vtd {
    fn len(&self) -> usize {
        0x1000
    }
    fn read32(&self, offset: usize) -> u32 {
        let state = &mut *self.0.borrow_mut();
        match offset {
            0x00 => state.version,
            0x1c => state.read_status(),
            0x34 => state.read_fault_status(),
            0x38 => state.fault_control,
            0x3c => state.fault_data,
            0x40 => state.fault_address,
            0x44 => state.fault_upper,
            0x64 => state.protected,
            _ => {
                let word = state.read_wide(offset & !7);
                (word >> (offset % 8 * 8)) as u32
            }
        }
    }
    fn read64(&self, offset: usize) -> u64 {
        self.0.borrow().read_wide(offset)
    }
    fn write32(&mut self, offset: usize, value: u32) {
        let state = &mut *self.0.borrow_mut();
        match offset {
            0x18 => state.command(value),
            0x34 => state.clear_fault_status(value),
            0x38 => {
                state.fault_control = state.fault_control & HELD | value & MASK;
                state.send_held();
            }
            0x3c => state.fault_data = value,
            0x40 => state.fault_address = value,
            0x44 => state.fault_upper = value,
            0x64 => state.protected = value & 1 << 31 | value >> 31,
            _ => {
                if let Some((record, 12)) = state.record_at(offset) {
                    state.clear_record(record, value);
                }
            }
        }
    }
    fn write64(&mut self, offset: usize, value: u64) {
        let state = &mut *self.0.borrow_mut();
        match offset {
            0x20 => state.root_written = value,
            0x88 => {
                state.queue_tail = value & 0x7_fff0;
                state.run_queue();
            }
            0x90 => {
                state.queue_address = value;
                state.queue_tail = 0;
            }
            0xb8 => state.interrupt_table_written = value,
            // Page request queue address.
            0xd0 => state.page_requests_on = true,
            _ => {
                if let Some((record, 8)) = state.record_at(offset) {
                    state.clear_record(record, (value >> 32) as u32);
                }
            }
        }
    }
}

impl State {
    fn read_wide(&self, offset: usize) -> u64 {
        match offset {
            0x08 => self.capability,
            0x10 => self.extended,
            0x20 => self.root_written,
            0x80 => self.queue_head,
            0x88 => self.queue_tail,
            0x90 => self.queue_address,
            0xb8 => self.interrupt_table_written,
            _ => match self.record_at(offset) {
                Some((record, 0)) => self.records[record].0,
                Some((record, 8)) => self.records[record].1,
                _ => 0,
            },
        }
    }

    fn record_at(&self, offset: usize) -> Option<(usize, usize)> {
        let first = (self.capability >> 24 & 0x3ff) as usize * 16;
        let within = offset.checked_sub(first)?;
        (within / 16 < self.records.len()).then_some((within / 16, within % 16))
    }

    fn read_status(&mut self) -> u32 {
        if self.shown_after > 0 {
            self.shown_after -= 1;
        } else {
            self.shown = self.status;
        }
        self.shown
    }

    fn command(&mut self, value: u32) {
        if self.ailment == Ailment::IgnoresCommands {
            return;
        }
        let changed = value ^ self.status;
        if value & STATUS_ROOT != 0 {
            self.root = self.root_written;
            self.status |= STATUS_ROOT;
            self.events.push(Event::RootTaken(self.root));
        }
        if value & 1 << 27 != 0 && self.step(Step::BufferFlush) {
            self.memory.flush_write_buffer();
        }
        if changed & STATUS_QUEUE != 0 {
            self.status ^= STATUS_QUEUE;
            if value & STATUS_QUEUE != 0 {
                self.queue_head = 0;
                self.events.push(Event::QueueOn);
            } else {
                self.events.push(Event::QueueOff);
            }
        }
        if changed & STATUS_TRANSLATION != 0 {
            self.status ^= STATUS_TRANSLATION;
            self.events.push(if value & STATUS_TRANSLATION != 0 {
                Event::TranslationOn
            } else {
                Event::TranslationOff
            });
        }
        if value & STATUS_INTERRUPT_TABLE != 0 {
            self.interrupt_table = self.interrupt_table_written;
            self.status |= STATUS_INTERRUPT_TABLE;
            self.events
                .push(Event::InterruptTableTaken(self.interrupt_table));
        }
        if changed & STATUS_COMPATIBILITY != 0 {
            self.status ^= STATUS_COMPATIBILITY;
        }
        if changed & STATUS_REMAPPING != 0 {
            self.status ^= STATUS_REMAPPING;
            self.events.push(if value & STATUS_REMAPPING != 0 {
                Event::RemappingOn {
                    compatibility: value & STATUS_COMPATIBILITY != 0,
                }
            } else {
                Event::RemappingOff
            });
        }
        self.shown_after = self.response_delay;
    }

    fn read_fault_status(&self) -> u32 {
        if self.ailment == Ailment::ClaimsFaults {
            return self.fault_status | 2;
        }
        self.fault_status
    }

    fn clear_fault_status(&mut self, value: u32) {
        self.fault_status &= !(value & 0x7d);
        if self.fault_status & 0x73 == 0 {
            self.fault_control &= !HELD;
        }
        self.run_queue();
    }

    fn clear_record(&mut self, record: usize, value: u32) {
        if value >> 31 == 1 {
            self.records[record].1 &= !(1 << 63);
        }
        if self.records.iter().all(|(_, high)| high >> 63 == 0) {
            self.fault_status &= !2;
            if self.fault_status & 0x73 == 0 {
                self.fault_control &= !HELD;
            }
        }
    }

    /// Files a blocked request (7.2.1).
    pub(super) fn record_fault(&mut self, requester: u16, address: u64, reason: u8, read: bool) {
        if self.fault_status & 1 != 0 {
            return;
        }
        if self.records[self.next_record].1 >> 63 == 1 {
            self.raise(1);
            return;
        }
        let high = 1 << 63 | u64::from(read) << 62 | u64::from(reason) << 32 | u64::from(requester);
        self.records[self.next_record] = (address & !0xfff, high);
        if self.fault_status & 2 == 0 {
            self.fault_status = self.fault_status & !0xff00 | (self.next_record as u32) << 8;
        }
        self.next_record = (self.next_record + 1) % self.records.len();
        self.raise(2);
    }

    /// Sets bits of the fault status; a message goes out if none was set before (7.3).
    pub(super) fn raise(&mut self, bits: u32) {
        let before = self.fault_status & 0x73;
        self.fault_status |= bits;
        if before == 0 {
            self.fault_control |= HELD;
            self.send_held();
        }
    }

    fn send_held(&mut self) {
        if self.fault_control & (HELD | MASK) == HELD {
            self.fault_control &= !HELD;
            let address = u64::from(self.fault_upper) << 32 | u64::from(self.fault_address);
            self.interrupts.push((address, self.fault_data));
        }
    }
}
