//! What happens once, before the first request: [`fill`] finds the functions of
//! the shard's buses, brings every one that could be given out to rest, decodes
//! it, and withholds what nobody gets.
//!
//! Functions of the platform are left exactly as firmware set them up. What is
//! wrong with one function is reported and never stops the others.

mod examine;
mod isolation;
pub(crate) mod late;
mod overlap;

use core::fmt;
use core::ops::ControlFlow;

use heapless::Vec;
use hw::enumeration::{Fault, Found, enumerate};
use hw::header::{Header, Layout};
use hw::{BusRange, ClassCode, ConfigSpace, Sbdf};
use ipc_proto::{DeviceState, Rule};
use system::info::{ClientEntry, PciInfo};

use crate::env::{BarMemory, Host};
use crate::table::Full;
use crate::{Device, Malformed, Table, Withheld, groups};
use examine::{examine, glance};
use overlap::{compare_bars, region};

pub use overlap::{BarKey, BarOrder};

/// Fills the device table; `order` is scratch space.
pub fn fill<E: ConfigSpace + BarMemory + Host>(
    env: &mut E,
    info: &PciInfo,
    clients: &[ClientEntry],
    devices: &mut Table,
    order: &mut BarOrder,
) {
    for window in &info.ecam {
        if let Some(buses) = BusRange::new(window.first_bus, window.last_bus) {
            find(env, window.segment, buses, clients, devices);
        }
    }
    // Without an IOMMU only a device that cannot issue requests is safe to give away.
    let look_at_mastering = !info.iommu_present && !info.unprotected;
    let mut last = None;
    while let Some(index) = devices.after(last) {
        let Some(device) = devices.get_mut(index) else {
            break;
        };
        last = Some(device.at);
        // Without a header it is withheld already.
        let Some(header) = device.header else {
            continue;
        };
        classify(info, device, &header);
        isolation::look(env, device, &header, info);
        if device.withheld.is_some() {
            glance(env, device, &header);
        } else if let Err(fault) = examine(env, device, &header, look_at_mastering) {
            device.withhold(Withheld::Malformed(fault));
        }
    }
    groups::form(devices);
    compare_bars(devices, order);
    prepare(env, devices, order);
    devices.iter().for_each(|(_, device)| report(env, device));
}

/// Enters the functions of some buses.
fn find<E: ConfigSpace + Host>(
    env: &mut E,
    segment: u16,
    buses: BusRange,
    clients: &[ClientEntry],
    devices: &mut Table,
) {
    let mut lost: Option<(u32, Full)> = None;
    let mut enter = |mut device: Device, bridge: Option<Sbdf>| {
        let granted = granted(clients, &device);
        device.set_granted(granted);
        let at = device.at;
        let entered = devices
            .insert(device)
            .map(|_| ())
            .and_then(|()| bridge.map_or(Ok(()), |bridge| devices.lead(segment, at.bus(), bridge)));
        if let Err(full) = entered {
            lost = Some((lost.map_or(1, |(count, _)| count.saturating_add(1)), full));
        }
    };
    // Reports wait until the configuration space is free again.
    let mut faults: Vec<(Sbdf, Fault), 16> = Vec::new();
    let _ = enumerate(env, segment, buses, |found| {
        match found {
            Found::Function(function) => {
                enter(
                    Device::new(function.at, Some(function.header)),
                    function.parent,
                );
            }
            Found::Fault {
                at,
                fault: Fault::Header(error),
            } => {
                let mut device = Device::new(at, None);
                device.withhold(Withheld::Malformed(Malformed::Header(error)));
                enter(device, None);
            }
            Found::Fault { at, fault } => {
                // Beyond the bound only the report is lost.
                let _ = faults.push((at, fault));
            }
            Found::Host(_) => {}
        }
        ControlFlow::Continue(())
    });
    for (at, fault) in faults {
        env.log(format_args!("{at} {fault}"));
    }
    if let Some((lost, full)) = lost {
        env.log(format_args!("{lost} functions that nobody gets: {full}"));
    }
}

/// One bit for each client to which the description grants the device.
fn granted(clients: &[ClientEntry], device: &Device) -> u32 {
    let may = |client: &ClientEntry| {
        client
            .devices
            .iter()
            .any(|rule| rule.matches(device.at, device.ids, device.class))
    };
    (0..32)
        .zip(clients)
        .filter(|(_, client)| may(client))
        .fold(0, |bits, (client, _)| bits | 1 << client)
}

/// The built-in rules, then the description's.
fn classify(info: &PciInfo, device: &mut Device, header: &Header) {
    let ClassCode { base, sub, .. } = header.class;
    let why = match (base, sub) {
        (0x06, 0x00) => Some(Withheld::HostBridge),
        (0x06, _) => Some(Withheld::Bridge),
        _ if header.layout != Layout::Endpoint => Some(Withheld::Bridge),
        (0x08, 0x06) => Some(Withheld::Iommu),
        // Interrupt controller, DMA controller, timer, clock; system management bus.
        (0x08, 0x00..=0x03) | (0x0c, 0x05) => Some(Withheld::Chipset),
        _ => None,
    };
    let listed = || {
        info.withheld
            .iter()
            .any(|rule| rule.matches(device.at, device.ids, device.class))
            .then_some(Withheld::Description)
    };
    if let Some(why) = why.or_else(listed) {
        device.withhold(why);
    }
}

/// Makes the memory of every BAR ready that some client may get frames of.
fn prepare<E: BarMemory>(env: &mut E, devices: &mut Table, order: &BarOrder) {
    for &key in order.iter() {
        let (device, bar, region) = region(devices, key);
        let Some(device) = devices.get_mut(device) else {
            continue;
        };
        if device.state != DeviceState::Quarantined || device.granted() == 0 || region.shared_page {
            continue;
        }
        let bits = region.bytes.max(4096).ilog2() as u8;
        match env.prepare(region.base & !0xfff, bits) {
            Ok(memory) => {
                if let Some(region) = device.bars.get_mut(usize::from(bar)) {
                    region.memory = Some(memory);
                }
            }
            Err(refusal) => {
                let fault = match refusal.rule {
                    Rule::PageOutOfRange => Malformed::OutsideMemory(bar),
                    rule => Malformed::NoFrames { bar, rule },
                };
                device.withhold(Withheld::Malformed(fault));
            }
        }
    }
}

/// How a device is reported: `0000:00:03.0 1234:11e8 class 00ff00 blocked, msi 1`.
fn report<E: Host>(env: &mut E, device: &Device) {
    struct Line<'a>(&'a Device);
    impl fmt::Display for Line<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Self(device) = self;
            if let Some(why) = device.withheld {
                return write!(f, "{device} withheld: {why}");
            }
            write!(f, "{device} blocked")?;
            if let Some(msi) = device.msi {
                write!(f, ", msi {}", msi.vectors)?;
            }
            if let Some(msix) = device.msix {
                write!(f, ", msi-x {}", msix.entries)?;
            }
            if let Some(reset) = device.reset {
                write!(f, ", reset {reset:?}")?;
            }
            if device.bars.iter().any(|region| region.shared_page) {
                write!(f, ", a BAR shares its page with another function")?;
            }
            Ok(())
        }
    }
    env.log(format_args!("{}", Line(device)));
}
