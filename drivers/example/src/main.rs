//! The driver of docs/writing-a-driver.md: five bytes go to QEMU's `edu` device and come back.

#![no_std]
#![no_main]

use client::report::check;
use client::{ANY_IOVA, Access, Client, Error, Mechanism, Memory, Mmio, PagePreference};
use client::{Platform, Switch};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;
use system::layout::event;

sel4_client::program!(main);

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    match drive(platform, info) {
        Ok(()) => 0,
        Err(error) => {
            platform.log(format_args!("{error}"));
            1
        }
    }
}

fn drive(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    // Compares versions with every server.
    let client = Client::connect(platform, info)?;
    // "I hold this device." Bus mastering is off.
    let device = client.assign_ids(0x1234, 0x11e8)?;
    // BAR frames in this PD: no server on the way.
    let mut registers = device.map_bar(0)?;
    let buffer = client.buffer(64 << 10, PagePreference::Small)?;
    // The same memory for the processor, and for the device.
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    // Message 0 signals `event::OWN`, message 1 would signal `event::OWN << 1`.
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;

    memory.write(0, b"hello");
    // (from, to, command): into the device's own memory, then out of it behind the first page.
    for (from, to, command) in [(iova, INSIDE, 1), (INSIDE, iova + 4096, 3)] {
        registers.write64(SOURCE, from);
        registers.write64(DESTINATION, to);
        registers.write64(COUNT, 5);
        registers.write64(COMMAND, command | WITH_INTERRUPT);
        if client.wait_for(event::OWN, 1_000_000)? == 0 {
            platform.log(format_args!("no interrupt within a second"));
            return Err(Error::NotFound);
        }
        let cause = registers.read32(INTERRUPT_STATUS);
        registers.write32(INTERRUPT_ACKNOWLEDGE, cause);
    }
    let mut back = [0; 5];
    memory.read(4096, &mut back);
    // For `[[expect]]`; `client::report::metric` tells a figure.
    check(
        platform,
        "moved",
        back == *b"hello",
        format_args!("{back:?} came back"),
    );
    // Whatever is held is given back when its value goes; here an error of that would be told.
    interrupts.disable()
}

// docs/specs/edu.rst of QEMU.
const INTERRUPT_STATUS: usize = 0x24;
const INTERRUPT_ACKNOWLEDGE: usize = 0x64;
const SOURCE: usize = 0x80;
const DESTINATION: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
const WITH_INTERRUPT: u64 = 4;
/// The device's own memory.
const INSIDE: u64 = 0x4_0000;
