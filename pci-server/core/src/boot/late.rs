//! Functions that come while the shard serves: [`take_in`] enters what is behind a
//! bridge and was not known, [`settle`] examines one and makes its memory ready.

use core::ops::ControlFlow;

use hw::enumeration::{Fault, Found, enumerate};
use hw::{BusRange, ConfigSpace, Sbdf};
use ipc_proto::{DeviceState, Rule};
use system::info::{ClientEntry, PciInfo};

use super::examine::{examine, glance};
use super::{classify, granted, isolation, report};
use crate::device::Region;
use crate::env::{BarMemory, Host};
use crate::table::Full;
use crate::{Device, Index, Malformed, Table, Withheld};

/// Enters the functions on these buses that are not in the table, as alleged by their headers; the first bus is
/// behind `bridge`, or a root bus. Gives their number.
pub(crate) fn take_in<E: ConfigSpace + Host>(
    env: &mut E,
    clients: &[ClientEntry],
    devices: &mut Table,
    segment: u16,
    buses: BusRange,
    bridge: Option<Sbdf>,
) -> u16 {
    let mut count = 0u16;
    let mut lost: Option<Full> = None;
    let _ = enumerate(env, segment, buses, |found| {
        let (device, parent) = match found {
            Found::Function(function) => (
                Device::new(function.at, Some(function.header)),
                function.parent,
            ),
            Found::Fault {
                at,
                fault: Fault::Header(error),
            } => {
                let mut device = Device::new(at, None);
                device.withhold(Withheld::Malformed(Malformed::Header(error)));
                (device, None)
            }
            Found::Fault { .. } | Found::Host(_) => return ControlFlow::Continue(()),
        };
        if devices.find(device.at).is_some() {
            return ControlFlow::Continue(());
        }
        let bus = device.at.bus();
        let entered = enter(clients, devices, device).and_then(|_| {
            match parent.or(bridge.filter(|_| bus == buses.first())) {
                Some(bridge) => devices.lead(segment, bus, bridge),
                None => Ok(()),
            }
        });
        match entered {
            Ok(()) => count = count.saturating_add(1),
            Err(full) => lost = Some(full),
        }
        ControlFlow::Continue(())
    });
    if let Some(full) = lost {
        env.log(format_args!("functions that nobody gets: {full}"));
    }
    count
}

/// Enters one function, for the clients that it is granted to.
pub(crate) fn enter(
    clients: &[ClientEntry],
    devices: &mut Table,
    mut device: Device,
) -> Result<Index, Full> {
    let clients = granted(clients, &device);
    device.set_granted(clients);
    device.is_new = true;
    devices.insert(device)
}

/// Brings a new function to rest, decodes it and makes its memory ready; what is wrong with it is noted.
pub(crate) fn settle<E: ConfigSpace + BarMemory + Host>(
    env: &mut E,
    info: &PciInfo,
    devices: &mut Table,
    index: Index,
) {
    let Some(device) = devices.get_mut(index) else {
        return;
    };
    if let Some(header) = device.header {
        classify(info, device, &header);
        isolation::look(env, device, &header, info);
        let look_at_mastering = !info.iommu_present && !info.unprotected;
        if device.withheld.is_some() {
            glance(env, device, &header);
        } else if let Err(fault) = examine(env, device, &header, look_at_mastering) {
            device.withhold(Withheld::Malformed(fault));
        }
    }
    let at = device.at;
    for bar in 0..6 {
        let region = devices.get(index).and_then(|device| device.bars.get(bar));
        let Some(region) = region.copied().filter(Region::is_memory) else {
            continue;
        };
        let prepared = match neighbour(devices, index, &region) {
            Some(other) => Err(Malformed::Overlap {
                bar: bar as u8,
                other,
            }),
            None => prepare(env, devices, index, bar as u8, &region),
        };
        if let (Err(fault), Some(device)) = (prepared, devices.get_mut(index))
            && device.withheld.is_none()
        {
            device.withhold(Withheld::Malformed(fault));
        }
    }
    if let Some(device) = devices.at(at) {
        report(env, device);
    }
}

/// Another function whose memory this region meets, or whose page.
fn neighbour(devices: &Table, index: Index, region: &Region) -> Option<Sbdf> {
    let (first, last) = (region.base & !0xfff, region.last() | 0xfff);
    let meets = |other: &Region| {
        other.is_memory() && other.bytes > 0 && other.base <= last && other.last() >= first
    };
    devices
        .iter()
        .find(|(other, device)| *other != index && device.bars.iter().any(meets))
        .map(|(_, device)| device.at)
}

fn prepare<E: BarMemory>(
    env: &mut E,
    devices: &mut Table,
    index: Index,
    bar: u8,
    region: &Region,
) -> Result<(), Malformed> {
    let Some(device) = devices.get_mut(index) else {
        return Ok(());
    };
    if device.state != DeviceState::Quarantined || device.granted() == 0 {
        return Ok(());
    }
    let bits = region.bytes.max(4096).ilog2() as u8;
    let memory = env
        .prepare(region.base & !0xfff, bits)
        .map_err(|refusal| match refusal.rule {
            Rule::PageOutOfRange => Malformed::OutsideMemory(bar),
            rule => Malformed::NoFrames { bar, rule },
        })?;
    if let Some(region) = device.bars.get_mut(usize::from(bar)) {
        region.memory = Some(memory);
    }
    Ok(())
}
