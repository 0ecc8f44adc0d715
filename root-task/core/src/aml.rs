//! What AML tables say of host bridges without being run: [`Reader`] goes over the declarations of a DSDT and
//! its SSDTs and keeps `_HID`, `_CID`, `_SEG`, `_BBN`, `_PXM` and `_CRS` where they are constants, or methods that do
//! nothing but return one.
//!
//! No code is run, so nothing can hang or reach a device, and a table costs as many steps as it has bytes. What
//! only code says is not known, and counted ([`Said::code`]). Where a declaration is of a kind that cannot even
//! be passed over, the rest of the block around it is skipped, and counted ([`Said::skipped`]). Why not an
//! interpreter: `docs/adr/0004-aml-is-not-run.md`.
//!
//! - [`find`]: where the tables are.
//! - [`resources`]: what `_CRS` says.
//! - [`stream`]: bytes of AML: package lengths, names, constants, what is passed over.

pub mod find;
pub mod resources;
pub mod stream;

use alloc::vec::Vec;

use resources::Resources;
use stream::{Stream, Value};

/// Most blocks within blocks that are followed.
const MAX_DEPTH: u8 = 32;
/// Most devices that are kept.
const MAX_DEVICES: usize = 256;
/// Bytes of a table's header (ACPI 6.5, 5.2.6).
const HEADER: usize = 36;

/// PCI and PCI Express host bridges in `_HID` or `_CID`: as text, and compressed (ACPI 6.5, 6.1.5).
const HOST_BRIDGES: [(&[u8], u64); 2] = [(b"PNP0A03", 0x030a_d041), (b"PNP0A08", 0x080a_d041)];

/// A place in the name space: names from the root down.
pub type Path = Vec<[u8; 4]>;

/// A number that firmware declares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Number {
    /// Not declared.
    #[default]
    Absent,
    /// A constant.
    Constant(u64),
    /// Only code says it.
    Code,
}

/// What firmware declares that a device passes on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Passes {
    /// Not declared.
    #[default]
    Absent,
    /// A constant.
    Constant(Resources),
    /// Only code says it, or it is not to be understood.
    Code,
}

/// What is known of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Device {
    path: Path,
    host_bridge: bool,
    segment: Number,
    bus: Number,
    proximity: Number,
    passes: Passes,
}

/// A host bridge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostBridge {
    /// PCI segment.
    pub segment: u16,
    /// Root bus.
    pub bus: u8,
    /// Proximity domain: its own, or that of the device around it.
    pub proximity: Option<u32>,
    /// What it passes on; `None` where only code says that.
    pub resources: Option<Resources>,
}

/// What the tables said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Said {
    /// Host bridges whose segment and bus are known, in the order of the tables.
    pub hosts: Vec<HostBridge>,
    /// Numbers of host bridges that only code says.
    pub code: usize,
    /// Host bridges of which only code says what they pass on.
    pub unknown_resources: usize,
    /// Blocks of which the rest was skipped.
    pub skipped: usize,
}

/// Reads tables one after the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reader {
    devices: Vec<Device>,
    skipped: usize,
}

impl Reader {
    /// Reads a DSDT or SSDT, header included: as much of it as there is.
    pub fn table(&mut self, table: &[u8]) {
        let length = table.get(4..8).and_then(|bytes| bytes.first_chunk());
        let length = length.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        let code = table.get(HEADER..length.min(table.len())).unwrap_or(&[]);
        self.block(Stream::new(code), &Path::new(), 0);
    }

    /// What all tables said.
    #[must_use]
    pub fn said(&self) -> Said {
        let mut said = Said {
            skipped: self.skipped,
            ..Said::default()
        };
        for device in self.devices.iter().filter(|device| device.host_bridge) {
            let proximity = self.proximity(&device.path);
            let resources = match &device.passes {
                Passes::Constant(resources) => Some(resources),
                Passes::Absent | Passes::Code => None,
            };
            said.unknown_resources += usize::from(resources.is_none());
            let first_bus = resources.and_then(|resources| resources.buses);
            let numbers = [device.segment, device.bus, proximity];
            said.code += numbers
                .iter()
                .filter(|number| **number == Number::Code)
                .count();
            // Without a declaration both are 0 (ACPI 6.5, 6.5.5 and 6.5.6).
            let number = |number| match number {
                Number::Absent => Some(0),
                Number::Constant(value) => Some(value),
                Number::Code => None,
            };
            let place = |segment: u64, bus: u64| {
                Some((u16::try_from(segment).ok()?, u8::try_from(bus).ok()?))
            };
            // Its first bus stands in both.
            let bus = number(device.bus).or(first_bus.map(|buses| buses.first().into()));
            let Some((segment, bus)) = number(device.segment)
                .zip(bus)
                .and_then(|(segment, bus)| place(segment, bus))
            else {
                continue;
            };
            let proximity = match proximity {
                Number::Constant(domain) => u32::try_from(domain).ok(),
                Number::Absent | Number::Code => None,
            };
            said.hosts.push(HostBridge {
                segment,
                bus,
                proximity,
                resources: resources.cloned(),
            });
        }
        said
    }

