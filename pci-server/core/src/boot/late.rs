//! Functions that come while the shard serves: [`take_in`] enters what is behind a
//! bridge and was not known, [`settle`] brings one up and gives its BARs places.

use hw::{BusRange, ConfigSpace, Sbdf};
use ledger::Words;
use system::info::{ClientEntry, PciInfo};

use super::buses::{granted, scan};
use super::{examine_one, place_one, report, serve_one, windows};
use crate::env::Host;
use crate::space::ShardMemory;
use crate::table::Full;
use crate::{Device, Index, Table, placement};

/// Enters the functions on these buses that are not in the table, as alleged by their headers; the first bus is
/// behind `bridge`, or a root bus. Gives their number.
pub(crate) fn take_in<E: ConfigSpace + Host + Words>(
    env: &mut E,
    info: &PciInfo,
    clients: &[ClientEntry],
    devices: &mut Table,
    segment: u16,
    buses: BusRange,
    bridge: Option<Sbdf>,
) -> u16 {
    let before = devices.len();
    scan(env, info, clients, devices, segment, buses, bridge);
    u16::try_from(devices.len().saturating_sub(before)).unwrap_or(u16::MAX)
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

/// Brings a new function to rest, decodes it and gives its BARs places where nothing else is, whatever they
/// held; what is wrong with it is noted.
pub(crate) fn settle<E: ConfigSpace + Host + Words>(
    env: &mut E,
    info: &PciInfo,
    devices: &mut Table,
    index: Index,
) {
    examine_one(env, info, devices, index);
    windows::report(env, devices, index);
    // A virtual function has no registers of its own for its places.
    let is_own = |device: &Device| device.withheld.is_none() && device.physical.is_none();
    if devices.get(index).is_some_and(is_own) {
        placement::unplace(env, devices, index);
        place_one(env, info, devices, index);
    }
    serve_one(devices, index, &ShardMemory::new(&info.mmio));
    if let Some(device) = devices.get(index) {
        report(env, device);
    }
}
