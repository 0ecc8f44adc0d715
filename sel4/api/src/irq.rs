//! Interrupts.

use sel4_sys::Word;
use sel4_sys::constants::label;
use sel4_sys::invocation::invoke;

use crate::error::done;
use crate::{IrqControl, IrqHandler, Notification, Result, Slot};

/// An interrupt vector as the kernel's interface counts them, 0..=107 (`irq_user_min`.. of
/// `include/plat/pc99/plat/machine.h`). All cores and both kinds of interrupts share them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Vector(u8);

impl Vector {
    /// How many there are.
    pub const COUNT: u8 = 108;
    /// What the kernel adds for the processor's vector, which is what a message's data holds.
    pub const PROCESSOR_OFFSET: u8 = 0x30;

    /// A vector; `None` from [`Vector::COUNT`] on.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number in the kernel's interface.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The processor's vector: the data of a message-signalled interrupt.
    #[must_use]
    pub const fn processor_vector(self) -> u8 {
        self.0 + Self::PROCESSOR_OFFSET
    }
}

/// How an IOAPIC pin signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// On the edge: ISA lines.
    Edge = 0,
    /// As long as it is asserted: PCI lines.
    Level = 1,
}

/// What asserts an IOAPIC pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polarity {
    /// A high level: ISA lines.
    ActiveHigh = 0,
    /// A low level: PCI lines.
    ActiveLow = 1,
}

/// The function a message-signalled interrupt is for. The kernel only checks the ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiSource {
    /// Bus.
    pub bus: u8,
    /// Device, 0..=31.
    pub device: u8,
    /// Function, 0..=7.
    pub function: u8,
    /// Number of the message among the function's.
    pub handle: Word,
}

impl IrqControl {
    /// `IRQControl_GetMSI`: a handler for messages with the data [`Vector::processor_vector`].
    ///
    /// # Errors
    /// `RevokeFirst` if the vector is in use, `DeleteFirst` if the slot is occupied, `RangeError` for a
    /// device or function that cannot be.
    pub fn get_msi(self, dest: Slot, source: MsiSource, vector: Vector) -> Result {
        done(invoke(
            self.cptr(),
            label::X86_IRQ_ISSUE_IRQ_HANDLER_MSI,
            [
                dest.index,
                dest.depth.into(),
                source.bus.into(),
                source.device.into(),
                source.function.into(),
                source.handle,
                vector.number().into(),
            ],
            [dest.root.cptr()],
        ))
    }

    /// `IRQControl_GetIOAPIC`: a handler for a pin, which is unmasked at once. An interrupt masks the pin until
    /// [`IrqHandler::ack`], also one that comes before there is a notification to signal and so is lost: give
    /// the handler its notification, then acknowledge.
    ///
    /// # Errors
    /// `RevokeFirst` if the vector is in use, `DeleteFirst` if the slot is occupied, `RangeError` if there
    /// is no such IOAPIC or pin.
    pub fn get_ioapic(
        self,
        dest: Slot,
        (ioapic, pin): (Word, Word),
        trigger: Trigger,
        polarity: Polarity,
        vector: Vector,
    ) -> Result {
        done(invoke(
            self.cptr(),
            label::X86_IRQ_ISSUE_IRQ_HANDLER_IOAPIC,
            [
                dest.index,
                dest.depth.into(),
                ioapic,
                pin,
                trigger as Word,
                polarity as Word,
                vector.number().into(),
            ],
            [dest.root.cptr()],
        ))
    }
}

impl IrqHandler {
    /// `IRQHandler_Ack`: lets the interrupt come again.
    ///
    /// # Errors
    /// Only for a capability of another kind.
    #[inline]
    pub fn ack(self) -> Result {
        done(invoke(self.cptr(), label::IRQ_ACK_IRQ, [], []))
    }

    /// `IRQHandler_SetNotification`: signals it at each interrupt, with the badge of this capability.
    ///
    /// # Errors
    /// `InvalidCapability` if it may not be signalled.
    #[inline]
    pub fn set_notification(self, notification: Notification) -> Result {
        done(invoke(
            self.cptr(),
            label::IRQ_SET_IRQ_HANDLER,
            [],
            [notification.cptr()],
        ))
    }

    /// `IRQHandler_Clear`: signals nothing any more.
    ///
    /// # Errors
    /// Only for a capability of another kind.
    #[inline]
    pub fn clear(self) -> Result {
        done(invoke(self.cptr(), label::IRQ_CLEAR_IRQ_HANDLER, [], []))
    }
}
