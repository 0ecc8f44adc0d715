//! Reads `[kernel]` and `[system]`.

use super::client::{self, DeviceRule, Sharing};
use super::section::Section;
use crate::kernel::Build;
use std::ops::Range;
use system::layout::MAX_SHARDS;
use system::model::{
    ConfigAccess, DeviceMatch, End, IommuChoice, MAX_DEVICE_RULES, Quarantine, Shards,
    VirtualFunctions,
};

/// Device rules in compiled form.
type Matches = heapless::Vec<DeviceMatch, MAX_DEVICE_RULES>;

/// DMA pool when the description says nothing, in bytes.
const DEFAULT_DMA_POOL: u64 = 32 << 20;
/// Memory for IOMMU tables when the description says nothing, in bytes.
const DEFAULT_TABLES: u64 = 4 << 20;

/// Faults of a server that are put up with when the description says nothing.
const DEFAULT_RESTARTS: u8 = 8;

/// How the kernel is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What it checks and says.
    pub build: Build,
    /// Patches to leave out, to show what they are for.
    pub without_patches: Vec<String>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            build: Build::Release,
            without_patches: Vec::new(),
        }
    }
}

/// What `[system]` says.
pub struct SystemSection {
    /// Assign bus-mastering devices though nothing confines their DMA.
    pub unprotected: bool,
    /// Allow test operations.
    pub testing: bool,
    /// The IOMMU's driver.
    pub iommu: IommuChoice,
    /// Drive interrupt remapping.
    pub interrupt_remapping: bool,
    /// What a device that nobody holds any more reaches.
    pub quarantine: Quarantine,
    /// How configuration space is reached.
    pub config_access: ConfigAccess,
    /// Devices whose BARs are placed alone in large pages.
    pub large_bars: Matches,
    /// Devices that may have their reserved memory.
    pub reserved_regions: Matches,
    /// Devices that may cache translations.
    pub ats: Matches,
    /// Physical functions whose virtual functions are enabled at boot.
    pub virtual_functions: heapless::Vec<VirtualFunctions, MAX_DEVICE_RULES>,
    /// Faults of a server shard that are put up with.
    pub restarts: u8,
    /// Shards.
    pub shards: Shards,
    /// DMA pool, in bytes.
    pub dma_pool: u64,
    /// Where that is said.
    pub dma_pool_span: Option<Range<usize>>,
    /// Pages for IOMMU tables.
    pub table_pages: u32,
    /// When the system ends.
    pub end: End,
    /// Where that is said.
    pub end_span: Option<Range<usize>>,
    /// Devices that nobody gets.
    pub withheld: Vec<DeviceRule>,
    /// The same, compiled.
    pub withheld_compiled:
        heapless::Vec<system::model::DeviceMatch, { system::model::MAX_WITHHELD }>,
}

impl Default for SystemSection {
    fn default() -> Self {
        Self {
            unprotected: false,
            testing: false,
            iommu: IommuChoice::Auto,
            interrupt_remapping: true,
            quarantine: Quarantine::Blocking,
            config_access: ConfigAccess::Auto,
            large_bars: heapless::Vec::new(),
            reserved_regions: heapless::Vec::new(),
            ats: heapless::Vec::new(),
            virtual_functions: heapless::Vec::new(),
            restarts: DEFAULT_RESTARTS,
            shards: Shards { pci: 0, msi: 1 },
            dma_pool: DEFAULT_DMA_POOL,
            dma_pool_span: None,
            table_pages: (DEFAULT_TABLES / 4096) as u32,
            end: End::Never,
            end_span: None,
            withheld: Vec::new(),
            withheld_compiled: heapless::Vec::new(),
        }
    }
}

/// Reads `[kernel]`.
pub fn read_kernel(mut section: Section<'_, '_>) -> Kernel {
    let build = section.choice(
        "build",
        &[("release", Build::Release), ("debug", Build::Debug)],
    );
    let without = section.texts("without_patches");
    section.finish();
    Kernel {
        build: build.map_or(Build::Release, |build| build.value),
        without_patches: without
            .into_iter()
            .map(|name| name.value.to_owned())
            .collect(),
    }
}

