//! Examination of one function: [`examine`] brings it to rest and decodes it
//! once and for all, [`glance`] looks at one that is left alone.

use hw::ConfigSpace;
use hw::bar::{ProbeError, Register, Slot};
use hw::capability::{
    AdvancedFeatures, AllocationProperty, AllocationTarget, CapabilityError, CapabilityList,
    EnhancedAllocation, Express, Msi, Msix, MsixError, PowerManagement, id,
};
use hw::header::{Command, Header, register};
use ipc_proto::{BarKind, ResetKind};
use ledger::Words;

use crate::device::{Baseline, Presence, Region};
use crate::notes::sizing;
use crate::reset::{DEVICE_CONTROL2, LINK_CONTROL};
use crate::{Device, MAX_BAR_BYTES, Malformed, interrupts, registers};

/// Notes where the BARs of a function begin that is left alone. Their sizes stay unknown (0): to size a BAR is to
/// switch its decoding off, under the platform that uses it.
pub(super) fn glance<C: ConfigSpace>(cfg: &C, device: &mut Device, header: &Header) {
    let count = header.layout.bar_count();
    let registers = hw::bar::read_registers(cfg, device.at, register::BAR0, count);
    for (register, region) in registers.into_iter().zip(&mut device.bars) {
        if let Register::Region { space, address } = register {
            *region = Region::of_size(space, address, 0);
        }
    }
}

/// Brings a function to rest and decodes it.
pub(crate) fn examine<C: ConfigSpace + Words>(
    cfg: &mut C,
    device: &mut Device,
    header: &Header,
    list: &CapabilityList,
    express: Result<Option<Express>, CapabilityError>,
    look_at_mastering: bool,
) -> Result<(), Malformed> {
    let at = device.at;
    quiet(cfg, device, look_at_mastering)?;
    // Interrupts off before anything is judged: a later fault must not leave them on.
    let msi = list.find::<Msi, C>(cfg, at);
    let msix = list.find::<Msix, C>(cfg, at);
    interrupts::silence(cfg, at, msi.ok().flatten(), msix.ok().flatten());
    if let Some(fault) = list.fault.or(list.extended_fault) {
        return Err(Malformed::List(fault));
    }
    device.msi = msi.map_err(Malformed::Capability)?;
    device.msix = msix.map_err(Malformed::Capability)?;
    decode(cfg, device, list, express)?;
    // The BARs of a virtual function are in its physical function, and known.
    if device.physical.is_none() {
        examine_bars(cfg, device, header)?;
        examine_allocations(cfg, device, list)?;
    }
    check_table(device)?;
    device.mark_secret();
    remember(cfg, device);
    match device.presence(cfg) {
        Presence::Same => Ok(()),
        Presence::Gone | Presence::Other => Err(Malformed::Vanished),
    }
}

/// Decodes the other capabilities.
fn decode<C: ConfigSpace>(
    cfg: &C,
    device: &mut Device,
    list: &CapabilityList,
    express: Result<Option<Express>, CapabilityError>,
) -> Result<(), Malformed> {
    let at = device.at;
    device.power = list
        .find::<PowerManagement, C>(cfg, at)
        .map_err(Malformed::Capability)?;
    device.express = express.map_err(Malformed::Capability)?;
    device.features = list
        .find::<AdvancedFeatures, C>(cfg, at)
        .map_err(Malformed::Capability)?;
    // Id 1: Advanced Error Reporting.
    device.error_reporting = list.extended_offset_of(1).unwrap_or(0);
    device.virtualization = list.extended_offset_of(id::extended::SR_IOV).unwrap_or(0);
    device.config_bytes = if device.express.is_some() { 4096 } else { 256 };
    device.capabilities.clear();
    // As many as the list has room for.
    let _ = device.capabilities.extend_from_slice(&list.entries);
    device.reset = match device {
        Device {
            express: Some(express),
            ..
        } if express.function_level_reset => Some(ResetKind::Flr),
        Device {
            features: Some(features),
            ..
        } if features.function_level_reset => Some(ResetKind::AfFlr),
        Device {
            power: Some(power), ..
        } if !power.no_soft_reset => Some(ResetKind::PowerCycle),
        _ => None,
    };
    Ok(())
}

