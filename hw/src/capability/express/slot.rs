//! A slot's registers of the PCI Express capability: [`SlotRegisters`], all that
//! hot-plug needs (PCIe 5.0, 7.5.3.9 to 7.5.3.11 and 6.7).

use bitflags::bitflags;

use super::PowerLimit;

bitflags! {
    /// Slot Capabilities; bits 14:7 and 16:15 power limit, 31:19 number.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SlotCapabilities: u32 {
        /// Has an attention button.
        const ATTENTION_BUTTON = 1 << 0;
        /// Its power can be switched.
        const POWER_CONTROLLER = 1 << 1;
        /// Has a sensor of the retention latch.
        const LATCH_SENSOR = 1 << 2;
        /// Has an attention indicator.
        const ATTENTION_INDICATOR = 1 << 3;
        /// Has a power indicator.
        const POWER_INDICATOR = 1 << 4;
        /// Cards may be removed without asking.
        const SURPRISE = 1 << 5;
        /// Cards may be added and removed while the system runs.
        const HOT_PLUG = 1 << 6;
        /// Has an electromechanical interlock.
        const INTERLOCK = 1 << 17;
        /// Never says that a command is completed: writes of Slot Control need no pause.
        const NO_COMMAND_COMPLETED = 1 << 18;
        const _ = !0;
    }
}

impl SlotCapabilities {
    /// Number on the chassis, 0 if the slot has none.
    #[must_use]
    pub const fn number(self) -> u16 {
        (self.bits() >> 19) as u16
    }

    /// Power that the slot gives a card.
    #[must_use]
    pub const fn power_limit(self) -> PowerLimit {
        PowerLimit {
            value: (self.bits() >> 7) as u8,
            scale: (self.bits() >> 15 & 3) as u8,
        }
    }
}

bitflags! {
    /// Slot Control; bits 7:6 attention indicator, 9:8 power indicator ([`Self::INDICATOR_ON`] and others).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SlotControl: u16 {
        /// Interrupts when the attention button is pressed.
        const ATTENTION_BUTTON = 1 << 0;
        /// Interrupts on a power fault.
        const POWER_FAULT = 1 << 1;
        /// Interrupts when the latch moves.
        const LATCH_CHANGED = 1 << 2;
        /// Interrupts when a card comes or goes.
        const PRESENCE_CHANGED = 1 << 3;
        /// Interrupts when a command is completed.
        const COMMAND_COMPLETED = 1 << 4;
        /// Interrupts at all.
        const INTERRUPT = 1 << 5;
        /// The slot's power is off.
        const POWER_OFF = 1 << 10;
        /// Turns the interlock; reads zero.
        const INTERLOCK = 1 << 11;
        /// Interrupts when the link's state changes.
        const LINK_CHANGED = 1 << 12;
        const _ = !0;
    }
}

impl SlotControl {
    /// Where the attention indicator's two bits start.
    pub const ATTENTION_INDICATOR_SHIFT: u32 = 6;
    /// Where the power indicator's two bits start.
    pub const POWER_INDICATOR_SHIFT: u32 = 8;
    /// Indicator on.
    pub const INDICATOR_ON: u16 = 1;
    /// Indicator blinking.
    pub const INDICATOR_BLINK: u16 = 2;
    /// Indicator off.
    pub const INDICATOR_OFF: u16 = 3;

    /// The attention indicator: 1 on, 2 blinking, 3 off.
    #[must_use]
    pub const fn attention_indicator(self) -> u16 {
        self.bits() >> Self::ATTENTION_INDICATOR_SHIFT & 3
    }

    /// The power indicator: 1 on, 2 blinking, 3 off.
    #[must_use]
    pub const fn power_indicator(self) -> u16 {
        self.bits() >> Self::POWER_INDICATOR_SHIFT & 3
    }

    /// The same with another attention indicator (`state` as [`Self::INDICATOR_ON`] and others).
    #[must_use]
    pub const fn with_attention_indicator(self, state: u16) -> Self {
        let cleared = self.bits() & !(3 << Self::ATTENTION_INDICATOR_SHIFT);
        Self::from_bits_retain(cleared | (state & 3) << Self::ATTENTION_INDICATOR_SHIFT)
    }

    /// The same with another power indicator.
    #[must_use]
    pub const fn with_power_indicator(self, state: u16) -> Self {
        let cleared = self.bits() & !(3 << Self::POWER_INDICATOR_SHIFT);
        Self::from_bits_retain(cleared | (state & 3) << Self::POWER_INDICATOR_SHIFT)
    }
}

bitflags! {
    /// Slot Status; [`Self::EVENTS`] are cleared by writing ones.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SlotStatus: u16 {
        /// The attention button was pressed.
        const ATTENTION_BUTTON = 1 << 0;
        /// The power failed.
        const POWER_FAULT = 1 << 1;
        /// The latch moved.
        const LATCH_CHANGED = 1 << 2;
        /// A card came or went.
        const PRESENCE_CHANGED = 1 << 3;
        /// A command is completed.
        const COMMAND_COMPLETED = 1 << 4;
        /// The latch is open now.
        const LATCH_OPEN = 1 << 5;
        /// There is a card now.
        const PRESENT = 1 << 6;
        /// The interlock is engaged now.
        const INTERLOCK = 1 << 7;
        /// The link's state changed.
        const LINK_CHANGED = 1 << 8;
        const _ = !0;
    }
}

impl SlotStatus {
    /// The bits that report an event and are cleared by writing ones.
    pub const EVENTS: Self = Self::ATTENTION_BUTTON
        .union(Self::POWER_FAULT)
        .union(Self::LATCH_CHANGED)
        .union(Self::PRESENCE_CHANGED)
        .union(Self::COMMAND_COMPLETED)
        .union(Self::LINK_CHANGED);
}

/// Slot registers at the time of reading.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SlotRegisters {
    /// Slot Capabilities.
    pub capabilities: SlotCapabilities,
    /// Slot Control.
    pub control: SlotControl,
    /// Slot Status.
    pub status: SlotStatus,
}
