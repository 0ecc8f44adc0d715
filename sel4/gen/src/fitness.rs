//! Whether an installed kernel will do for a system in QEMU, before anything is built with it.
//!
//! [`unfit`] looks at a prefix and returns one [`Unfit`] for each thing that will not do; its text says what
//! to set instead, in the words of the kernel's own build. A kernel that was configured for features its
//! processor lacks stops without a word, so this is where the user learns of it.

use std::path::{Path, PathBuf};

use crate::interface::prefix_files;
use crate::{Config, Error, KernelInterface, Value};

/// What a system asks of its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Cores the system runs on.
    pub cores: u64,
    /// Who drives the IOMMU.
    pub iommu: IommuDriver,
    /// log2 of the slots in the initial CNode, at least.
    pub root_cnode_bits: u64,
    /// Untyped capabilities that the boot information has room for, at least: the kernel drops what exceeds it.
    pub untyped_caps: u64,
    /// Priorities, at least.
    pub priorities: u64,
}

/// Who drives the IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IommuDriver {
    /// A program; the kernel is booted with `disable_iommu`, or has no driver.
    User,
    /// The kernel.
    Kernel,
}

/// Why a kernel will not do. The text is one sentence, without a full stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Files are missing.
    #[error(
        "{} is no installed seL4 13 or later, for it lacks {}: set SEL4_PREFIX to the folder that the kernel's \
         `ninja install` filled (CMAKE_INSTALL_PREFIX)",
        prefix.display(), files.join(", ")
    )]
    NotInstalled {
        /// The folder that was looked at.
        prefix: PathBuf,
        /// What it lacks.
        files: Vec<&'static str>,
    },
    /// A file that is not what its name says.
    #[error("{0}")]
    Unreadable(Error),
    /// Another architecture.
    #[error("the kernel is for the architecture {0}: build it with KernelSel4Arch=x86_64")]
    Architecture(String),
    /// Another platform.
    #[error("the kernel is for the platform {0}: build it with KernelPlatform=pc99")]
    Platform(String),
    /// Mixed-criticality scheduling.
    #[error("the kernel has MCS scheduling, which is not supported: build it with KernelIsMCS=OFF")]
    Mcs,
    /// Fewer cores than the system has.
    #[error(
        "the kernel runs {has} of the system's {needs} cores: build it with KernelMaxNumNodes={needs} or more"
    )]
    Cores {
        /// What the kernel was built for.
        has: u64,
        /// What the system has.
        needs: u64,
    },
    /// No IOMMU driver although the system leaves the IOMMU to the kernel.
    #[error(
        "the kernel has no IOMMU driver, which the system's IOMMU back end `kernel` needs: build it with \
         {}KernelIOMMU=ON, or take another back end",
        if *verification { "KernelVerificationBuild=OFF and " } else { "" }
    )]
    NoIommuDriver {
        /// The kernel is a verification build, which never has one.
        verification: bool,
    },
    /// A number in the configuration is too small.
    #[error("the kernel's {option} is {has}: build it with {option}={needs} or more")]
    TooFew {
        /// The option, as the kernel's build calls it.
        option: &'static str,
        /// Its value.
        has: u64,
        /// The least that will do.
        needs: u64,
    },
    /// Interrupts through the old controller, which knows neither IOAPIC nor MSI.
    #[error(
        "the kernel takes interrupts from the PIC alone: build it with KernelIRQController=IOAPIC"
    )]
    Pic,
    /// A header that QEMU's loader does not know.
    #[error(
        "QEMU cannot load the kernel without a multiboot 1 header: build it with KernelMultiboot1Header=ON"
    )]
    Multiboot,
    /// The area for floating point registers does not hold them.
    #[error(
        "the kernel keeps {has} bytes for XSAVE, but its KernelXSaveFeatureSet={set} takes {needs}: build it \
         with KernelXSaveSize={needs}"
    )]
    XsaveSize {
        /// Bytes.
        has: u64,
        /// Components, a bit each.
        set: u64,
        /// Bytes the components take.
        needs: u64,
    },
    /// QEMU does not emulate something of the processor.
    #[error("QEMU does not emulate {feature}: build the kernel with {set}")]
    Processor {
        /// What the kernel uses.
        feature: &'static str,
        /// The option that makes it do without.
        set: &'static str,
    },
}

/// Looks at the kernel installed in `prefix`; empty if it will do.
#[must_use]
pub fn unfit(prefix: &Path, needs: &Needs) -> Vec<Unfit> {
    let files: Vec<_> = prefix_files()
        .filter(|file| !prefix.join(file).is_file())
        .collect();
    if !files.is_empty() {
        let prefix = prefix.to_owned();
        return vec![Unfit::NotInstalled { prefix, files }];
    }
    match KernelInterface::of_prefix(prefix, "") {
        Ok(interface) => unfit_configuration(&interface.config, needs),
        Err(error) => vec![Unfit::Unreadable(error)],
    }
}