/// Decodes a function that was examined before, in an earlier life, and is held since: nothing is written.
///
/// # Errors
/// It is not what was noted.
pub(super) fn recall<C: ConfigSpace>(
    cfg: &C,
    device: &mut Device,
    list: &CapabilityList,
    express: Result<Option<Express>, CapabilityError>,
) -> Result<(), Malformed> {
    let at = device.at;
    if let Some(fault) = list.fault.or(list.extended_fault) {
        return Err(Malformed::List(fault));
    }
    device.msi = list
        .find::<Msi, C>(cfg, at)
        .map_err(Malformed::Capability)?;
    device.msix = list
        .find::<Msix, C>(cfg, at)
        .map_err(Malformed::Capability)?;
    decode(cfg, device, list, express)?;
    if device.physical.is_none() {
        for region in device.bars.iter_mut().filter(|region| region.fixed) {
            *region = Region::NONE;
        }
        examine_allocations(cfg, device, list)?;
    }
    check_table(device)?;
    device.mark_secret();
    Ok(())
}

/// Decoding, bus mastering and INTx off.
fn quiet<C: ConfigSpace>(
    cfg: &mut C,
    device: &mut Device,
    look_at_mastering: bool,
) -> Result<(), Malformed> {
    let at = device.at;
    let firmware = cfg.read16(at, register::COMMAND);
    if firmware == u16::MAX {
        return Err(Malformed::Vanished);
    }
    let off =
        Command::IO_SPACE | Command::MEMORY_SPACE | Command::BUS_MASTER | Command::SERR_ENABLE;
    let mut command = Command::from_bits_retain(firmware);
    let mastered = command.contains(Command::BUS_MASTER);
    command.remove(off);
    command.insert(Command::INTERRUPT_DISABLE);
    device.baseline.command = command.bits();
    cfg.write16(at, register::COMMAND, command.bits());
    let now = Command::from_bits_retain(cfg.read16(at, register::COMMAND));
    if now.intersects(Command::MEMORY_SPACE | Command::BUS_MASTER) {
        return Err(Malformed::ControlStuck);
    }
    if look_at_mastering && !mastered {
        // Firmware did not use it: the bit is set for the time of one read to see if it exists.
        cfg.write16(
            at,
            register::COMMAND,
            (command | Command::BUS_MASTER).bits(),
        );
        let now = Command::from_bits_retain(cfg.read16(at, register::COMMAND));
        cfg.write16(at, register::COMMAND, command.bits());
        device.can_master = now.contains(Command::BUS_MASTER);
    }
    Ok(())
}

/// Registers whose reading acts on the device.
pub(super) fn hidden<C: ConfigSpace>(cfg: &C, device: &Device, list: &CapabilityList) -> u64 {
    const VIRTIO: u32 = 0x1af4;
    const CONFIGURATION_ACCESS: u8 = 5;
    if device.ids & 0xffff != VIRTIO {
        return 0;
    }
    list.entries
        .iter()
        .filter(|entry| entry.id == id::VENDOR)
        .filter(|entry| {
            let kind = u16::from(entry.offset) + 3;
            cfg.read8(device.at, kind) == CONFIGURATION_ACCESS
        })
        .fold(0, |bits, entry| {
            bits | registers::virtio_window(entry.offset)
        })
}

/// Sizes the BARs and finds the MSI-X pages.
fn examine_bars<C: ConfigSpace + Words>(
    cfg: &mut C,
    device: &mut Device,
    header: &Header,
) -> Result<(), Malformed> {
    let (mut fault, mut too_large) = (None, None);
    let bars = &mut device.bars;
    sizing::begin(cfg, device.at);
    let rom = hw::bar::probe_each(cfg, device.at, header, |index, slot| match slot {
        Slot::Bar(bar) if bar.size > MAX_BAR_BYTES => too_large = too_large.or(Some(index)),
        Slot::Bar(bar) => {
            if let Some(region) = bars.get_mut(usize::from(index)) {
                *region = Region::from(&bar);
            }
        }
        Slot::Faulty(found) => fault = fault.or(Some(found)),
        Slot::Unused | Slot::UpperHalf => {}
    });
    sizing::end(cfg);
    let broken = match rom {
        Err(ProbeError::Vanished) => Some(Malformed::Vanished),
        Ok(_) => fault
            .map(Malformed::Bar)
            .or(too_large.map(Malformed::BarTooLarge)),
    };
    if let Some(malformed) = broken {
        device.bars = [Region::NONE; 6];
        return Err(malformed);
    }
    // An expansion ROM that breaks a rule is no harm: it never answers.
    let rom = rom.ok().and_then(Result::ok).flatten();
    device.rom_bits = rom.map_or(0, |rom| rom.size.trailing_zeros() as u8);
    Ok(())
}

