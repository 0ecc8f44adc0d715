//! Memory of all functions side by side: what overlaps is withheld, and small
//! BARs that share a page are marked.

use heapless::Vec;
use hw::Sbdf;

use super::Devices;
use crate::device::Region;
use crate::{MAX_FUNCTIONS, Malformed, Withheld};

/// A BAR of the device table: place of the device << 3 | number of the BAR.
pub type BarKey = u16;
const _: () = assert!(MAX_FUNCTIONS << 3 <= 1 << BarKey::BITS);

/// Every memory BAR of a shard in ascending order of addresses.
pub type BarOrder = Vec<BarKey, { 6 * MAX_FUNCTIONS }>;

fn key(device: usize, bar: usize) -> BarKey {
    // Below MAX_FUNCTIONS << 3.
    (device << 3 | bar) as BarKey
}

pub(super) fn region(devices: &Devices, key: BarKey) -> (usize, u8, Region) {
    let (device, bar) = (usize::from(key >> 3), (key & 7) as u8);
    let region = devices
        .get(device)
        .and_then(|device| device.bars.get(usize::from(bar)))
        .copied();
    (device, bar, region.unwrap_or(Region::NONE))
}

/// Withholds functions whose memory overlaps, and marks small BARs that share a page.
pub(super) fn compare_bars(devices: &mut Devices, order: &mut BarOrder) {
    order.clear();
    for (at, device) in devices.iter().enumerate() {
        for (bar, region) in device.bars.iter().enumerate() {
            if region.is_memory() {
                // There is room for every BAR of every device.
                let _ = order.push(key(at, bar));
            }
        }
    }
    order.sort_unstable_by_key(|&key| region(devices, key).2.base);
    // The region that reaches farthest so far: whatever overlaps an earlier one overlaps it.
    let mut farthest: Option<BarKey> = None;
    for &next in order.iter() {
        let (device, bar, here) = region(devices, next);
        if let Some(before) = farthest {
            let (other, other_bar, there) = region(devices, before);
            if here.base <= there.last() {
                overlap(devices, device, bar, other);
                overlap(devices, other, other_bar, device);
            }
            if here.last() <= there.last() {
                continue;
            }
        }
        farthest = Some(next);
    }
    // Runs of small BARs in the same page.
    let mut rest = order.as_slice();
    while let Some(&first) = rest.first() {
        let (owner, _, start) = region(devices, first);
        let same_page = |key: &&BarKey| region(devices, **key).2.base / 4096 == start.base / 4096;
        let length = rest.iter().take_while(same_page).count().max(1);
        let (run, after) = rest.split_at(length.min(rest.len()));
        if run.iter().any(|&key| region(devices, key).0 != owner) {
            for &key in run {
                let (device, bar, _) = region(devices, key);
                if let Some(region) = devices
                    .get_mut(device)
                    .and_then(|device| device.bars.get_mut(usize::from(bar)))
                {
                    region.shared_page = true;
                }
            }
        }
        rest = after;
    }
}

fn overlap(devices: &mut Devices, device: usize, bar: u8, other: usize) {
    let other = devices.get(other).map_or(Sbdf::default(), |other| other.at);
    if let Some(device) = devices
        .get_mut(device)
        .filter(|device| device.withheld.is_none())
    {
        device.withhold(Withheld::Malformed(Malformed::Overlap { bar, other }));
    }
}