    /// The domain of a device: its own declaration, or that of the nearest around it (ACPI 6.5, 6.2.15).
    fn proximity(&self, path: &[[u8; 4]]) -> Number {
        let declared = |length: usize| {
            let around = path.get(..length)?;
            let device = self.devices.iter().find(|device| device.path == around)?;
            Some(device.proximity).filter(|number| *number != Number::Absent)
        };
        (1..=path.len())
            .rev()
            .find_map(declared)
            .unwrap_or_default()
    }

    /// Reads the declarations of a block.
    fn block(&mut self, mut stream: Stream<'_>, scope: &Path, depth: u8) {
        while !stream.is_empty() {
            if self.declaration(&mut stream, scope, depth).is_none() {
                self.skipped += 1;
                return;
            }
        }
    }

    /// Reads a declaration, or passes over it; `None` where neither works.
    fn declaration(&mut self, stream: &mut Stream<'_>, scope: &Path, depth: u8) -> Option<()> {
        match stream.opcode()? {
            stream::SCOPE | stream::DEVICE => {
                let mut block = stream.package()?;
                let path = block.path(scope)?;
                if depth < MAX_DEPTH {
                    self.block(block, &path, depth + 1);
                } else {
                    self.skipped += 1;
                }
            }
            stream::NAME => {
                let path = stream.path(scope)?;
                let value = stream.value()?;
                self.keep(&path, &value);
            }
            stream::METHOD => {
                let mut block = stream.package()?;
                let path = block.path(scope)?;
                // Number of arguments, and whether it is serialized.
                block.byte()?;
                self.keep(&path, &block.returned());
            }
            other => {
                // Declarations under a condition are not seen.
                self.skipped += usize::from(stream::IS_CODE.contains(&other));
                stream.pass_over(other)?;
            }
        }
        Some(())
    }

    /// Keeps what is declared, if it is about a host bridge.
    fn keep(&mut self, path: &[[u8; 4]], value: &Value<'_>) {
        let Some((name, device)) = path.split_last() else {
            return;
        };
        let number = match value {
            Value::Integer(value) => Number::Constant(*value),
            _ => Number::Code,
        };
        match name {
            b"_HID" | b"_CID" if is_host_bridge(value) => {
                if let Some(device) = self.device(device) {
                    device.host_bridge = true;
                }
            }
            b"_SEG" => self.set(device, |device| device.segment = number),
            b"_BBN" => self.set(device, |device| device.bus = number),
            b"_PXM" => self.set(device, |device| device.proximity = number),
            b"_CRS" => self.keep_resources(device, value),
            _ => {}
        }
    }

    /// Most devices have resources, and none that they pass on: those get no record.
    fn keep_resources(&mut self, path: &[[u8; 4]], value: &Value<'_>) {
        let template = match value {
            Value::Buffer(template) => Resources::read(template),
            _ => None,
        };
        let is_known = self.devices.iter().any(|device| device.path == path);
        match template {
            Some(resources) if resources.says_something() => {
                self.set(path, |device| device.passes = Passes::Constant(resources));
            }
            Some(_) => {}
            None if is_known => self.set(path, |device| device.passes = Passes::Code),
            None => {}
        }
    }

    fn set(&mut self, path: &[[u8; 4]], set: impl FnOnce(&mut Device)) {
        if let Some(device) = self.device(path) {
            set(device);
        }
    }

    /// The record of a device, a new one if need be.
    fn device(&mut self, path: &[[u8; 4]]) -> Option<&mut Device> {
        let known = self.devices.iter().position(|device| device.path == path);
        let at = match known {
            Some(at) => at,
            None if self.devices.len() < MAX_DEVICES => {
                self.devices.push(Device {
                    path: path.to_vec(),
                    host_bridge: false,
                    segment: Number::Absent,
                    bus: Number::Absent,
                    proximity: Number::Absent,
                    passes: Passes::Absent,
                });
                self.devices.len() - 1
            }
            None => return None,
        };
        self.devices.get_mut(at)
    }
}

fn is_host_bridge(value: &Value<'_>) -> bool {
    match *value {
        Value::Integer(id) => HOST_BRIDGES.iter().any(|(_, compressed)| id == *compressed),
        Value::Text(id) => HOST_BRIDGES.iter().any(|(text, _)| id == *text),
        Value::List(mut ids) => {
            // How many there are: one is read after the other until the end all the same.
            let _ = ids.byte();
            core::iter::from_fn(|| if ids.is_empty() { None } else { ids.value() })
                .any(|id| !matches!(id, Value::List(_)) && is_host_bridge(&id))
        }
        Value::Buffer(_) | Value::Other => false,
    }
}

#[cfg(test)]
mod tests;
