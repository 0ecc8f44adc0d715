//! Object types and sizes on x86-64, as the kernels' headers define them.
//!
//! The types are enumerations in `api/objecttype.h`, `sel4_arch/objecttype.h`
//! and `arch/objecttype.h`, the sizes are macros in `sel4_arch/constants.h`
//! (5.0.0 to 16.0.0 agree but for what the configuration switches).

use crate::{Abi, Config, Entry};

/// Type names in the kernel's order, with the flag that each depends on.
const TYPES: [(&str, Option<&str>); 20] = [
    ("UNTYPED", None),
    ("TCB", None),
    ("ENDPOINT", None),
    ("NOTIFICATION", None),
    ("CNODE", None),
    ("SCHED_CONTEXT", Some("KERNEL_MCS")),
    ("REPLY", Some("KERNEL_MCS")),
    ("PDPT", None),
    ("PML4", None),
    ("HUGE_PAGE", Some("HUGE_PAGE")),
    ("PAGE_4K", None),
    ("LARGE_PAGE", None),
    ("PAGE_TABLE", None),
    ("PAGE_DIRECTORY", None),
    ("IO_PAGE_TABLE", Some("IOMMU")),
    ("VCPU", Some("VTX")),
    ("EPT_PML4", Some("VTX")),
    ("EPT_PDPT", Some("VTX")),
    ("EPT_PD", Some("VTX")),
    ("EPT_PT", Some("VTX")),
];

/// The object types of one configuration, for `Untyped_Retype`.
#[must_use]
pub fn object_types(config: &Config) -> Vec<Entry<u64>> {
    let mut next = 0..;
    TYPES
        .iter()
        .map(|(name, flag)| Entry {
            id: (*name).to_owned(),
            number: match flag {
                Some(flag) if !config.is_defined(flag) => None,
                _ => next.next(),
            },
            conditional: flag.is_some(),
        })
        .collect()
}

/// log2 of the size in bytes of a capability slot, of each object type of fixed
/// size, and of the smallest and largest untyped memory.
#[must_use]
pub fn object_bits(abi: Abi, config: &Config) -> Vec<(&'static str, u64)> {
    let mcs = config.is_defined("KERNEL_MCS");
    // A large FPU save area makes the TCB of later kernels larger.
    let xsave = config.number("XSAVE_SIZE").unwrap_or(0);
    let tcb = match abi {
        Abi::Modern if xsave >= 832 => 12,
        _ => 11,
    };
    let mut bits = vec![
        ("SLOT", 5),
        ("TCB", tcb),
        ("ENDPOINT", 4),
        ("NOTIFICATION", if mcs { 6 } else { 5 }),
        ("PDPT", 12),
        ("PML4", 12),
        ("PAGE_4K", 12),
        ("LARGE_PAGE", 21),
        ("HUGE_PAGE", 30),
        ("PAGE_TABLE", 12),
        ("PAGE_DIRECTORY", 12),
        ("IO_PAGE_TABLE", 12),
        ("ASID_POOL", 12),
        ("MIN_UNTYPED", 4),
        ("MAX_UNTYPED", 47),
    ];
    if mcs {
        bits.push(("REPLY", 5));
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(flags: &[&str]) -> Vec<(String, u64)> {
        let mut config = Config::default();
        for flag in flags {
            config.set(flag, true);
        }
        object_types(&config)
            .into_iter()
            .filter_map(|entry| entry.number.map(|number| (entry.id, number)))
            .collect()
    }

    #[test]
    fn types_follow_the_configuration() {
        let default = types(&["HUGE_PAGE", "IOMMU"]);
        assert_eq!(default.len(), 13);
        assert!(default.contains(&("PDPT".into(), 5)));
        assert!(default.contains(&("PAGE_4K".into(), 8)));
        assert!(default.contains(&("IO_PAGE_TABLE".into(), 12)));
        let mcs = types(&["KERNEL_MCS", "HUGE_PAGE", "IOMMU"]);
        assert!(mcs.contains(&("REPLY".into(), 6)));
        assert!(mcs.contains(&("PAGE_4K".into(), 10)));
        let verified = types(&[]);
        assert!(verified.contains(&("PAGE_4K".into(), 7)));
        assert_eq!(verified.len(), 11);
    }
}
