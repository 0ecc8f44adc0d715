//! [`Machine`]: the machine that QEMU is to be. It decides how a run is
//! started and is no part of the compiled description.

use super::rule::Rule;
use super::section::{Placed, Section};
use super::values;
use std::path::PathBuf;
use std::time::Duration;

/// Memory when the description says nothing.
const DEFAULT_MEMORY: u64 = 512 << 20;
/// A run that takes longer than this has hung, when the description says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Most cores; the kernel is built for one or for this many.
pub const MAX_CORES: u64 = 4;

/// Which machine of QEMU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineType {
    /// `q35`: PCI Express, configuration space in memory.
    Q35,
    /// `pc` (i440FX): conventional PCI, configuration space through I/O ports, no IOMMU.
    Pc,
}

/// Most proximity domains.
const MAX_DOMAINS: u64 = 4;

/// The emulated machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Which one.
    pub kind: MachineType,
    /// Bytes of memory.
    pub memory: u64,
    /// Cores.
    pub cores: u8,
    /// Proximity domains, each with an equal part of memory; 0: the machine says nothing of any.
    pub domains: u8,
    /// QEMU's name of the processor.
    pub cpu: String,
    /// Does the processor count instructions instead of time?
    pub icount: bool,
    /// A run that takes longer has hung.
    pub timeout: Duration,
    /// The IOMMU.
    pub iommu: Iommu,
    /// Devices in QEMU's notation.
    pub devices: Vec<Placed<String>>,
    /// Objects in QEMU's notation (`rng-builtin,id=rng0`).
    pub objects: Vec<Placed<String>>,
    /// Properties that are set for all devices of a driver (`driver.property=value`).
    pub globals: Vec<Placed<String>>,
    /// Disks that the tool makes.
    pub disks: Vec<Disk>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            kind: MachineType::Q35,
            memory: DEFAULT_MEMORY,
            cores: 1,
            domains: 0,
            cpu: "max".into(),
            icount: false,
            timeout: DEFAULT_TIMEOUT,
            iommu: Iommu::default(),
            devices: Vec::new(),
            objects: Vec::new(),
            globals: Vec::new(),
            disks: Vec::new(),
        }
    }
}

/// QEMU's `intel-iommu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iommu {
    /// Is there one?
    pub present: bool,
    /// Does it remap interrupts?
    pub interrupt_remapping: bool,
    /// Bits of a DMA address: 39 (three levels of tables) or 48 (four).
    pub address_bits: u8,
    /// Does it cache entries that are not present?
    pub caching_mode: bool,
    /// Does it serve devices that cache translations (ATS)?
    pub device_iotlb: bool,
}

impl Default for Iommu {
    fn default() -> Self {
        Self {
            present: true,
            interrupt_remapping: true,
            address_bits: 39,
            caching_mode: false,
            device_iotlb: false,
        }
    }
}

/// A disk image for the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Name, as in `drive=<id>`.
    pub id: Placed<String>,
    /// What is in it.
    pub content: Content,
}

/// What is in a disk image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Random bytes, the same for the same system, name, size and seed.
    Random {
        /// Bytes.
        size: u64,
        /// Chooses among random contents.
        seed: u64,
    },
    /// Zeros.
    Zero {
        /// Bytes.
        size: u64,
    },
    /// What is in a file, which is not written to.
    File(PathBuf),
}

