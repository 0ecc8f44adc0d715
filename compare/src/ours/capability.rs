//! Fields of conventional capabilities; PCI Express has its own file.

use hw::ConfigSpace;
use hw::capability::{
    AdvancedFeatures, Allocation, AllocationProperty, AllocationTarget, BridgeSubsystem,
    Capability as _, CapabilityError, EnhancedAllocation, Entry, Express, Msi, Msix,
    PowerCapabilities, PowerControl, PowerManagement, VitalProductData, id,
};

use super::{Capability, Scope, Source, express, header};
use crate::field::{Field, Fields, Place};

/// One capability and its fields.
pub fn read(source: Source<'_>, entry: Entry) -> (Capability, Vec<Field>) {
    let place = Place::Capability(u16::from(entry.offset));
    let mut fields = Fields::new(place);
    let result = decode(source, entry, &mut fields);
    let scope = match result {
        Ok(scope) => scope,
        Err(_) => Scope::Whole,
    };
    let capability = Capability {
        place,
        id: u16::from(entry.id),
        name: entry.name(),
        version: None,
        scope,
        error: result.err(),
        is_cut: false,
    };
    (capability, fields.list)
}

fn decode(source: Source<'_>, entry: Entry, fields: &mut Fields) -> Result<Scope, CapabilityError> {
    let Source { cfg, at, .. } = source;
    let offset = entry.offset;
    match entry.id {
        id::POWER_MANAGEMENT => power(&PowerManagement::decode(cfg, at, offset)?, fields),
        id::MSI => msi(source, Msi::decode(cfg, at, offset)?, fields),
        id::MSIX => msix(&Msix::decode(cfg, at, offset)?, fields),
        id::ADVANCED_FEATURES => {
            let features = AdvancedFeatures::decode(cfg, at, offset)?;
            let control = cfg.read8(at, features.control_register());
            fields
                .line("AFCap")
                .flag("TP", features.transactions_pending)
                .flag("FLR", features.function_level_reset);
            let initiate = control & AdvancedFeatures::INITIATE_FLR != 0;
            fields.line("AFCtrl").flag("FLR", initiate);
            fields.line("AFStatus").flag("TP", features.pending);
        }
        id::BRIDGE_SUBSYSTEM => {
            let BridgeSubsystem(subsystem) = BridgeSubsystem::decode(cfg, at, offset)?;
            fields.text("", header::subsystem(subsystem));
        }
        id::EXPRESS => express::read(source, Express::decode(cfg, at, offset)?, fields)?,
        id::ENHANCED_ALLOCATION => {
            allocation(source, EnhancedAllocation::decode(cfg, at, offset)?, fields)?;
        }
        // What is behind the registers is in no dump.
        id::VITAL_PRODUCT_DATA => {
            VitalProductData::decode(cfg, at, offset)?;
            return Ok(Scope::Title);
        }
        _ => return Ok(Scope::Name),
    }
    Ok(Scope::Whole)
}

fn power(power: &PowerManagement, fields: &mut Fields) {
    fields.text("version", power.version.to_string());
    let capabilities = power.capabilities;
    fields
        .line("Flags")
        .flag(
            "PMEClk",
            capabilities.contains(PowerCapabilities::PME_CLOCK),
        )
        .flag(
            "DSI",
            capabilities.contains(PowerCapabilities::DEVICE_SPECIFIC_INIT),
        )
        .flag("D1", power.d1)
        .flag("D2", power.d2)
        .text("AuxCurrent", format!("{}mA", power.auxiliary_current()))
        .flag("PME: D0", capabilities.contains(PowerCapabilities::PME_D0))
        .flag("PME: D1", capabilities.contains(PowerCapabilities::PME_D1))
        .flag("PME: D2", capabilities.contains(PowerCapabilities::PME_D2))
        .flag(
            "PME: D3hot",
            capabilities.contains(PowerCapabilities::PME_D3_HOT),
        )
        .flag(
            "PME: D3cold",
            capabilities.contains(PowerCapabilities::PME_D3_COLD),
        );
    let control = power.control;
    fields
        .line("Status")
        .text("", format!("D{}", power.state.bits()))
        .flag("NoSoftRst", power.no_soft_reset)
        .flag("PME-Enable", control.contains(PowerControl::PME_ENABLE))
        .text("DSel", control.data_select().to_string())
        .text("DScale", control.data_scale().to_string())
        .flag("PME", control.contains(PowerControl::PME_STATUS));
    if power.bridge_extensions != 0 {
        fields
            .line("Bridge")
            .flag("PM", power.bridge_extensions & 1 << 7 != 0)
            .flag("B3", power.bridge_extensions & 1 << 6 == 0);
    }
}

