//! Rows of one device: taking and releasing it, its configuration space, its
//! BAR, its interrupts; and all of that at once, as a driver starts and ends.

use client::report::check;
use client::{
    ANY_IOVA, Access, Client, Device, Error, Mechanism, Mmio, PagePreference, Sbdf, Switch, Width,
};
use edu_driver::Edu;
use sel4_client::{SeL4Platform, ticks};
use system::layout::event;

use crate::row::{ALL, Row};

/// Bytes of the DMA buffer of a device in use.
pub const BUFFER: u64 = 64 << 10;
/// Command and Status (PCIe 5.0, 7.5.1.1). Zeros in Status change nothing.
const COMMAND: u16 = 0x04;

type OurClient = Client<'static, SeL4Platform>;
type OurDevice<'c> = Device<'c, 'static, SeL4Platform>;

/// Taking the device and giving it back.
pub fn assignment(client: &OurClient, address: Sbdf, overhead: u64) -> Result<(), Error> {
    let (mut assign, mut release) = (Row::new(overhead), Row::new(overhead));
    for _ in 0..ALL {
        let device = assign.time(|| client.assign(address))?;
        release.time(|| device.release())?;
    }
    assign.report(client.platform(), "assign");
    release.report(client.platform(), "release");
    Ok(())
}

/// All that a driver does before its first request, and after its last: device, a DMA buffer in both address
/// spaces, the BAR mapped, bus mastering, one interrupt bound.
pub fn usable(client: &OurClient, address: Sbdf, overhead: u64) -> Result<(), Error> {
    let (mut assign, mut release) = (Row::new(overhead), Row::new(overhead));
    for _ in 0..ALL {
        let start = ticks();
        let device = client.assign(address)?;
        let buffer = client.buffer(BUFFER, PagePreference::Small)?;
        buffer.map(ANY_IOVA, Access::ReadWrite)?;
        let registers = device.map_bar_large(0)?;
        device.bus_master(Switch::On)?;
        let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
        assign.add(ticks() - start);

        let start = ticks();
        interrupts.disable()?;
        drop(registers);
        buffer.free()?;
        device.release()?;
        release.add(ticks() - start);
    }
    assign.report(client.platform(), "usable_assign");
    release.report(client.platform(), "usable_release");
    Ok(())
}

/// Reading and writing 32 bits of configuration space: the ids, and Command with the value that it has.
pub fn configuration(
    platform: &SeL4Platform,
    device: &OurDevice<'_>,
    overhead: u64,
) -> Result<(), Error> {
    let (mut read, mut write) = (Row::new(overhead), Row::new(overhead));
    let command = device.config_read(COMMAND, Width::Word)?;
    for _ in 0..ALL {
        read.time(|| device.config_read(0, Width::Dword))?;
        write.time(|| device.config_write(COMMAND, Width::Dword, command))?;
    }
    read.report(platform, "config_read32");
    write.report(platform, "config_write32");
    Ok(())
}

/// Mapping the BAR of 1 MiB with one touch, and unmapping it: one large frame.
pub fn bar(platform: &SeL4Platform, device: &OurDevice<'_>, overhead: u64) -> Result<(), Error> {
    let (mut map, mut unmap) = (Row::new(overhead), Row::new(overhead));
    for _ in 0..ALL {
        let start = ticks();
        let registers = device.map_bar_large(0)?;
        core::hint::black_box(registers.read32(0));
        map.add(ticks() - start);
        unmap.time(|| drop(registers));
    }
    map.report(platform, "bar_map_1m");
    unmap.report(platform, "bar_unmap_1m");
    Ok(())
}

/// Enabling and disabling an interrupt, and how long one takes from the device to its driver.
pub fn interrupts(client: &OurClient, device: &OurDevice<'_>, overhead: u64) -> Result<(), Error> {
    let platform = client.platform();
    let (mut enable, mut disable) = (Row::new(overhead), Row::new(overhead));
    for _ in 0..ALL {
        let interrupts =
            enable.time(|| device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN))?;
        disable.time(|| interrupts.disable())?;
    }
    enable.report(platform, "msi_enable");
    disable.report(platform, "msi_disable");

    let mut edu = Edu(device.map_bar_large(0)?);
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;
    let mut latency = Row::new(overhead);
    let mut came = 0;
    for _ in 0..ALL {
        let flags = latency.time(|| {
            edu.raise(1);
            client.wait()
        });
        came += u32::from(flags & event::OWN != 0);
        edu.acknowledge(1);
    }
    latency.report(platform, "irq_latency");
    check(
        platform,
        "interrupts_came",
        came == ALL as u32,
        format_args!("{came} of {ALL}"),
    );
    interrupts.disable()
}
