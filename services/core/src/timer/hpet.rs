//! [`Hpet`]: the high precision event timer as a counter with one alarm, comparator 0 (IA-PC HPET
//! specification 1.0a, 2.3).
//!
//! All accesses are 32 bits wide: that is what every implementation takes (2.3.2 allows software to split
//! 64-bit accesses, and QEMU 7.2 knows no others).

use hw::Mmio;
use thiserror::Error;

/// Registers, in bytes from the start (2.3.1).
mod register {
    /// General capabilities, low half.
    pub const CAPABILITIES: usize = 0x000;
    /// General capabilities, high half: period of the counter in femtoseconds.
    pub const PERIOD: usize = 0x004;
    /// General configuration.
    pub const CONFIG: usize = 0x010;
    /// Interrupt status.
    pub const STATUS: usize = 0x020;
    /// Main counter, low half.
    pub const COUNTER: usize = 0x0f0;
    /// Main counter, high half.
    pub const COUNTER_HIGH: usize = 0x0f4;
    /// Comparator 0: configuration and capabilities.
    pub const TIMER_CONFIG: usize = 0x100;
    /// Comparator 0: IOAPIC pins that it can be routed to, one bit each.
    pub const TIMER_ROUTES: usize = 0x104;
    /// Comparator 0: value, low half.
    pub const COMPARATOR: usize = 0x108;
    /// Comparator 0: value, high half.
    pub const COMPARATOR_HIGH: usize = 0x10c;
}

/// Capabilities: the counter has 64 bits (2.3.4, COUNT_SIZE_CAP).
const COUNTER_64: u32 = 1 << 13;
/// Configuration: the counter runs (2.3.5, ENABLE_CNF).
const ENABLE: u32 = 1 << 0;
/// Configuration: comparators 0 and 1 replace the PIT and RTC (2.3.5, LEG_RT_CNF).
const LEGACY: u32 = 1 << 1;
/// Comparator: the interrupt is level-triggered (2.3.8, Tn_INT_TYPE_CNF).
const LEVEL: u32 = 1 << 1;
/// Comparator: raises its interrupt (2.3.8, Tn_INT_ENB_CNF).
const INTERRUPT: u32 = 1 << 2;
/// Comparator: periodic (2.3.8, Tn_TYPE_CNF).
const PERIODIC: u32 = 1 << 3;
/// Comparator: has 64 bits (2.3.8, Tn_SIZE_CAP).
const COMPARATOR_64: u32 = 1 << 5;
/// Comparator: forced to 32 bits (2.3.8, Tn_32MODE_CNF).
const MODE_32: u32 = 1 << 8;
/// Comparator: where the pin's number is (2.3.8, Tn_INT_ROUTE_CNF).
const ROUTE_SHIFT: u32 = 9;
/// Comparator: the pin's bits.
const ROUTE: u32 = 0x1f << ROUTE_SHIFT;
/// Comparator: delivers a message instead (2.3.8, Tn_FSB_EN_CNF).
const MESSAGE: u32 = 1 << 14;

/// Longest period that the specification allows: 100 ns (2.3.4, COUNTER_CLK_PERIOD).
const LONGEST_PERIOD: u32 = 100_000_000;
/// Femtoseconds in a microsecond.
const FS_PER_US: u128 = 1_000_000_000;
/// Furthest that the comparator is set ahead, in ticks (over an hour at any allowed period). Later alarms are set in steps.
const HORIZON: u64 = 1 << 40;
/// Ticks that a new comparator value may take to be in force: an earlier match is missed. The specification
/// says nothing; what Linux allows for (`HPET_MIN_CYCLES`).
const LATENCY: u64 = 128;
/// Least that the comparator is set ahead, in ticks.
pub(super) const LEAD: u64 = LATENCY + 64;

/// Why the HPET cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HpetError {
    /// There is none, or it does not keep to the specification.
    #[error("the HPET's period of {0} fs is not between 1 fs and 100 ns: there is no HPET")]
    Period(u32),
    /// A 32-bit counter would run over in minutes.
    #[error("the HPET's counter or comparator has less than 64 bits")]
    Narrow,
    /// The comparator cannot reach the pin.
    #[error(
        "comparator 0 of the HPET cannot be routed to pin {pin}, only to those of mask {routes:#x}"
    )]
    Pin {
        /// The wanted pin.
        pin: u8,
        /// The possible ones, one bit each.
        routes: u32,
    },
}

