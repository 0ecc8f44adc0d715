//! [`scan`]: enters the functions of some buses in the table, and gives bus
//! numbers to bridges that have none, or such as they cannot have.

use core::ops::ControlFlow;

use heapless::Vec;
use hw::enumeration::{Fault, Found, enumerate};
use hw::header::{Header, Layout};
use hw::{BusRange, ConfigSpace, Sbdf};
use system::info::{ClientEntry, PciInfo};

use crate::bridge::{Forwarding, set_buses};
use crate::env::Host;
use crate::table::Full;
use crate::{Device, Malformed, Table, Withheld};

/// Reports of one pass that are kept until the configuration space is free again.
const MAX_REPORTS: usize = 32;

/// Buses to be scanned, and the bridge that leads to the first.
type Work = Vec<(BusRange, Option<Sbdf>), 64>;

/// Enters the functions of some buses that are not in the table, `above` being the bridge that leads
/// to the first of them. Bridges without usable bus numbers get free ones, and what is behind them is
/// scanned as well. Functions are left as they are.
pub(super) fn scan<E: ConfigSpace + Host>(
    env: &mut E,
    info: &PciInfo,
    clients: &[ClientEntry],
    devices: &mut Table,
    segment: u16,
    buses: BusRange,
    above: Option<Sbdf>,
) {
    let mut work = Work::new();
    let _ = work.push((buses, above));
    // Bus numbers are given once each, so that this ends.
    while let Some((buses, above)) = work.pop() {
        find(env, clients, devices, segment, buses, above);
        number(env, info, devices, segment, buses, &mut work);
    }
}

fn find<E: ConfigSpace + Host>(
    env: &mut E,
    clients: &[ClientEntry],
    devices: &mut Table,
    segment: u16,
    buses: BusRange,
    above: Option<Sbdf>,
) {
    let mut lost: Option<(u32, Full)> = None;
    let mut faults: Vec<(Sbdf, Fault), MAX_REPORTS> = Vec::new();
    let mut unreported = 0u32;
    if let Some(above) = above
        && let Err(full) = devices.lead(segment, buses.first(), above)
    {
        lost = Some((0, full));
    }
    let mut enter = |mut device: Device| {
        let granted = granted(clients, &device);
        device.set_granted(granted);
        device.is_new = true;
        let leads = device.bridge.and_then(|bridge| bridge.buses);
        let at = device.at;
        let entered = match devices.insert(device) {
            Err(Full::Occupied(_)) => Ok(()),
            Err(full) => Err(full),
            Ok(_) => leads.map_or(Ok(()), |buses| devices.lead(segment, buses.first(), at)),
        };
        if let Err(full) = entered {
            lost = Some((lost.map_or(1, |(count, _)| count.saturating_add(1)), full));
        }
    };
    let _ = enumerate(env, segment, buses, |found| {
        match found {
            Found::Function(function) => {
                let mut device = Device::new(function.at, Some(function.header));
                if function.header.layout != Layout::Endpoint {
                    device.bridge = Some(Forwarding::to(function.buses));
                }
                enter(device);
            }
            Found::Fault {
                at,
                fault: Fault::Header(error),
            } => {
                let mut device = Device::new(at, None);
                device.withhold(Withheld::Malformed(Malformed::Header(error)));
                enter(device);
            }
            Found::Fault { at, fault } => {
                unreported += u32::from(faults.push((at, fault)).is_err());
            }
            Found::Host(_) => {}
        }
        ControlFlow::Continue(())
    });
    for (at, fault) in faults {
        env.log(format_args!("{at} {fault}"));
    }
    if unreported > 0 {
        env.log(format_args!(
            "{unreported} more bridges have wrong bus numbers"
        ));
    }
    if let Some((lost, full)) = lost {
        env.log(format_args!("{lost} functions that nobody gets: {full}"));
    }
}

