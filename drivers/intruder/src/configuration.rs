//! Tricks with configuration writes: registers that would take a device out
//! of its holder's confinement.

use client::{Device, Error, Mechanism, Rule, Width};
use sel4_client::SeL4Platform;
use system::layout::event;

use crate::Intruder;

const COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;
const CAPABILITIES: u16 = 0x34;
const BUS_MASTER: u32 = 1 << 2;
const MSI: u32 = 5;

fn find_msi(device: &Device<'_, 'static, SeL4Platform>) -> Result<u16, Error> {
    let mut at = device.config_read(CAPABILITIES, Width::Byte)?;
    // A capability list has at most 48 entries.
    for _ in 0..48 {
        let offset = u16::try_from(at & !3).unwrap_or(0);
        if offset == 0 {
            break;
        }
        let header = device.config_read(offset, Width::Word)?;
        if header & 0xff == MSI {
            return Ok(offset);
        }
        at = header >> 8;
    }
    Err(Error::NotFound)
}

pub fn run(intruder: &Intruder<'_>) -> Result<(), Error> {
    let device = intruder.client.assign(intruder.own)?;
    let before = device.config_read(BAR0, Width::Dword)?;
    intruder.refused(
        "write_bar",
        device.config_write(BAR0, Width::Dword, 0xfee0_0000),
        Rule::RegisterReadOnly,
    );
    let after = device.config_read(BAR0, Width::Dword)?;
    intruder.holds(
        "bar_unchanged",
        before == after,
        format_args!("{before:#x} -> {after:#x}"),
    );

    // Some of Command may be written, bus mastering may not: refused or without effect.
    let wrote = device.config_write(COMMAND, Width::Word, 0xffff);
    let command = device.config_read(COMMAND, Width::Word)?;
    intruder.holds(
        "write_bus_master",
        command & BUS_MASTER == 0,
        format_args!("{wrote:?}, Command is {command:#06x}"),
    );

    let msi = find_msi(&device)?;
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    let message = device.config_read(msi + 4, Width::Dword)?;
    // More messages than were set up.
    let control = device.config_write(msi + 2, Width::Word, 0x0071);
    intruder.refused("write_msi_control", control, Rule::RegisterReadOnly);
    intruder.refused(
        "write_msi_address",
        device.config_write(msi + 4, Width::Dword, 0xfee0_f000),
        Rule::RegisterReadOnly,
    );
    // Data 0x0e would raise a page fault in the kernel.
    for (name, offset) in [("write_msi_data", 8), ("write_msi_data_64", 12)] {
        intruder.refused(
            name,
            device.config_write(msi + offset, Width::Word, 0x0e),
            Rule::RegisterReadOnly,
        );
    }
    let now = device.config_read(msi + 4, Width::Dword)?;
    intruder.holds(
        "msi_unchanged",
        message == now,
        format_args!("{message:#x} -> {now:#x}"),
    );
    interrupts.disable()?;

    intruder.refused(
        "config_misaligned",
        device.config_read(2, Width::Dword),
        Rule::BadAccess,
    );
    intruder.refused(
        "config_outside",
        device.config_read(0x1000, Width::Dword),
        Rule::BadAccess,
    );
    device.release()
}
