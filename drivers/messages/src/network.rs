//! An Intel 82574 network card (QEMU's `e1000e`): five MSI-X messages, raised by writes to its register of
//! interrupt causes. Registers: Intel 82574 data sheet (318698), 10.2.4.

use client::{Error, Mechanism, Mmio, Switch};

use crate::sources::Source;
use crate::{Probe, suite};

const VENDOR: u16 = 0x8086;
const DEVICE: u16 = 0x10d3;
/// Pages of BAR 0.
const PAGES: u16 = 32;
/// Messages it has.
const MESSAGES: u16 = 5;

mod register {
    /// Interrupt causes; reading clears them.
    pub const CAUSES: usize = 0xc0;
    /// Sets causes.
    pub const SET_CAUSES: usize = 0xc8;
    /// Causes that raise an interrupt.
    pub const ENABLE: usize = 0xd0;
    /// Causes that do not any more.
    pub const DISABLE: usize = 0xd8;
    /// Causes that clear themselves when their message is sent.
    pub const AUTO_CLEAR: usize = 0xdc;
    /// Which message each cause sends.
    pub const ALLOCATION: usize = 0xe4;
}

/// Receive queues 0 and 1, transmit queues 0 and 1, and the others: the causes of MSI-X.
const FIRST_CAUSE: u32 = 20;
const ALL_CAUSES: u32 = 0x1f << FIRST_CAUSE;

struct Card<M>(M);

impl<M: Mmio> Card<M> {
    fn new(mut registers: M) -> Self {
        registers.write32(register::DISABLE, u32::MAX);
        let _ = registers.read32(register::CAUSES);
        // Cause n sends message n: four bits each, of which the highest makes the entry valid.
        let allocation = (0..u32::from(MESSAGES)).fold(0, |all, n| all | (0x8 | n) << (4 * n));
        registers.write32(register::ALLOCATION, allocation);
        registers.write32(register::AUTO_CLEAR, ALL_CAUSES);
        registers.write32(register::ENABLE, ALL_CAUSES);
        Self(registers)
    }
}

impl<M: Mmio> Source for Card<M> {
    // QEMU's least interval between two of the same message is 128 microseconds, and QEMU aborts when MSI-X is switched
    // off meanwhile. Its timers may be late.
    const RECOVERY_MICROS: u64 = 3_000;

    fn raise(&mut self, message: u16) {
        let cause = 1 << (FIRST_CAUSE + u32::from(message));
        self.0.write32(register::SET_CAUSES, cause);
    }
    fn settle(&mut self, _message: u16) {
        let _ = self.0.read32(register::CAUSES);
        // A cause that has sent its message is not enabled any more.
        self.0.write32(register::ENABLE, ALL_CAUSES);
    }
}

/// All five messages.
pub fn run(probe: &Probe) -> Result<(), Error> {
    let device = probe.client.assign_ids(VENDOR, DEVICE)?;
    device.bus_master(Switch::On)?;
    let mut card = Card::new(device.map_bar_pages(0, 0, PAGES)?);
    suite::run(probe, &device, Mechanism::MsiX, MESSAGES, &mut card)
}
