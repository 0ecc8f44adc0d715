//! A USB host controller (QEMU's `nec-usb-xhci`): sixteen interrupters, each with a message of its own, by MSI or
//! MSI-X. An interrupter whose event ring says that there is more to read sends its message at once, which
//! is how they are raised here: no USB device takes part. Registers: xHCI 1.2, 5.4 and 5.5.

use client::{
    ANY_IOVA, Access, Error, Mechanism, Memory, Mmio, PagePreference, Registers, Rule, Switch,
    Width,
};
use sel4_client::SeL4Platform;

use crate::sources::{Card, Source};
use crate::{Probe, suite};

/// Vendor id.
pub const VENDOR: u16 = 0x1033;
/// Device id.
pub const DEVICE: u16 = 0x0194;
/// Pages of BAR 0 in front of the one with the MSI-X table.
const PAGES: u16 = 3;
/// Messages it has.
pub const MESSAGES: u16 = 16;
/// Where the MSI-X table is, and something that is none of it on the same page.
const TABLE: u64 = 0x3000;
const BESIDE: u64 = 0x3900;
/// Where its pending bits are.
const PENDING: u64 = 0x3800;

mod register {
    /// Length of the capability registers (byte), then offsets.
    pub const CAPABILITIES: usize = 0x00;
    /// Offset of the runtime registers.
    pub const RUNTIME: usize = 0x18;
    /// USB command, in the operational registers. Bit 2: interrupts are enabled.
    pub const COMMAND: usize = 0x00;
    /// The first interrupter, in the runtime registers; 32 bytes each.
    pub const INTERRUPTER: usize = 0x20;
    /// Of an interrupter: management (bit 0 pending, bit 1 enabled).
    pub const MANAGEMENT: usize = 0x00;
    /// Entries of its segment table.
    pub const TABLE_SIZE: usize = 0x08;
    /// Address of its segment table.
    pub const TABLE: usize = 0x10;
    /// Where software reads its ring. Bit 3: the interrupt has been handled.
    pub const DEQUEUE: usize = 0x18;
}

/// Bytes of an event.
const EVENT: u64 = 16;
/// Events in a ring.
const EVENTS: u32 = 16;
const HANDLED: u64 = 1 << 3;

/// The controller, with interrupters that are ready to be raised.
pub struct Controller<M> {
    registers: M,
    runtime: usize,
    ring: u64,
}

impl<M: Mmio> Controller<M> {
    /// All interrupters share one ring, which nobody ever writes: only their registers are of interest.
    fn new(mut registers: M, ring: u64, table: u64) -> Self {
        let operational = (registers.read32(register::CAPABILITIES) & 0xff) as usize;
        let runtime = (registers.read32(register::RUNTIME) & !0x1f) as usize;
        registers.write32(operational + register::COMMAND, 1 << 2);
        let mut controller = Self {
            registers,
            runtime,
            ring,
        };
        for message in 0..MESSAGES {
            controller.write(message, register::TABLE_SIZE, 1);
            controller.write(message, register::DEQUEUE, ring as u32);
            controller.write(message, register::DEQUEUE + 4, (ring >> 32) as u32);
            controller.write(message, register::TABLE, table as u32);
            controller.write(message, register::TABLE + 4, (table >> 32) as u32);
            controller.write(message, register::MANAGEMENT, 2);
        }
        controller
    }

    fn write(&mut self, message: u16, register: usize, value: u32) {
        let at = self.runtime + register::INTERRUPTER + 32 * usize::from(message) + register;
        self.registers.write32(at, value);
    }
}

impl<M: Mmio> Source for Controller<M> {
    fn raise(&mut self, message: u16) {
        // The controller has written nothing: any place but the first looks like one that it is ahead of.
        let place = (self.ring + EVENT) | HANDLED;
        self.write(message, register::DEQUEUE, place as u32);
    }
    fn settle(&mut self, message: u16) {
        // Clears what is pending.
        self.write(message, register::MANAGEMENT, 3);
    }
}

/// The controller of a held device.
pub type Held<'d> = Controller<Registers<'d, 'static, SeL4Platform>>;

/// Takes the controller, readies it, and lets `work` have it.
///
/// # Errors
/// A server's refusal, or those of `work`.
pub fn with(
    probe: &Probe,
    work: impl FnOnce(&Card<'_>, &mut Held<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let device = probe.client.assign_ids(VENDOR, DEVICE)?;
    let buffer = probe.client.buffer(4096, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let table = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    let ring = table + 2048;
    // One segment: address of the ring, number of its events.
    memory.write(0, &ring.to_le_bytes());
    memory.write(8, &EVENTS.to_le_bytes());
    device.bus_master(Switch::On)?;
    let registers = device.map_bar_pages(0, 0, PAGES)?;
    work(&device, &mut Controller::new(registers, ring, table))
}

/// To be done when its messages have been enabled: it believes that it has one only when it is told to raise it then.
pub fn ready(controller: &mut Held<'_>) {
    (0..MESSAGES).for_each(|message| controller.settle(message));
}

/// Sixteen messages by one of the two mechanisms.
pub fn run(probe: &Probe, mechanism: Mechanism) -> Result<(), Error> {
    with(probe, |device, controller| {
        if mechanism == Mechanism::MsiX {
            beside_the_table(probe, device);
        }
        suite::run(probe, device, mechanism, MESSAGES, controller)
    })
}

/// Address, data and mask of every message, and the pending bits, by requests of every width: none is written.
fn all_of_the_table(probe: &Probe, device: &Card<'_>) {
    let (mut tries, mut refused) = (0, 0);
    let entries = (TABLE..TABLE + 16 * u64::from(MESSAGES)).step_by(4);
    for offset in entries.chain([PENDING]) {
        // To a local APIC; a page fault's vector; not masked.
        for value in [0xfee0_0000, 0x0e, 0] {
            for width in [Width::Byte, Width::Word, Width::Dword] {
                let written = device.bar_write(0, offset, width, value);
                let rule = written.err().and_then(|error| error.rule());
                tries += 1;
                refused += u32::from(rule == Some(Rule::PageWithheld));
            }
        }
    }
    probe.check(
        "table_is_not_written",
        tries > 0 && refused == tries,
        format_args!("{refused} of {tries} writes refused"),
    );
}

/// The page with the MSI-X table is not mapped; what else is on it is reached by request, the table is not.
fn beside_the_table(probe: &Probe, device: &Card<'_>) {
    let beside = device.bar_read(0, BESIDE, Width::Dword);
    let written = device.bar_write(0, BESIDE, Width::Dword, 0);
    let messages = device.bar_read(0, TABLE, Width::Dword);
    let forged = device.bar_write(0, TABLE, Width::Dword, 0xfee0_0000);
    all_of_the_table(probe, device);
    let page = device.map_bar_pages(0, PAGES.into(), 1).map(drop);
    let withheld = |error: &Error| error.rule() == Some(Rule::PageWithheld);
    probe.check(
        "beside_the_table",
        beside.is_ok()
            && written.is_ok()
            && messages.as_ref().is_err_and(withheld)
            && forged.as_ref().is_err_and(withheld)
            && page.as_ref().is_err_and(withheld),
        format_args!(
            "beside: {beside:x?} {written:?}, table: {messages:x?} {forged:?}, page: {page:?}"
        ),
    );
}