/// Reads `[system]`.
pub fn read(mut section: Section<'_, '_>) -> SystemSection {
    let default = SystemSection::default();
    let dma_pool = section.size("dma_pool", 4096, 4096..=1 << 40);
    let end = section.choice("end", &[("never", End::Never), ("finished", End::Finished)]);
    let withheld: Vec<DeviceRule> = section
        .tables("withheld", "a device rule", |section| {
            client::read_device_rule(section, Sharing::Meaningless)
        })
        .into_iter()
        .flatten()
        .collect();
    let read = SystemSection {
        unprotected: section.flag("unprotected").is_some_and(|flag| flag.value),
        testing: section.flag("testing").is_some_and(|flag| flag.value),
        iommu: section
            .choice(
                "iommu",
                &[
                    ("auto", IommuChoice::Auto),
                    ("vtd", IommuChoice::Vtd),
                    ("amdvi", IommuChoice::AmdVi),
                    ("kernel", IommuChoice::Kernel),
                    ("none", IommuChoice::None),
                ],
            )
            .map_or(default.iommu, |choice| choice.value),
        interrupt_remapping: section
            .flag("interrupt_remapping")
            .is_none_or(|flag| flag.value),
        quarantine: section
            .choice(
                "quarantine",
                &[
                    ("blocking", Quarantine::Blocking),
                    ("scratch", Quarantine::Scratch),
                ],
            )
            .map_or(default.quarantine, |choice| choice.value),
        config_access: section
            .choice(
                "config_access",
                &[("auto", ConfigAccess::Auto), ("ports", ConfigAccess::Ports)],
            )
            .map_or(default.config_access, |choice| choice.value),
        large_bars: device_rules(&mut section, "large_bars"),
        reserved_regions: device_rules(&mut section, "reserved_regions"),
        ats: device_rules(&mut section, "ats"),
        virtual_functions: read_virtual_functions(&mut section),
        restarts: section
            .number("restarts", 0..=u64::from(u8::MAX))
            .map_or(default.restarts, |restarts| restarts.value as u8),
        shards: section
            .table("shards", "[system.shards]", read_shards)
            .unwrap_or(default.shards),
        dma_pool: dma_pool
            .as_ref()
            .map_or(default.dma_pool, |pool| pool.value),
        dma_pool_span: dma_pool.map(|pool| pool.span),
        table_pages: section
            .size("iommu_tables", 4096, 64 << 10..=1 << 30)
            .map_or(default.table_pages, |size| (size.value / 4096) as u32),
        end: end.as_ref().map_or(default.end, |end| end.value),
        end_span: end.map(|end| end.span),
        withheld_compiled: client::bounded(&mut section, "withheld", &withheld),
        withheld,
    };
    section.finish();
    read
}

/// A list of device rules.
fn device_rules(section: &mut Section<'_, '_>, key: &'static str) -> Matches {
    let rules: Vec<DeviceRule> = section
        .tables(key, "a device rule", |section| {
            client::read_device_rule(section, Sharing::Meaningless)
        })
        .into_iter()
        .flatten()
        .collect();
    client::bounded(section, key, &rules)
}

/// `virtual_functions`: device rules, each with a `count`.
fn read_virtual_functions(
    section: &mut Section<'_, '_>,
) -> heapless::Vec<VirtualFunctions, MAX_DEVICE_RULES> {
    let key = "virtual_functions";
    let read: Vec<(DeviceRule, u16)> = section
        .tables(key, "a device rule with a count", |mut section| {
            let count = section.number("count", 1..=256);
            if count.is_none() {
                section.missing_unless_wrong("count");
            }
            let rule = client::read_device_rule(section, Sharing::Meaningless)?;
            Some((rule, count?.value as u16))
        })
        .into_iter()
        .flatten()
        .collect();
    let (rules, counts): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    let compiled = client::bounded(section, key, &rules);
    compiled
        .into_iter()
        .filter_map(|device| {
            let at = rules.iter().position(|rule| rule.device == device)?;
            let count = counts.get(at).copied()?;
            Some(VirtualFunctions { device, count })
        })
        .collect()
}

fn read_shards(mut section: Section<'_, '_>) -> Shards {
    let most = MAX_SHARDS as u64;
    let pci = section.number("pci", 0..=most);
    let msi = section.number("msi", 1..=most);
    section.finish();
    Shards {
        pci: pci.map_or(0, |shards| shards.value as u8),
        msi: msi.map_or(1, |shards| shards.value as u8),
    }
}
