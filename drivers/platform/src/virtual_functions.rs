//! SR-IOV: virtual functions of a held physical function, each a device of its own.

use client::{BarKind, Error, Platform, ResetKind, Rule};

use crate::Probe;

/// Most virtual functions that are tried.
const MOST: usize = 8;

/// Enables `count` virtual functions of the first granted device, holds them all, and gives everything back.
pub fn enable(probe: &Probe, count: u16) -> Result<(), Error> {
    let client = &probe.client;
    let physical = client.devices().next().ok_or(Error::NotFound)??;
    let holder = client.assign(physical.device)?;
    probe
        .platform
        .log(format_args!("@assigned {}", physical.device));
    let absurd = holder.virtual_functions(u16::MAX).err();
    probe.check(
        "too_many_refused",
        absurd.and_then(|error| error.rule()) == Some(Rule::BadFunctionCount),
        format_args!("{absurd:?}"),
    );
    let (first, stride) = holder.virtual_functions(count)?;
    probe.check(
        "virtual_functions",
        true,
        format_args!("{count} from {first}, {stride} apart"),
    );
    let mut held = heapless::Vec::<_, MOST>::new();
    let mut good = 0;
    for found in client.devices() {
        let found = found?;
        if found.device == physical.device {
            continue;
        }
        let device = client.assign(found.device)?;
        let bar = device.bar(0)?;
        let (msi, msix) = {
            let row = device.port().msi_info()?;
            (row.msi, row.msix)
        };
        let registers = device.map_bar_pages(0, 0, 1)?;
        // NVMe capabilities (NVMe 1.4, 3.1.1). QEMU's read as zero until the physical function has put the virtual
        // one online; nothing at all would read as ones.
        let capabilities = client::Mmio::read64(&registers, 0);
        drop(registers);
        let reset = device.reset();
        let ok = bar.kind != BarKind::None
            && msix != 0
            && capabilities != u64::MAX
            && reset == Ok(ResetKind::Flr);
        probe.platform.log(format_args!(
            "{} ids {:08x} BAR 0 {:?} {:#x} bytes, {msi}/{msix} messages, CAP {capabilities:#x}, reset {reset:?}",
            found.device, found.ids, bar.kind, bar.bytes
        ));
        good += u16::from(ok);
        held.push(device).map_err(|_| Error::NotFound)?;
    }
    probe.check(
        "each_is_a_device",
        good == count,
        format_args!("{good} of {count} with BAR, MSI-X and reset of its own"),
    );
    let busy = holder.virtual_functions(0).err();
    probe.check(
        "not_while_held",
        busy.and_then(|error| error.rule()) == Some(Rule::VirtualFunctionHeld),
        format_args!("{busy:?}"),
    );
    for device in held {
        device.release()?;
    }
    holder.virtual_functions(0)?;
    let left = client.devices().count();
    probe.check("gone_again", left == 1, format_args!("{left} devices left"));
    holder.release()
}