fn msi(source: Source<'_>, msi: Msi, fields: &mut Fields) {
    fields
        .flag("Enable", msi.enabled)
        .text("Count", format!("{}/{}", msi.allowed, msi.vectors))
        .flag("Maskable", msi.maskable)
        .flag("64bit", msi.address64);
    let message = msi.message(source.cfg, source.at);
    fields
        .line("Address")
        .hex("", message.address)
        .hex("Data", message.data);
    if let (Some(mask), Some(pending)) = (message.mask, message.pending) {
        fields.line("Masking").hex("", mask).hex("Pending", pending);
    }
}

fn msix(msix: &Msix, fields: &mut Fields) {
    fields
        .flag("Enable", msix.enabled)
        .text("Count", msix.entries.to_string())
        .flag("Masked", msix.masked);
    for (label, place) in [("Vector table", msix.table), ("PBA", msix.pending)] {
        fields
            .line(label)
            .text("BAR", place.bar.to_string())
            .hex("offset", place.offset);
    }
}

fn allocation(
    source: Source<'_>,
    capability: EnhancedAllocation,
    fields: &mut Fields,
) -> Result<(), CapabilityError> {
    fields.text("NumEntries", capability.count.to_string());
    if let Some((secondary, subordinate)) = capability.buses {
        fields
            .text("secondary", secondary.to_string())
            .text("subordinate", subordinate.to_string());
    }
    for (index, entry) in capability.entries(source.cfg, source.at).enumerate() {
        let entry = entry?;
        fields.line(&format!("Entry {index}"));
        self::entry(&entry, fields);
    }
    Ok(())
}

fn entry(entry: &Allocation, fields: &mut Fields) {
    let target = match entry.target {
        AllocationTarget::Bar(index) => format!("BAR {index}"),
        AllocationTarget::Behind => "resource behind function".to_owned(),
        AllocationTarget::Other => "not indicated".to_owned(),
        AllocationTarget::Rom => "expansion ROM".to_owned(),
        AllocationTarget::VfBar(index) => format!("VF-BAR {index}"),
        AllocationTarget::Reserved => "reserved".to_owned(),
    };
    let secondary = match entry.secondary {
        AllocationProperty::Unavailable => {
            "entry unavailable for use, PrimaryProperties should be used".to_owned()
        }
        other => property(other),
    };
    fields
        .flag("Enable", entry.enabled)
        .flag("Writable", entry.writable)
        .text("EntrySize", entry.words.to_string())
        .text("BAR Equivalent Indicator", target)
        .text("PrimaryProperties", property(entry.primary))
        .text("SecondaryProperties", secondary)
        .hex("Base", entry.base)
        .hex("MaxOffset", entry.max_offset);
}

fn property(property: AllocationProperty) -> String {
    let kind = |prefetchable: bool| match prefetchable {
        true => "prefetchable",
        false => "non-prefetchable",
    };
    match property {
        AllocationProperty::Memory { prefetchable } => {
            format!("memory space, {}", kind(prefetchable))
        }
        AllocationProperty::Io => "I/O space".to_owned(),
        AllocationProperty::VfMemory { prefetchable } => {
            format!("VF memory space, {}", kind(prefetchable))
        }
        AllocationProperty::MemoryBehind { prefetchable } => {
            format!("allocation behind bridge, {} memory", kind(prefetchable))
        }
        AllocationProperty::IoBehind => "allocation behind bridge, I/O space".to_owned(),
        AllocationProperty::MemoryUnavailable => {
            "memory space resource unavailable for use".to_owned()
        }
        AllocationProperty::IoUnavailable => "I/O space resource unavailable for use".to_owned(),
        AllocationProperty::Unavailable => "entry unavailable for use".to_owned(),
        AllocationProperty::Reserved(bits) => format!("[{bits:02x}]"),
    }
}