/// Regions at fixed addresses, in place of BARs.
fn examine_allocations<C: ConfigSpace>(
    cfg: &C,
    device: &mut Device,
    list: &CapabilityList,
) -> Result<(), Malformed> {
    let allocation = list
        .find::<EnhancedAllocation, C>(cfg, device.at)
        .map_err(Malformed::Capability)?;
    let Some(allocation) = allocation else {
        return Ok(());
    };
    for entry in allocation.entries(cfg, device.at) {
        let entry = entry.map_err(Malformed::Capability)?;
        let AllocationTarget::Bar(bar) = entry.target else {
            continue;
        };
        // What the first does not say to us, the second does.
        let property = match entry.primary {
            AllocationProperty::Reserved(_) => entry.secondary,
            primary => primary,
        };
        let AllocationProperty::Memory { prefetchable } = property else {
            continue;
        };
        let place = device.bars.get_mut(usize::from(bar));
        let Some(region) = place.filter(|_| entry.enabled) else {
            continue;
        };
        let last = entry.last().ok_or(Malformed::BarTooLarge(bar))?;
        if region.kind != BarKind::None || last - entry.base >= MAX_BAR_BYTES {
            return Err(Malformed::BarTooLarge(bar));
        }
        *region = Region {
            kind: BarKind::Memory64,
            base: entry.base,
            bytes: (last - entry.base).saturating_add(1),
            prefetchable,
            fixed: true,
            ..Region::NONE
        };
    }
    Ok(())
}

/// Is the MSI-X table, and are its pending bits, inside a memory BAR?
fn check_table(device: &Device) -> Result<(), Malformed> {
    let Some(msix) = device.msix else {
        return Ok(());
    };
    for (what, place, bytes) in [
        ("table", msix.table, msix.table_bytes()),
        ("pending bits", msix.pending, msix.pending_bytes()),
    ] {
        let bar = place.bar;
        let region = device
            .bars
            .get(usize::from(bar))
            .filter(|region| region.kind != BarKind::None)
            .ok_or(Malformed::Msix(MsixError::NoSuchBar { what, bar }))?;
        let (end, size) = (u64::from(place.offset) + bytes, region.bytes);
        if !region.is_memory() {
            return Err(Malformed::Msix(MsixError::NotMemory { what, bar }));
        }
        if end > size {
            let beyond = MsixError::BeyondBar {
                what,
                bar,
                end,
                size,
            };
            return Err(Malformed::Msix(beyond));
        }
    }
    Ok(())
}

/// Notes the registers that a reset changes; the expansion ROM is off from now on.
fn remember<C: ConfigSpace>(cfg: &mut C, device: &mut Device) {
    const ROM_ENABLE: u32 = 1;
    let at = device.at;
    let rom = cfg.read32(at, register::ROM_ENDPOINT);
    if rom & ROM_ENABLE != 0 {
        cfg.write32(at, register::ROM_ENDPOINT, rom & !ROM_ENABLE);
    }
    let express = device.express;
    let read = |place: Option<u16>| place.map_or(0, |offset| cfg.read16(at, offset));
    let offset = express.map(|express| u16::from(express.offset));
    device.baseline = Baseline {
        command: device.baseline.command,
        cache_line: cfg.read16(at, register::CACHE_LINE),
        interrupt_line: cfg.read8(at, register::INTERRUPT_LINE),
        rom: rom & !ROM_ENABLE,
        device_control: read(express.map(|express| express.device_control_register()))
            & !Express::INITIATE_FLR,
        link_control: read(offset.map(|offset| offset + LINK_CONTROL)),
        device_control2: read(
            offset
                .filter(|_| express.is_some_and(|express| express.version >= 2))
                .map(|offset| offset + DEVICE_CONTROL2),
        ),
    };
}