/// Looks at a configuration; empty if it will do. What another architecture or platform means by its other
/// options is not looked at.
#[must_use]
pub fn unfit_configuration(config: &Config, needs: &Needs) -> Vec<Unfit> {
    let text = |name| match config.get(name) {
        Some(Value::Text(text)) => text.clone(),
        _ => "(not stated)".to_owned(),
    };
    let architecture = text("SEL4_ARCH");
    if architecture != "x86_64" {
        return vec![Unfit::Architecture(architecture)];
    }
    let platform = text("PLAT");
    if platform != "pc99" {
        return vec![Unfit::Platform(platform)];
    }

    let on = |name| config.is_defined(name);
    let number = |name| config.number(name).unwrap_or(0);
    let mut found = Vec::new();
    let mut unless = |fits: bool, unfit| {
        if !fits {
            found.push(unfit);
        }
    };
    unless(!on("KERNEL_MCS"), Unfit::Mcs);
    let has = number("MAX_NUM_NODES");
    let cores = needs.cores;
    unless(has >= cores, Unfit::Cores { has, needs: cores });
    unless(
        needs.iommu == IommuDriver::User || on("IOMMU"),
        Unfit::NoIommuDriver {
            verification: on("VERIFICATION_BUILD"),
        },
    );
    for (name, option, needs) in [
        (
            "ROOT_CNODE_SIZE_BITS",
            "KernelRootCNodeSizeBits",
            needs.root_cnode_bits,
        ),
        (
            "MAX_NUM_BOOTINFO_UNTYPED_CAPS",
            "KernelMaxNumBootinfoUntypedCaps",
            needs.untyped_caps,
        ),
        ("NUM_PRIORITIES", "KernelNumPriorities", needs.priorities),
    ] {
        let has = number(name);
        unless(has >= needs, Unfit::TooFew { option, has, needs });
    }
    unless(!on("IRQ_PIC"), Unfit::Pic);
    unless(
        on("MULTIBOOT1_HEADER") || config.get("MULTIBOOT1_HEADER").is_none(),
        Unfit::Multiboot,
    );
    if on("XSAVE") {
        let (has, set) = (number("XSAVE_SIZE"), number("XSAVE_FEATURE_SET"));
        // Up to AVX; more is refused below.
        let needs = if set & AVX == 0 { 576 } else { 832 };
        unless(has >= needs, Unfit::XsaveSize { has, set, needs });
    }
    for Feature { name, used, set } in NOT_EMULATED {
        unless(!used(config), Unfit::Processor { feature: name, set });
    }
    found
}

/// Components of the XSAVE area (Intel SDM volume 1, 13.1).
const X87_AND_SSE: u64 = 3;
/// As above.
const AVX: u64 = 1 << 2;

/// Something of the processor that a kernel may use and QEMU's emulation lacks.
struct Feature {
    name: &'static str,
    /// Whether the kernel uses it.
    used: fn(&Config) -> bool,
    /// The option that makes it do without.
    set: &'static str,
}

const fn feature(name: &'static str, used: fn(&Config) -> bool, set: &'static str) -> Feature {
    Feature { name, used, set }
}

/// What TCG lacks (`-cpu max`, version 7.2). Each of these stops a kernel while it starts.
const NOT_EMULATED: [Feature; 8] = [
    feature(
        "PCIDs",
        |config| config.is_defined("SUPPORT_PCID"),
        "KernelSupportPCID=OFF",
    ),
    feature(
        "the x2APIC",
        |config| config.is_defined("X2APIC"),
        "KernelLAPICMode=XAPIC",
    ),
    feature("VT-x", |config| config.is_defined("VTX"), "KernelVTX=OFF"),
    feature(
        "XSAVEC",
        |config| config.is_defined("XSAVE_XSAVEC"),
        "KernelXSave=XSAVE or KernelFPU=FXSAVE",
    ),
    feature(
        "XSAVES",
        |config| config.is_defined("XSAVE_XSAVES"),
        "KernelXSave=XSAVE or KernelFPU=FXSAVE",
    ),
    feature(
        "the registers beyond AVX that KernelXSaveFeatureSet names",
        |config| {
            let set = config.number("XSAVE_FEATURE_SET").unwrap_or(0);
            config.is_defined("XSAVE") && set & !(X87_AND_SSE | AVX) != 0
        },
        "KernelXSaveFeatureSet=3 or 7",
    ),
    feature(
        "IBRS",
        |config| {
            ["BASIC", "ALL", "STIBP"]
                .iter()
                .any(|mode| config.is_defined(&format!("KERNEL_X86_IBRS_{mode}")))
        },
        "KernelX86IBRSMode=ibrs_none",
    ),
    feature(
        "IBPB",
        |config| config.is_defined("KERNEL_X86_IBPB_ON_CONTEXT_SWITCH"),
        "KernelX86IBPBOnContextSwitch=OFF",
    ),
];

#[cfg(test)]
#[path = "fitness_tests.rs"]
mod tests;
