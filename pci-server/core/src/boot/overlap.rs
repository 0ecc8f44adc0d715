//! Memory of all functions side by side: what overlaps is withheld, and small
//! BARs that share a page are marked.

use heapless::VecView;
use hw::Sbdf;

use crate::device::Region;
use crate::{Index, Malformed, Table, Withheld};

/// A memory BAR of the device table, with what it is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarKey {
    base: u64,
    /// Place of the device << 3 | number of the BAR.
    key: u32,
}

/// Every memory BAR of a shard in ascending order of addresses: scratch space.
pub type BarOrder = VecView<BarKey>;

impl BarKey {
    fn new(device: Index, bar: usize, region: &Region) -> Self {
        Self {
            base: region.base,
            // A table has far fewer than 2^29 places.
            key: device.number() << 3 | bar as u32,
        }
    }

    const fn device(self) -> Index {
        Index::new(self.key >> 3)
    }

    const fn bar(self) -> u8 {
        (self.key & 7) as u8
    }

    const fn page(self) -> u64 {
        self.base / 4096
    }

    /// Last address.
    fn last(self, devices: &Table) -> u64 {
        let device = devices.get(self.device());
        let region = device.and_then(|device| device.bars.get(usize::from(self.bar())));
        region.map_or(self.base, Region::last)
    }
}

/// Withholds functions whose memory overlaps, and marks small BARs that share a page.
pub(super) fn compare_bars(devices: &mut Table, order: &mut BarOrder) {
    order.clear();
    for (at, device) in devices.iter() {
        for (bar, region) in device.bars.iter().enumerate() {
            if region.is_memory() {
                // There is room for every BAR of every device.
                let _ = order.push(BarKey::new(at, bar, region));
            }
        }
    }
    order.sort_unstable_by_key(|bar| bar.base);
    // The region that reaches farthest so far: whatever overlaps an earlier one overlaps it.
    let mut farthest: Option<(BarKey, u64)> = None;
    for &here in order.iter() {
        let last = here.last(devices);
        if let Some((before, end)) = farthest {
            if here.base <= end {
                overlap(devices, here.device(), here.bar(), before.device());
                overlap(devices, before.device(), before.bar(), here.device());
            }
            if last <= end {
                continue;
            }
        }
        farthest = Some((here, last));
    }
    for same_page in order.chunk_by(|one, next| one.page() == next.page()) {
        let Some(first) = same_page.first() else {
            continue;
        };
        if same_page.iter().any(|bar| bar.device() != first.device()) {
            for bar in same_page {
                let device = devices.get_mut(bar.device());
                let region = device.and_then(|it| it.bars.get_mut(usize::from(bar.bar())));
                if let Some(region) = region {
                    region.shared_page = true;
                }
            }
        }
    }
}

fn overlap(devices: &mut Table, device: Index, bar: u8, other: Index) {
    let other = devices.get(other).map_or(Sbdf::default(), |other| other.at);
    if let Some(device) = devices
        .get_mut(device)
        .filter(|device| device.withheld.is_none() && device.assignment.is_none())
    {
        device.withhold(Withheld::Malformed(Malformed::Overlap { bar, other }));
    }
}
