//! Memory of all functions side by side: what overlaps is withheld, and small
//! BARs that share a page are marked.

use heapless::VecView;
use hw::Sbdf;

use crate::device::Region;
use crate::{Index, Malformed, Table, Withheld};

/// A BAR of the device table: place of the device << 3 | number of the BAR.
pub type BarKey = u32;

/// Every memory BAR of a shard in ascending order of addresses: scratch space.
pub type BarOrder = VecView<BarKey>;

fn key(device: Index, bar: usize) -> BarKey {
    // A table has far fewer than 2^29 places.
    device.number() << 3 | bar as BarKey
}

pub(super) fn region(devices: &Table, key: BarKey) -> (Index, u8, Region) {
    let (device, bar) = (Index::new(key >> 3), (key & 7) as u8);
    let region = devices
        .get(device)
        .and_then(|device| device.bars.get(usize::from(bar)))
        .copied();
    (device, bar, region.unwrap_or(Region::NONE))
}

/// Withholds functions whose memory overlaps, and marks small BARs that share a page.
pub(super) fn compare_bars(devices: &mut Table, order: &mut BarOrder) {
    order.clear();
    for (at, device) in devices.iter() {
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

fn overlap(devices: &mut Table, device: Index, bar: u8, other: Index) {
    let other = devices.get(other).map_or(Sbdf::default(), |other| other.at);
    if let Some(device) = devices
        .get_mut(device)
        .filter(|device| device.withheld.is_none())
    {
        device.withhold(Withheld::Malformed(Malformed::Overlap { bar, other }));
    }
}