/// The HPET: a counter, and one alarm that raises an edge-triggered interrupt.
#[derive(Debug)]
pub struct Hpet<M: Mmio> {
    registers: M,
    /// Femtoseconds a tick.
    period: u32,
    /// Comparator 0's configuration without the interrupt.
    config: u32,
}

impl<M: Mmio> Hpet<M> {
    /// Starts the counter at 0, with comparator 0 routed to IOAPIC pin `pin` and no alarm.
    ///
    /// # Errors
    /// See [`HpetError`]; then nothing was written.
    pub fn start(mut registers: M, pin: u8) -> Result<Self, HpetError> {
        let period = registers.read32(register::PERIOD);
        if period == 0 || period > LONGEST_PERIOD {
            return Err(HpetError::Period(period));
        }
        let timer = registers.read32(register::TIMER_CONFIG);
        if registers.read32(register::CAPABILITIES) & COUNTER_64 == 0 || timer & COMPARATOR_64 == 0
        {
            return Err(HpetError::Narrow);
        }
        let routes = registers.read32(register::TIMER_ROUTES);
        if routes
            .checked_shr(pin.into())
            .is_none_or(|routes| routes & 1 == 0)
        {
            return Err(HpetError::Pin { pin, routes });
        }
        let config = timer & !(LEVEL | INTERRUPT | PERIODIC | MODE_32 | ROUTE | MESSAGE)
            | u32::from(pin) << ROUTE_SHIFT;
        let general = registers.read32(register::CONFIG) & !(ENABLE | LEGACY);

        // The counter may be written while it stands still (2.3.7).
        registers.write32(register::CONFIG, general);
        registers.write32(register::COUNTER, 0);
        registers.write32(register::COUNTER_HIGH, 0);
        registers.write32(register::TIMER_CONFIG, config);
        registers.write32(register::CONFIG, general | ENABLE);
        Ok(Self {
            registers,
            period,
            config,
        })
    }

    /// Ticks since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        let mut high = self.registers.read32(register::COUNTER_HIGH);
        // A second carry within these few accesses would take minutes: two rounds are enough.
        for _ in 0..2 {
            let low = self.registers.read32(register::COUNTER);
            let again = self.registers.read32(register::COUNTER_HIGH);
            if again == high {
                return u64::from(high) << 32 | u64::from(low);
            }
            high = again;
        }
        u64::from(high) << 32
    }

    /// Microseconds that `ticks` take, rounded down.
    #[must_use]
    pub fn micros(&self, ticks: u64) -> u64 {
        // At most 2^64 * 10^8 / 10^9.
        (u128::from(ticks) * u128::from(self.period) / FS_PER_US) as u64
    }

    /// Ticks in `micros` microseconds, rounded up; `u64::MAX` for more than there are.
    #[must_use]
    pub fn ticks(&self, micros: u64) -> u64 {
        let ticks = (u128::from(micros) * FS_PER_US).div_ceil(u128::from(self.period));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Sets the alarm to `tick`, or to `lead` ticks from now when that is nearer; to an earlier tick when that is too
    /// far. `false` when too little of the lead was left in the end: then the interrupt may not come.
    #[must_use]
    pub fn set_alarm(&mut self, tick: u64, lead: u64) -> bool {
        let now = self.now();
        let tick = tick.clamp(now.saturating_add(lead), now.saturating_add(HORIZON));
        // Off while the halves do not belong together.
        self.registers.write32(register::TIMER_CONFIG, self.config);
        self.registers.write32(register::COMPARATOR, tick as u32);
        self.registers
            .write32(register::COMPARATOR_HIGH, (tick >> 32) as u32);
        self.registers
            .write32(register::TIMER_CONFIG, self.config | INTERRUPT);
        self.now().saturating_add(LATENCY) <= tick
    }

    /// Takes the alarm away.
    pub fn clear_alarm(&mut self) {
        self.registers.write32(register::TIMER_CONFIG, self.config);
    }

    /// Acknowledges the alarm's interrupt. (An edge-triggered one leaves no status; writing it does no harm.)
    pub fn acknowledge(&mut self) {
        self.registers.write32(register::STATUS, 1);
    }
}

#[cfg(test)]
mod tests;