/// One bit for each client to which the description grants the device.
pub(super) fn granted(clients: &[ClientEntry], device: &Device) -> u32 {
    (0..32)
        .zip(clients)
        .filter(|(_, client)| super::matches(&client.devices, device))
        .fold(0, |bits, (client, _)| bits | 1 << client)
}

/// Is it a bridge that leads nowhere?
fn is_loose(device: &Device) -> bool {
    device.bridge.is_some_and(|bridge| bridge.buses.is_none())
}

/// Gives bus numbers to the bridges on some buses that lead nowhere, and puts these buses down to be
/// scanned.
fn number<E: ConfigSpace + Host>(
    env: &mut E,
    info: &PciInfo,
    devices: &mut Table,
    segment: u16,
    buses: BusRange,
    work: &mut Work,
) {
    let first = Sbdf::from_requester_id(segment, u16::from(buses.first()) << 8);
    let mut next = devices.find(first).or_else(|| devices.after(Some(first)));
    while let Some((index, device)) = next.and_then(|at| devices.get(at).map(|device| (at, device)))
    {
        let at = device.at;
        if at.segment() != segment || at.bus() > buses.last() {
            break;
        }
        next = devices.next(index);
        let Some(header) = device.header.filter(|_| is_loose(device)) else {
            continue;
        };
        let numbered = free_buses(info, devices, at)
            .filter(|_| !work.is_full())
            .filter(|range| set_buses(env, at, *range));
        let Some(range) = numbered else {
            env.log(format_args!("{at} there are no bus numbers for it"));
            continue;
        };
        env.log(format_args!("{at} leads to buses {range} now"));
        note(env, devices, at, &header, range);
        if let Err(full) = devices.lead(segment, range.first(), at) {
            env.log(format_args!("{at} {full}"));
        }
        let _ = work.push((range, Some(at)));
    }
}

fn note<E: ConfigSpace>(env: &E, devices: &mut Table, at: Sbdf, header: &Header, range: BusRange) {
    let device = devices.find(at).and_then(|index| devices.get_mut(index));
    if let Some(device) = device {
        device.bridge = Some(Forwarding::read(env, at, header, Some(range)));
    }
}

/// Bus numbers for a bridge: inside what the bridge above it has, and nobody else's. All bridges on the
/// bus that lead nowhere get as many, so that each has room for what may come behind it.
fn free_buses(info: &PciInfo, devices: &Table, at: Sbdf) -> Option<BusRange> {
    let (segment, bus) = (at.segment(), at.bus());
    let inside = match devices.bridge_to(segment, bus) {
        Some(above) => devices.at(above)?.bridge?.buses?,
        None => info.ecam.iter().find_map(|window| {
            let buses = BusRange::new(window.first_bus, window.last_bus)?;
            (window.segment == segment && buses.contains(bus)).then_some(buses)
        })?,
    };
    let is_free = |number: u8| {
        number > bus && inside.contains(number) && !is_claimed(devices, segment, bus, number)
    };
    let first = (bus..=inside.last()).find(|number| is_free(*number))?;
    let run = (first..=inside.last()).take_while(|number| is_free(*number));
    let loose = devices
        .on_bus(segment, bus)
        .filter(|(_, device)| is_loose(device));
    // At most 255 numbers, and this one at least.
    let share = (run.count() / loose.count().max(1)).max(1) as u8;
    BusRange::new(first, first.saturating_add(share - 1))
}

/// Is a bus number somebody's: a bus that is known, or behind a bridge that is not above bus `from`?
fn is_claimed(devices: &Table, segment: u16, from: u8, number: u8) -> bool {
    devices
        .buses()
        .filter(|(known, _, _)| *known == segment)
        .any(|(_, bus, bridge)| {
            let behind = bridge.and_then(|bridge| devices.at(bridge)?.bridge?.buses);
            let beside = |buses: BusRange| buses.contains(number) && !buses.contains(from);
            bus == number || behind.is_some_and(beside)
        })
}