/// Reads `[machine]`: the machine, and the name of every disk, whether the rest of it is right or not.
pub fn read(mut section: Section<'_, '_>) -> (Machine, Vec<Placed<String>>) {
    let default = Machine::default();
    let disks = section.tables("disk", "[[machine.disk]]", read_disk);
    let ids = disks.iter().filter_map(|(id, _)| id.clone()).collect();
    let timeout = section.text_or_number("timeout");
    let kind = section.choice(
        "type",
        &[("q35", MachineType::Q35), ("pc", MachineType::Pc)],
    );
    let wanted = section.table("iommu", "[machine.iommu]", read_iommu);
    let iommu = match (&kind, wanted) {
        (Some(kind), wanted) if kind.value == MachineType::Pc => {
            if wanted.is_some_and(|iommu| iommu.present) {
                section.findings().add(
                    Rule::BadOption,
                    kind.span.clone(),
                    "the machine `pc` has no IOMMU: say `iommu = { present = false }`, or nothing of it",
                );
            }
            Iommu {
                present: false,
                ..default.iommu
            }
        }
        (_, wanted) => wanted.unwrap_or_default(),
    };
    let machine = Machine {
        kind: kind.map_or(default.kind, |kind| kind.value),
        memory: section
            .size("memory", 1 << 20, 64 << 20..=64 << 30)
            .map_or(default.memory, |size| size.value),
        cores: section
            .number("cores", 1..=MAX_CORES)
            .map_or(1, |cores| cores.value as u8),
        domains: section
            .number("domains", 2..=MAX_DOMAINS)
            .map_or(0, |domains| domains.value as u8),
        cpu: section
            .text("cpu")
            .map_or(default.cpu, |cpu| cpu.value.to_owned()),
        icount: section.flag("icount").is_some_and(|flag| flag.value),
        timeout: timeout
            .and_then(|text| section.accept(text.map(|text| values::duration(&text))))
            .map_or(default.timeout, |timeout| timeout.value),
        iommu,
        devices: notation(&mut section, "devices", QemuItem::parse),
        objects: notation(&mut section, "objects", QemuItem::parse),
        globals: notation(&mut section, "globals", parse_global),
        disks: disks
            .into_iter()
            .filter_map(|(id, content)| {
                Some(Disk {
                    id: id?,
                    content: content?,
                })
            })
            .collect(),
    };
    section.finish();
    (machine, ids)
}

fn read_iommu(mut section: Section<'_, '_>) -> Iommu {
    let default = Iommu::default();
    let mut flag = |key, otherwise| section.flag(key).map_or(otherwise, |flag| flag.value);
    let present = flag("present", default.present);
    let interrupt_remapping = flag("interrupt_remapping", default.interrupt_remapping);
    let caching_mode = flag("caching_mode", default.caching_mode);
    let device_iotlb = flag("device_iotlb", default.device_iotlb);
    let address_bits =
        section
            .number("address_bits", 39..=48)
            .map_or(default.address_bits, |bits| {
                if bits.value != 39 && bits.value != 48 {
                    section.findings().add(
                        Rule::BadOption,
                        bits.span,
                        "the emulated IOMMU has 39 or 48 address bits",
                    );
                }
                bits.value as u8
            });
    section.finish();
    Iommu {
        present,
        interrupt_remapping,
        address_bits,
        caching_mode,
        device_iotlb,
    }
}

/// What `content` says.
#[derive(Clone, Copy)]
enum ContentKind {
    Random,
    Zero,
    File,
}

fn read_disk(mut section: Section<'_, '_>) -> (Option<Placed<String>>, Option<Content>) {
    let id = section.parsed("id", values::name);
    if id.is_none() {
        section.missing_unless_wrong("id");
    }
    let size = section.size("size", 512, 512..=4 << 30);
    let seed = section.number("seed", 0..=u64::MAX);
    let file = section.text("file");
    let kind = section.choice(
        "content",
        &[
            ("random", ContentKind::Random),
            ("zero", ContentKind::Zero),
            ("file", ContentKind::File),
        ],
    );
    let content = content(&mut section, kind, size, seed, file);
    section.finish();
    (id.map(|id| id.map(str::to_owned)), content)
}

