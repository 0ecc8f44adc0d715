//! Virtual functions of a physical one: [`Plan`], checked before anything is
//! switched on, then [`Plan::enable`]; [`disable`] (PCIe 5.0, 9.3.3).
//!
//! Who gets them, and where their memory lies, is the shard's.

use hw::bar::{Slot, Space};
use hw::capability::{CapabilityError, ExtendedCapability, SrIov, SrIovControl};
use hw::header::{Header, Ids, Layout};
use hw::{ClassCode, ConfigSpace, Sbdf};
use ipc_proto::{BarKind, Refusal, Rule};

use crate::device::Region;
use crate::{Device, MAX_BAR_BYTES};

/// Most virtual functions of one physical function.
pub const MAX_VIRTUAL: u16 = 64;
/// From enabling them to the first access (PCIe 5.0, 9.3.3.3.1).
pub const ENABLE_US: u64 = 100_000;
/// 4 KiB in System Page Size.
const PAGES_4K: u32 = 1;

/// What enabling so many virtual functions means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The physical function.
    pub physical: Sbdf,
    /// Its registers, with the number set.
    pub registers: SrIov,
    /// BARs of each: kind and size; addresses are those of the first one's.
    pub bars: [Region; 6],
}

impl Plan {
    /// Sets number and page size, and sizes the BARs; nothing is switched on. What fails leaves the number 0.
    /// `last_bus`: the last one that reaches the shard's functions here.
    ///
    /// # Errors
    /// `NoVirtualFunctions`; `BadFunctionCount` with the most there may be; `MalformedDevice`.
    pub fn make<C: ConfigSpace>(
        cfg: &mut C,
        device: &Device,
        count: u16,
        last_bus: u8,
    ) -> Result<Self, Refusal> {
        let (at, offset) = (device.at, device.virtualization);
        if offset == 0 {
            return Err(device.refusal(Rule::NoVirtualFunctions));
        }
        let registers = decode(cfg, device)?;
        let most = registers.total.min(MAX_VIRTUAL);
        if count == 0 || count > most {
            return Err(Refusal::new(Rule::BadFunctionCount, u64::from(most)));
        }
        cfg.write32(at, registers.system_page_register(), PAGES_4K);
        cfg.write16(at, registers.count_register(), count);
        let plan = Self::sized(cfg, device, count, last_bus);
        if plan.is_err() {
            cfg.write16(at, registers.count_register(), 0);
        }
        plan
    }

    fn sized<C: ConfigSpace>(
        cfg: &mut C,
        device: &Device,
        count: u16,
        last_bus: u8,
    ) -> Result<Self, Refusal> {
        let malformed = device.refusal(Rule::MalformedDevice);
        // First offset and stride may depend on the number.
        let registers = decode(cfg, device)?;
        if registers.count != count || registers.system_page != PAGES_4K {
            return Err(malformed);
        }
        // A stride of zero would give two the same address (9.3.3.10).
        if count > 1 && registers.stride == 0 {
            return Err(malformed);
        }
        let last = registers.virtual_function(device.at, count - 1);
        if last.is_none_or(|last| last.bus() > last_bus) {
            let reachable = (0..count)
                .take_while(|&number| {
                    registers
                        .virtual_function(device.at, number)
                        .is_some_and(|at| at.bus() <= last_bus)
                })
                .count();
            return Err(Refusal::new(Rule::BadFunctionCount, reachable as u64));
        }
        let slots = registers
            .probe_bars(cfg, device.at)
            .map_err(|_| malformed)?;
        let mut bars = [Region::NONE; 6];
        for (slot, region) in slots.iter().zip(&mut bars) {
            match slot {
                Slot::Bar(bar) if bar.space == Space::Io || bar.size > MAX_BAR_BYTES => {
                    return Err(malformed);
                }
                Slot::Bar(bar) => *region = Region::from(bar),
                Slot::Unused | Slot::UpperHalf => {}
                Slot::Faulty(_) => return Err(malformed),
            }
            // Each starts at a page of its own.
            region.bytes = match region.kind {
                BarKind::None => 0,
                _ => region.bytes.max(4096),
            };
        }
        Ok(Self {
            physical: device.at,
            registers,
            bars,
        })
    }

    /// Writes where the first one's BARs are, with those of the others behind it.
    pub fn place<C: ConfigSpace>(&self, cfg: &mut C) {
        for (index, region) in (0..).zip(&self.bars) {
            let Some(register) = self.registers.bar_register(index) else {
                break;
            };
            if !region.is_memory() {
                continue;
            }
            cfg.write32(self.physical, register, region.base as u32);
            if region.kind == BarKind::Memory64 {
                cfg.write32(self.physical, register + 4, (region.base >> 32) as u32);
            }
        }
    }

    /// Switches them on: nobody may touch them for [`ENABLE_US`].
    pub fn enable<C: ConfigSpace>(&self, cfg: &mut C) {
        let register = self.registers.control_register();
        let control = SrIovControl::from_bits_retain(cfg.read16(self.physical, register));
        let on = control | SrIovControl::VF_ENABLE | SrIovControl::VF_MEMORY_SPACE;
        cfg.write16(self.physical, register, on.bits());
    }

    /// The address of each.
    pub fn addresses(&self) -> impl Iterator<Item = Sbdf> + '_ {
        (0..self.registers.count)
            .filter_map(|number| self.registers.virtual_function(self.physical, number))
    }

    /// The record of virtual function `number` at its address, as far as it is known without asking it.
    #[must_use]
    pub fn device(&self, physical: &Device, number: u16) -> Option<Device> {
        let at = self.registers.virtual_function(self.physical, number)?;
        let header = Header {
            ids: Ids {
                vendor: physical.ids as u16,
                device: self.registers.device,
            },
            class: ClassCode::from_bits(physical.class),
            revision: physical.header.map_or(0, |header| header.revision),
            layout: Layout::Endpoint,
            multi_function: false,
        };
        let mut device = Device::new(at, Some(header));
        device.physical = Some(self.physical);
        for (region, first) in device.bars.iter_mut().zip(&self.bars) {
            *region = *first;
            // Inside the aperture, as placed.
            let behind = u64::from(number).saturating_mul(first.bytes);
            region.base = first.base.saturating_add(behind);
        }
        Some(device)
    }
}

fn decode<C: ConfigSpace>(cfg: &C, device: &Device) -> Result<SrIov, Refusal> {
    SrIov::decode(cfg, device.at, device.virtualization)
        .map_err(|_: CapabilityError| device.refusal(Rule::MalformedDevice))
}

/// Switches the virtual functions off: nobody holds one, none is touched again.
pub fn disable<C: ConfigSpace>(cfg: &mut C, device: &Device) {
    let Ok(registers) = decode(cfg, device) else {
        return;
    };
    let off = registers.control - SrIovControl::VF_ENABLE - SrIovControl::VF_MEMORY_SPACE;
    if registers.control.bits() != u16::MAX {
        cfg.write16(device.at, registers.control_register(), off.bits());
        cfg.write16(device.at, registers.count_register(), 0);
    }
}

/// How many virtual functions are switched on.
pub fn enabled<C: ConfigSpace>(cfg: &C, device: &Device) -> u16 {
    match decode(cfg, device) {
        Ok(registers) if registers.control.contains(SrIovControl::VF_ENABLE) => {
            registers.count.min(MAX_VIRTUAL)
        }
        _ => 0,
    }
}
