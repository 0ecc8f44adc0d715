//! What `hw::acpi` says about a table, under the names and offsets that `iasl` uses.

use hw::acpi::{
    Affinity, ApicUse, BlockKind, DeviceHandle, Dmar, Hpet, Ivhd, Ivrs, IvrsBlock, Madt, MadtEntry,
    Mcfg, MemoryUsers, Polarity, Record, Remapping, Scopes, Signature, Slit, Srat, TableError,
    TableHeader, Trigger,
};
use portcullis_hw as hw;

use super::Value;

/// Why something that `iasl` prints is not compared.
pub const NO_MEANING: &str = "has no meaning in its structure";
pub const NOT_DECODED: &str = "structure of a kind that is not decoded";

/// A field that `hw::acpi` decodes.
#[derive(Debug)]
pub struct Field {
    pub offset: usize,
    pub name: &'static str,
    pub value: Value,
    /// Bits that are decoded.
    pub mask: u64,
}

/// What `hw::acpi` says about a table.
#[derive(Default, Debug)]
pub struct Decoded {
    pub fields: Vec<Field>,
    /// Offset, name, reason of what is passed over.
    pub passed_over: Vec<(usize, &'static str, &'static str)>,
    /// Offsets of structures of kinds that are not decoded.
    pub other: Vec<usize>,
    /// What is refused.
    pub refused: Vec<TableError>,
    /// Only records are refused, not the table.
    pub whole: bool,
}

