//! [`place_virtual`]: addresses for all virtual functions of a function, in one piece.

use hw::{ConfigSpace, Sbdf};
use ipc_proto::BarKind;
use system::info::PciInfo;

use super::{Want, above, extent, forward_to, is_reached, neighbours, room, taken};
use crate::device::Region;
use crate::space::{Range, ShardMemory};
use crate::{Index, Table};

/// Gives the BARs of the virtual functions of the function at `index` addresses, and keeps these for
/// them: `bars` are those of the first of `count`. `false`: there is no room.
pub fn place_virtual<C: ConfigSpace>(
    cfg: &mut C,
    table: &mut Table,
    info: &PciInfo,
    index: Index,
    bars: &mut [Region; 6],
    count: u16,
) -> bool {
    let Some(at) = table.get(index).map(|device| device.at) else {
        return false;
    };
    let memory = |bars: &[Region; 6]| bars.iter().filter(|bar| bar.is_memory()).count();
    let all = |is: fn(&Region) -> bool| bars.iter().filter(|bar| bar.is_memory()).all(is);
    let total = bars
        .iter()
        .filter(|bar| bar.is_memory())
        .try_fold(0u64, |sum, bar| {
            sum.checked_add(bar.bytes.checked_mul(count.into())?)
        });
    let Some(total) = total.filter(|total| *total > 0) else {
        return memory(bars) == 0;
    };
    if are_placed(table, info, index, at, bars, count) {
        // Where firmware wants them.
        return true;
    }
    let want = Want {
        bytes: total,
        align: bars
            .iter()
            .map(|bar| bar.bytes)
            .max()
            .unwrap_or(4096)
            .max(4096),
        wide: all(|bar| bar.kind == BarKind::Memory64),
        prefetchable: all(|bar| bar.prefetchable),
    };
    let room = room(cfg, table, info, (at.segment(), at.bus()), want, 0);
    let Some(range) = room.and_then(|base| Range::new(base, total)) else {
        return false;
    };
    // One behind the other, the largest first: each is aligned then.
    let (mut next, mut left) = (range.first, 0x3fu8);
    while let Some((bar, region)) = (0u8..)
        .zip(bars.iter_mut())
        .filter(|(bar, region)| left >> bar & 1 != 0 && region.is_memory())
        .max_by_key(|(_, region)| region.bytes)
    {
        left &= !(1 << bar);
        region.base = next;
        next = next.saturating_add(region.bytes.saturating_mul(count.into()));
    }
    if let Some(device) = table.get_mut(index) {
        device.virtual_memory = Some(range);
    }
    forward_to(cfg, table, at);
    true
}

/// Are these BARs of virtual functions where they are reached, and alone?
fn are_placed(
    table: &Table,
    info: &PciInfo,
    index: Index,
    at: Sbdf,
    bars: &[Region; 6],
    count: u16,
) -> bool {
    let memory = ShardMemory::new(&info.mmio);
    let above = above(table, at);
    bars.iter().filter(|bar| bar.is_memory()).all(|bar| {
        let whole = Region {
            bytes: bar.bytes.saturating_mul(count.into()),
            ..*bar
        };
        let Some(range) = extent(&whole) else {
            return false;
        };
        let is_alone = neighbours(table, at)
            .filter(|(other, _)| *other != index)
            .flat_map(|(_, device)| taken(device))
            .all(|taken| !taken.meets(&range));
        memory.holds(whole.base, whole.bytes) && is_reached(above, &whole) && is_alone
    })
}