fn content(
    section: &mut Section<'_, '_>,
    kind: Option<Placed<ContentKind>>,
    size: Option<Placed<u64>>,
    seed: Option<Placed<u64>>,
    file: Option<Placed<&str>>,
) -> Option<Content> {
    let Some(kind) = kind else {
        section.missing_unless_wrong("content");
        return None;
    };
    if let ContentKind::File = kind.value {
        if let Some(at) = size.as_ref().or(seed.as_ref()) {
            section.findings().add(
                Rule::BadContent,
                at.span.clone(),
                "a disk from a file has the file's size and bytes",
            );
        }
        let Some(file) = file else {
            section.findings().add(
                Rule::BadContent,
                kind.span,
                "a disk with content \"file\" needs `file`, the file's path",
            );
            return None;
        };
        return Some(Content::File(PathBuf::from(file.value)));
    }
    if let Some(file) = file {
        section.findings().add(
            Rule::BadContent,
            file.span,
            "`file` goes with content = \"file\"",
        );
    }
    let Some(size) = size else {
        section.missing_unless_wrong("size");
        return None;
    };
    match kind.value {
        ContentKind::Random => Some(Content::Random {
            size: size.value,
            seed: seed.map_or(0, |seed| seed.value),
        }),
        _ => {
            if let Some(seed) = seed {
                section
                    .findings()
                    .add(Rule::BadContent, seed.span, "zeros need no `seed`");
            }
            Some(Content::Zero { size: size.value })
        }
    }
}

/// The texts of a list that `parse` takes.
fn notation<'t, T>(
    section: &mut Section<'t, '_>,
    key: &'static str,
    parse: impl Fn(&'t str) -> Result<T, String>,
) -> Vec<Placed<String>> {
    let mut items = Vec::new();
    for text in section.texts(key) {
        match parse(text.value) {
            Ok(_) => items.push(text.map(str::to_owned)),
            Err(message) => section
                .findings()
                .add(Rule::BadQemuDevice, text.span, message),
        }
    }
    items
}

fn parse_global(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((property, _)) if property.contains('.') => Ok(()),
        _ => Err(format!("`{text}` is not of the form driver.property=value")),
    }
}

/// `driver,key=value,...`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuItem<'a> {
    /// The driver's or object's name.
    pub driver: &'a str,
    /// Its properties.
    pub properties: Vec<(&'a str, &'a str)>,
}

impl<'a> QemuItem<'a> {
    /// Takes a device or object in QEMU's notation apart.
    ///
    /// # Errors
    /// A sentence, when it has another form.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let driver = parts.next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if driver.is_empty() || !driver.chars().all(plain) {
            return Err(format!("`{text}` does not begin with the name of a driver"));
        }
        let properties = parts
            .map(|part| {
                part.split_once('=')
                    .filter(|(key, _)| !key.is_empty())
                    .ok_or_else(|| format!("`{part}` is not of the form key=value"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { driver, properties })
    }

    /// The value of a property.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.properties
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    /// Device and function number that `addr=` says: hexadecimal, as QEMU reads `03.0` and `3`.
    #[must_use]
    pub fn slot(&self) -> Option<(u8, u8)> {
        let text = self.get("addr")?;
        let (device, function) = text.split_once('.').unwrap_or((text, "0"));
        let device = u8::from_str_radix(device.trim_start_matches("0x"), 16).ok()?;
        let function = u8::from_str_radix(function, 16).ok()?;
        (device < 32 && function < 8).then_some((device, function))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_notation_is_taken_apart() {
        let item = QemuItem::parse("virtio-blk-pci,drive=disk,addr=1f.7").unwrap();
        assert_eq!(item.driver, "virtio-blk-pci");
        assert_eq!(item.get("drive"), Some("disk"));
        assert_eq!(item.slot(), Some((0x1f, 7)));
        assert_eq!(
            QemuItem::parse("edu,addr=0x3").unwrap().slot(),
            Some((3, 0))
        );
        assert_eq!(QemuItem::parse("edu,addr=20").unwrap().slot(), None);
        for text in ["", "edu,", "edu,addr", "edu,=3", "a b"] {
            assert!(QemuItem::parse(text).is_err(), "{text}");
        }
    }
}
