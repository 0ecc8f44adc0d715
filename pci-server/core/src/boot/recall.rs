//! A function that is held when the shard is restarted: [`recall`] knows it again by reading, from what was noted of it
//! and from its own registers.

use hw::ConfigSpace;
use hw::capability::CapabilityList;
use hw::header::{Layout, register};
use ipc_proto::BarKind;
use system::info::PciInfo;

use super::examine;
use super::isolation::{self, Touch};
use super::matches;
use crate::Device;
use crate::device::{Presence, Recall};

/// Decodes a held function as far as it answers, and says in its [`Recall`] whether it is what was noted. Nothing is
/// written.
pub(crate) fn recall<C: ConfigSpace>(cfg: &mut C, info: &PciInfo, device: &mut Device) {
    device.recall = match device.presence(cfg) {
        Presence::Gone => Recall::Unread,
        Presence::Other => Recall::Wrong,
        Presence::Same => read(cfg, info, device),
    };
    if matches(&info.large_bars, device) {
        for region in device.bars.iter_mut().filter(|region| region.is_memory()) {
            region.alone = !region.fixed;
        }
    }
}

fn read<C: ConfigSpace>(cfg: &mut C, info: &PciInfo, device: &mut Device) -> Recall {
    let Some(header) = device.header else {
        return Recall::Wrong;
    };
    let mut list = CapabilityList::default();
    list.fill(cfg, device.at, Layout::Endpoint);
    let express = isolation::look(cfg, device, &header, &list, info, Touch::Held);
    match examine::recall(cfg, device, &list, express) {
        Ok(()) if device.withheld.is_none() => Recall::Done,
        _ => Recall::Wrong,
    }
}

/// Are the BARs where they were noted? Not so after a reset, before they are restored.
pub(crate) fn is_placed<C: ConfigSpace>(cfg: &C, device: &Device) -> bool {
    // Those of a virtual function are its physical function's.
    let own = match device.physical {
        Some(_) => [].as_slice(),
        None => &device.bars,
    };
    (register::BAR0..)
        .step_by(4)
        .zip(own)
        .all(|(offset, region)| {
            if region.fixed || region.kind == BarKind::None {
                return true;
            }
            let low = cfg.read32(device.at, offset);
            let high = match region.kind {
                BarKind::Memory64 => cfg.read32(device.at, offset + 4),
                _ => 0,
            };
            let mask = match region.kind {
                BarKind::Io => 0x3,
                _ => 0xf,
            };
            u64::from(high) << 32 | u64::from(low & !mask) == region.base
        })
}
