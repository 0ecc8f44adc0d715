//! What happens once, before the first request: [`fill`] finds the functions of
//! the shard's buses, brings every one that could be given out to rest, decodes
//! it, and withholds what nobody gets.
//!
//! Functions of the platform are left exactly as firmware set them up. What is
//! wrong with one function is reported and never stops the others.

mod buses;
mod examine;
mod isolation;
pub(crate) mod late;
mod overlap;
pub(crate) mod recall;
mod windows;

use core::fmt;

use hw::capability::{CapabilityList, id};
use hw::header::{Header, Layout};
use hw::{BusRange, ClassCode, ConfigSpace};
use ipc_proto::DeviceState;
use ledger::Words;
use system::info::{ClientEntry, PciInfo};
use system::model::DeviceMatch;

use crate::bridge::Forwarding;
use crate::env::Host;
use crate::groups::Claims;
use crate::space::ShardMemory;
use crate::{Device, Index, Malformed, Table, Withheld, groups, placement};
use buses::scan;
use examine::{examine, glance};
use isolation::Touch;
use overlap::compare_bars;

pub use overlap::{BarKey, BarOrder};

/// Fills the device table; `order` is scratch space. Gives what bridges say about their buses.
pub fn fill<E: ConfigSpace + Host + Words>(
    env: &mut E,
    info: &PciInfo,
    clients: &[ClientEntry],
    devices: &mut Table,
    order: &mut BarOrder,
) -> Claims {
    for window in &info.ecam {
        if let Some(buses) = BusRange::new(window.first_bus, window.last_bus) {
            scan(env, info, clients, devices, window.segment, buses, None);
        }
    }
    count_held(devices);
    for_each(devices, |devices, index| {
        examine_one(env, info, devices, index)
    });
    let claims = groups::form(devices);
    for_each(devices, |devices, index| {
        windows::report(env, devices, index)
    });
    // Bridges come before what is behind them.
    for_each(devices, |devices, index| {
        place_one(env, info, devices, index)
    });
    compare_bars(devices, order);
    let memory = ShardMemory::new(&info.mmio);
    for_each(devices, |devices, index| serve_one(devices, index, &memory));
    for_each(devices, |devices, index| {
        if let Some(device) = devices.get_mut(index) {
            device.is_new = false;
        }
    });
    claims
}

/// After a restart: says of physical functions how many of their virtual ones are held.
fn count_held(devices: &mut Table) {
    let mut next = devices.after(None);
    while let Some(index) = next {
        next = devices.next(index);
        let physical = (devices.get(index))
            .filter(|device| device.assignment.is_some())
            .and_then(|device| devices.find(device.physical?));
        if let Some(device) = physical.and_then(|index| devices.get_mut(index)) {
            device.virtual_held = device.virtual_held.saturating_add(1);
        }
    }
}

/// Reports every function, in a line each.
pub(crate) fn report_all<E: Host>(env: &mut E, devices: &Table) {
    for (_, device) in devices.iter() {
        report(env, device);
    }
}

/// Goes over all functions in ascending order of addresses; `work` leaves them in the table.
fn for_each<'m>(devices: &mut Table<'m>, mut work: impl FnMut(&mut Table<'m>, Index)) {
    let mut next = devices.after(None);
    while let Some(index) = next {
        work(devices, index);
        next = devices.next(index);
    }
}

fn examine_one<E: ConfigSpace + Host + Words>(
    env: &mut E,
    info: &PciInfo,
    devices: &mut Table,
    index: Index,
) {
    // Without an IOMMU only a device that cannot issue requests is safe to give away.
    let look_at_mastering = !info.iommu_present && !info.unprotected;
    // Without a header it is withheld already.
    let Some((device, header)) = devices
        .get_mut(index)
        .and_then(|device| device.header.map(|header| (device, header)))
    else {
        return;
    };
    if device.assignment.is_some() {
        recall::recall(env, info, device);
        return;
    }
    // Of a physical function whose virtual ones are held nothing changes.
    let touch = match device.virtual_held {
        0 => Touch::Free,
        _ => Touch::Held,
    };
    classify(info, device, &header);
    if touch == Touch::Held && device.withheld.is_none() {
        device.withhold(Withheld::Platform);
    }
    let mut list = CapabilityList::default();
    list.fill(env, device.at, header.layout);
    let express = isolation::look(env, device, &header, &list, info, touch);
    if let Some(bridge) = device.bridge {
        device.bridge = Some(Forwarding::read(env, device.at, &header, bridge.buses));
    }
    if device.withheld.is_some() {
        glance(env, device, &header);
        if touch == Touch::Held {
            device.virtualization = list.extended_offset_of(id::extended::SR_IOV).unwrap_or(0);
        }
    } else if let Err(fault) = examine(env, device, &header, &list, express, look_at_mastering) {
        device.withhold(Withheld::Malformed(fault));
    } else if matches(&info.large_bars, device) {
        for region in device.bars.iter_mut().filter(|region| region.is_memory()) {
            region.alone = !region.fixed;
        }
    }
}

fn place_one<E: ConfigSpace + Host + Words>(
    env: &mut E,
    info: &PciInfo,
    devices: &mut Table,
    index: Index,
) {
    let is_free = |device: &Device| device.state == DeviceState::Quarantined;
    if !devices.get(index).is_some_and(is_free) {
        return;
    }
    if let Err(fault) = placement::place(env, devices, info, index)
        && let Some(device) = devices.get_mut(index)
    {
        device.withhold(Withheld::Malformed(fault));
    }
    // Nobody needs them to use the device.
    if let Some(at) = devices.get(index).map(|device| device.at) {
        let unplaced = placement::place_io(env, devices, info, index);
        for bar in (0..6).filter(|bar| unplaced >> bar & 1 != 0) {
            env.log(format_args!("{at} BAR {bar} has no I/O address"));
        }
    }
}

/// Withholds a device that somebody may get, and whose memory is not the shard's.
fn serve_one(devices: &mut Table, index: Index, memory: &ShardMemory<'_>) {
    let Some(device) = devices.get_mut(index) else {
        return;
    };
    let outside = device.serve(memory);
    let is_free = device.state == DeviceState::Quarantined && device.granted() != 0;
    if let Some(bar) = outside.filter(|_| is_free) {
        device.withhold(Withheld::Malformed(Malformed::OutsideMemory(bar)));
    }
}

fn matches(rules: &[DeviceMatch], device: &Device) -> bool {
    rules
        .iter()
        .any(|rule| rule.matches(device.at, device.ids, device.class))
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
    let listed = || matches(&info.withheld, device).then_some(Withheld::Description);
    if let Some(why) = why.or_else(listed) {
        device.withhold(why);
    }
}

/// How a device is reported: `0000:00:03.0 1234:11e8 class 00ff00 blocked, msi 1`.
fn report<E: Host>(env: &mut E, device: &Device) {
    struct Line<'a>(&'a Device);
    impl fmt::Display for Line<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Self(device) = self;
            if let Some(why) = device.withheld {
                write!(f, "{device} withheld: {why}")?;
                return match device.bridge.map(|bridge| bridge.buses) {
                    Some(Some(buses)) => write!(f, " to buses {buses}"),
                    Some(None) => write!(f, " to no bus"),
                    None => Ok(()),
                };
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
