//! The kernel's configuration.
//!
//! Names and meanings are those of the kernel's `Kconfig` files; what is not
//! listed there is off. Values are the kernel's defaults unless said otherwise.

use sel4_gen::Config;

use super::{Build, KernelSpec};

/// The configuration of a variant.
pub fn config(spec: &KernelSpec) -> Config {
    let mut config = Config::default();
    for flag in FLAGS {
        config.set(flag, true);
    }
    for (name, number) in NUMBERS {
        config.set(name, *number);
    }
    config.set("MAX_NUM_NODES", u64::from(spec.cores));
    if spec.build == Build::Debug {
        for flag in ["DEBUG_BUILD", "PRINTING", "IRQ_REPORTING"] {
            config.set(flag, true);
        }
        config.set("USER_STACK_TRACE_LENGTH", 16);
    }
    config
}

const FLAGS: &[&str] = &[
    "ARCH_X86",
    "ARCH_X86_64",
    "PLAT_PC99",
    "KERNEL_MASTER",
    "HAVE_FPU",
    "IRQ_IOAPIC",
    "SYSCALL",
    "FASTPATH",
    "HUGE_PAGE",
    // VT-d by capabilities; the boot argument `disable_iommu` turns it off.
    "IOMMU",
    // Not X2APIC: QEMU's own processors have it only from version 9 on.
    "XAPIC",
    // The 512-byte area is enough, and each processor has the instruction.
    "FXSAVE",
    "FSGSBASE_INST",
    "MULTIBOOT_GRAPHICS_MODE_NONE",
    "OPTIMISATION_O2",
    // SUPPORT_PCID stays off: emulated processors lack it.
];

const NUMBERS: &[(&str, u64)] = &[
    ("WORD_SIZE", 64),
    // Room for the capabilities of a whole system: 65,536 slots.
    ("ROOT_CNODE_SIZE_BITS", 16),
    // The most that fits the boot information page; a PC has about 140.
    ("MAX_NUM_BOOTINFO_UNTYPED_CAPS", 230),
    ("NUM_DOMAINS", 1),
    ("NUM_PRIORITIES", 256),
    ("TIMER_TICK_MS", 2),
    ("TIME_SLICE", 5),
    ("RETYPE_FAN_OUT_LIMIT", 256),
    // Memory is cleared a page at a time: between two pages the kernel counts a unit of work, which with the default
    // of 256 bytes costs more than clearing them. It looks for interrupts after 25 units, not 100, so that they wait for
    // 100 KiB at most (docs/adr/0007-clearing-memory.md).
    ("RESET_CHUNK_BITS", 12),
    ("MAX_NUM_WORK_UNITS_PER_PREEMPTION", 25),
    ("MAX_NUM_IOAPIC", 1),
    ("MAX_RMRR_ENTRIES", 32),
    ("XSAVE_SIZE", 512),
    ("CACHE_LN_SZ", 64),
    ("KERNEL_STACK_BITS", 12),
    ("FPU_MAX_RESTORES_SINCE_SWITCH", 64),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_kernel_says_nothing() {
        let release = config(&KernelSpec::new(Build::Release, 4));
        assert!(!release.is_defined("PRINTING") && !release.is_defined("DEBUG_BUILD"));
        assert_eq!(release.number("MAX_NUM_NODES"), Ok(4));
        let debug = config(&KernelSpec::new(Build::Debug, 1));
        assert!(debug.is_defined("PRINTING") && debug.is_defined("DEBUG_BUILD"));
        assert_eq!(debug.number("MAX_NUM_NODES"), Ok(1));
    }
}