impl Decoded {
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = Self {
            whole: true,
            ..Self::default()
        };
        let signature = Signature([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let header = TableHeader::parse(bytes, signature).unwrap();
        out.text(0, "Signature", &header.signature.to_string());
        out.number(4, "Table Length", header.length);
        out.number(8, "Revision", header.revision);
        let all = match &signature.0 {
            b"MCFG" => out.mcfg(bytes),
            b"APIC" => out.madt(bytes),
            b"DMAR" => out.dmar(bytes),
            b"IVRS" => out.ivrs(bytes),
            b"SRAT" => out.srat(bytes),
            b"SLIT" => out.slit(bytes),
            b"HPET" => out.hpet(bytes),
            other => unreachable!("{other:?}"),
        };
        if let Err(error) = all {
            out.refused.push(error);
            out.whole = false;
        }
        out
    }

    pub(super) fn number(&mut self, offset: usize, name: &'static str, value: impl Into<u64>) {
        self.bits(offset, name, value, u64::MAX);
    }

    pub(super) fn bits(
        &mut self,
        offset: usize,
        name: &'static str,
        value: impl Into<u64>,
        mask: u64,
    ) {
        self.fields.push(Field {
            offset,
            name,
            value: Value::Number(value.into()),
            mask,
        });
    }

    fn text(&mut self, offset: usize, name: &'static str, value: &str) {
        self.fields.push(Field {
            offset,
            name,
            value: Value::Text(value.to_owned()),
            mask: u64::MAX,
        });
    }

    pub(super) fn pass_over(&mut self, offset: usize, names: &[&'static str]) {
        let entries = names.iter().map(|name| (offset, *name, NO_MEANING));
        self.passed_over.extend(entries);
    }

    /// The record, its type and length noted; nothing, if it is refused.
    fn record<T>(
        &mut self,
        record: Result<Record<T>, TableError>,
        length_at: usize,
    ) -> Option<(usize, T)> {
        match record {
            Ok(record) => {
                let offset = record.offset as usize;
                self.number(offset, "Subtable Type", record.kind);
                self.number(offset + length_at, "Length", record.length);
                Some((offset, record.body))
            }
            Err(error) => {
                self.refused.push(error);
                None
            }
        }
    }

    fn mcfg(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        let windows = Mcfg::parse(bytes)?;
        for (index, window) in windows.windows().enumerate() {
            let at = 44 + 16 * index;
            let window = match window {
                Ok(window) => window,
                Err(error) => {
                    self.refused.push(error);
                    continue;
                }
            };
            self.number(at, "Base Address", window.base);
            self.number(at + 8, "Segment Group Number", window.segment);
            self.number(at + 10, "Start Bus Number", window.buses.first());
            self.number(at + 11, "End Bus Number", window.buses.last());
        }
        Ok(())
    }

    fn madt(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        const FLAGS: &str = "Flags (decoded below)";
        let madt = Madt::parse(bytes)?;
        self.number(36, "Local Apic Address", madt.local_apic_address);
        self.bits(40, FLAGS, madt.pc_at_compatible, 1);
        for record in madt.records() {
            let kind = record.as_ref().map_or(0, |record| record.kind);
            let Some((at, entry)) = self.record(record, 1) else {
                continue;
            };
            match entry {
                MadtEntry::LocalApic(apic) => {
                    let (value, mask) = match apic.usable {
                        ApicUse::Enabled => (1u64, 1),
                        ApicUse::OnlineCapable => (2, 3),
                        ApicUse::Disabled => (0, 3),
                    };
                    if kind == 0 {
                        self.number(at + 2, "Processor ID", apic.uid);
                        self.number(at + 3, "Local Apic ID", apic.id);
                        self.bits(at + 4, FLAGS, value, mask);
                    } else {
                        self.number(at + 4, "Processor x2Apic ID", apic.id);
                        self.bits(at + 8, FLAGS, value, mask);
                        self.number(at + 12, "Processor UID", apic.uid);
                    }
                }
                MadtEntry::IoApic(apic) => {
                    self.number(at + 2, "I/O Apic ID", apic.id);
                    self.number(at + 4, "Address", apic.address);
                    self.number(at + 8, "Interrupt", apic.first_gsi);
                }
                MadtEntry::Override(line) => {
                    let polarity = match line.polarity {
                        Polarity::OfBus => 0,
                        Polarity::High => 1,
                        Polarity::Low => 3,
                    };
                    let trigger = match line.trigger {
                        Trigger::OfBus => 0,
                        Trigger::Edge => 1u64,
                        Trigger::Level => 3,
                    };
                    // Another bus is refused.
                    self.number(at + 2, "Bus", 0u8);
                    self.number(at + 3, "Source", line.source);
                    self.number(at + 4, "Interrupt", line.gsi);
                    self.bits(at + 8, FLAGS, trigger << 2 | polarity, 0xf);
                }
                MadtEntry::LocalApicAddress(address) => {
                    self.number(at + 4, "APIC Address", address);
                }
                MadtEntry::Other { .. } => self.other.push(at),
            }
        }
        Ok(())
    }

    fn dmar(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        let dmar = Dmar::parse(bytes)?;
        self.number(36, "Host Address Width", dmar.host_address_bits - 1);
        self.number(37, "Flags", dmar.flags.bits());
        for record in dmar.records() {
            let Some((at, structure)) = self.record(record, 2) else {
                continue;
            };
            match structure {
                Remapping::Drhd(unit) => {
                    self.number(at + 4, "Flags", unit.include_all);
                    // This version of iasl does not know what it is.
                    self.bits(at + 5, "Reserved", (unit.size / 4096).ilog2(), 0xf);
                    self.number(at + 6, "PCI Segment Number", unit.segment);
                    self.number(at + 8, "Register Base Address", unit.base);
                    self.scopes(unit.scopes);
                }
                Remapping::Rmrr(region) => {
                    self.number(at + 6, "PCI Segment Number", region.segment);
                    self.number(at + 8, "Base Address", region.base);
                    self.number(at + 16, "End Address (limit)", region.limit);
                    self.scopes(region.scopes);
                }
                Remapping::Atsr(ports) => {
                    self.bits(at + 4, "Flags", ports.all_ports, 1);
                    self.number(at + 6, "PCI Segment Number", ports.segment);
                    self.scopes(ports.scopes);
                }
                Remapping::Rhsa(domain) => {
                    self.number(at + 8, "Base Address", domain.base);
                    self.number(at + 16, "Proximity Domain", domain.domain);
                }
                Remapping::Andd(device) => {
                    self.number(at + 7, "Device Number", device.number);
                    self.text(at + 8, "Device Name", device.name);
                }
                Remapping::Satc(devices) => {
                    self.bits(at + 4, "Flags", devices.required, 1);
                    self.number(at + 6, "PCI Segment Number", devices.segment);
                    self.scopes(devices.scopes);
                }
                Remapping::Sidp(devices) => {
                    self.number(at + 6, "PCI Segment Number", devices.segment);
                    self.scopes(devices.scopes);
                }
                Remapping::Other { .. } => self.other.push(at),
            }
        }
        Ok(())
    }

    fn scopes(&mut self, scopes: Scopes<'_>) {
        for scope in scopes.records() {
            let scope = match scope {
                Ok(scope) => scope,
                Err(error) => {
                    self.refused.push(error);
                    continue;
                }
            };
            let at = scope.offset as usize;
            self.number(at, "Device Scope Type", scope.kind);
            self.number(at + 1, "Entry Length", scope.length);
            // Flags, and a byte that is reserved.
            self.bits(at + 2, "Reserved", scope.body.flags, 0xff);
            self.number(at + 4, "Enumeration ID", scope.body.enumeration_id);
            self.number(at + 5, "PCI Bus Number", scope.body.path.bus);
            for (index, hop) in scope.body.path.hops.iter().enumerate() {
                let text = format!("{:02X},{:02X}", hop.device, hop.function);
                self.text(at + 6 + 2 * index, "PCI Path", &text);
            }
        }
    }

    fn ivrs(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        let ivrs = Ivrs::parse(bytes)?;
        self.number(36, "Virtualization Info", ivrs.information);
        for record in ivrs.records() {
            let Some((at, block)) = self.record(record, 2) else {
                continue;
            };
            match block {
                IvrsBlock::Unit(unit) => self.unit(at, &unit),
                IvrsBlock::Memory(memory) => {
                    self.number(at + 1, "Flags", memory.flags.bits());
                    match memory.users {
                        MemoryUsers::All => {
                            self.pass_over(at + 4, &["DeviceId"]);
                            self.pass_over(at + 6, &["Auxiliary Data"]);
                        }
                        MemoryUsers::One(id) => {
                            self.number(at + 4, "DeviceId", id);
                            self.pass_over(at + 6, &["Auxiliary Data"]);
                        }
                        MemoryUsers::Range(first, last) => {
                            self.number(at + 4, "DeviceId", first);
                            self.number(at + 6, "Auxiliary Data", last);
                        }
                    }
                    // The segment, which this version of iasl does not know.
                    self.bits(at + 8, "Reserved", memory.segment, 0xffff);
                    self.number(at + 16, "Start Address", memory.base);
                    let length = memory.limit - memory.base + 1;
                    self.number(at + 24, "Memory Length", length);
                }
                IvrsBlock::Other { .. } => self.other.push(at),
            }
        }
        Ok(())
    }

    fn unit(&mut self, at: usize, unit: &Ivhd<'_>) {
        self.number(at + 1, "Flags", unit.flags.bits());
        self.number(at + 4, "DeviceId", unit.id);
        self.number(at + 6, "Capability Offset", unit.capability);
        self.number(at + 8, "Base Address", unit.base);
        self.number(at + 16, "PCI Segment Group", unit.segment);
        self.number(at + 18, "Virtualization Info", unit.information);
        if unit.kind == BlockKind::Basic {
            self.number(at + 20, "Feature Reporting", unit.features);
        } else {
            self.number(at + 20, "Attributes", unit.features);
            self.number(at + 24, "EFR Image", unit.extended_features);
            self.number(at + 32, "Reserved", unit.extended_features_2);
        }
        for record in unit.records() {
            match record {
                Ok(record) => self.entry(&record),
                Err(error) => self.refused.push(error),
            }
        }
    }

    fn srat(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        const FLAGS: &str = "Flags (decoded below)";
        let srat = Srat::parse(bytes)?;
        for record in srat.records() {
            let kind = record.as_ref().map_or(0, |record| record.kind);
            let Some((at, entry)) = self.record(record, 1) else {
                continue;
            };
            match entry {
                Affinity::Processor(one) if kind == 0 => {
                    self.number(at + 2, "Proximity Domain Low(8)", one.domain & 0xff);
                    self.number(at + 3, "Apic ID", one.apic_id);
                    self.bits(at + 4, FLAGS, one.enabled, 1);
                    self.pass_over(at + 8, &["Local Sapic EID"]);
                    self.number(at + 9, "Proximity Domain High(24)", one.domain >> 8);
                    self.number(at + 12, "Clock Domain", one.clock_domain);
                }
                Affinity::Processor(one) => {
                    self.number(at + 4, "Proximity Domain", one.domain);
                    self.number(at + 8, "Apic ID", one.apic_id);
                    self.bits(at + 12, FLAGS, one.enabled, 1);
                    self.number(at + 16, "Clock Domain", one.clock_domain);
                }
                Affinity::Memory(range) => {
                    self.number(at + 2, "Proximity Domain", range.domain);
                    self.number(at + 8, "Base Address", range.base);
                    self.number(at + 16, "Address Length", range.length);
                    self.number(at + 28, FLAGS, range.flags.bits());
                }
                Affinity::Initiator(device) | Affinity::Port(device) => {
                    let (kind, mut handle) = match device.device {
                        DeviceHandle::Acpi {
                            hardware_id,
                            unique_id,
                        } => (0u8, [&hardware_id[..], &unique_id[..]].concat()),
                        DeviceHandle::Pci(pci) => {
                            let mut handle = pci.segment().to_le_bytes().to_vec();
                            handle.extend([pci.bus(), pci.device() << 3 | pci.function()]);
                            (1, handle)
                        }
                    };
                    handle.resize(16, 0);
                    self.number(at + 3, "Device Handle Type", kind);
                    self.number(at + 4, "Proximity Domain", device.domain);
                    self.text(at + 8, "Device Handle", &row(&handle));
                    self.bits(at + 24, FLAGS, device.enabled, 1);
                }
                Affinity::Other { .. } => self.other.push(at),
            }
        }
        Ok(())
    }

    fn slit(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        const ROWS: [&str; 4] = ["Locality 0", "Locality 1", "Locality 2", "Locality 3"];
        let slit = Slit::parse(bytes)?;
        let count = slit.localities();
        self.number(36, "Localities", count as u64);
        for (from, name) in (0..count).zip(ROWS) {
            let distance = |to| slit.distance(from as u32, to as u32).unwrap_or(255);
            let distances: Vec<u8> = (0..count).map(distance).collect();
            let at = 44 + count * from;
            match distances[..] {
                [one] => self.number(at, name, one),
                _ => self.text(at, name, &row(&distances)),
            }
        }
        assert!(count <= ROWS.len(), "{count} rows");
        Ok(())
    }

    fn hpet(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        let hpet = Hpet::parse(bytes)?;
        let comparators = u64::from(hpet.comparators - 1) << 8;
        self.bits(36, "Hardware Block ID", comparators, 0x1f00);
        self.number(40, "Space ID", 0u8);
        self.number(44, "Address", hpet.address);
        self.number(52, "Sequence Number", hpet.number);
        self.pass_over(40, &["Timer Block Register"]);
        self.pass_over(41, &["Bit Width"]);
        self.pass_over(42, &["Bit Offset"]);
        self.pass_over(43, &["Encoded Access Width"]);
        self.pass_over(53, &["Minimum Clock Ticks"]);
        self.pass_over(55, &["Flags (decoded below)"]);
        Ok(())
    }
}

/// Bytes as `iasl` prints several.
fn row(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(" ")
}
