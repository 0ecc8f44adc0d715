//! SRAT and SLIT built byte by byte here, read by `hw::acpi`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod tables;

use hw::Sbdf;
use hw::acpi::{Affinity, DeviceHandle, ProximityPlan, Rule, Slit, Srat};
use portcullis_hw as hw;
use tables::{apic_affinity, device_affinity, full_srat, memory_affinity, pci_handle, slit, srat};

#[test]
fn affinities_are_read() {
    let bytes = full_srat();
    let all: Vec<_> = Srat::parse(&bytes)
        .unwrap()
        .entries()
        .map(Result::unwrap)
        .collect();
    let [
        Affinity::Processor(first),
        Affinity::Processor(off),
        Affinity::Processor(wide),
        Affinity::Memory(low),
        Affinity::Memory(high),
        Affinity::Memory(none),
        Affinity::Other { kind: 3, .. },
        Affinity::Initiator(pci),
        Affinity::Initiator(acpi),
        Affinity::Port(port),
        Affinity::Other {
            kind: 99,
            length: 4,
        },
    ] = all[..]
    else {
        unreachable!("{all:?}");
    };
    assert_eq!((first.apic_id, first.domain), (2, 0x0102_0304));
    assert_eq!((first.clock_domain, first.enabled), (7, true));
    assert!(!off.enabled);
    assert_eq!((wide.apic_id, wide.domain), (0x101, 1));
    assert_eq!((low.base, low.length, low.domain), (0, 0x8000_0000, 0));
    assert_eq!((high.base, high.flags.bits()), (0x1_0000_0000, 3));
    assert_eq!(none.length, 0);
    let at: Sbdf = "0000:17:02.1".parse().unwrap();
    assert_eq!((pci.device, pci.domain), (DeviceHandle::Pci(at), 4));
    let (hardware_id, unique_id) = (*b"ACPI0016", [1, 0, 0, 0]);
    let named = DeviceHandle::Acpi {
        hardware_id,
        unique_id,
    };
    assert_eq!((acpi.device, acpi.domain), (named, 5));
    assert_eq!(port.domain, 6);

    let srat = Srat::parse(&bytes).unwrap();
    assert_eq!(srat.domain_of(at), Some(4));
    assert_eq!(srat.domain_of(at.with_function(0)), None);

    let plan = ProximityPlan::from_bytes(&bytes).unwrap();
    assert_eq!(plan.processors, [(2, 0x0102_0304), (0x101, 1)]);
    assert_eq!(plan.memory.len(), 2);
    assert_eq!(plan.devices, [(at, 4)]);
    assert_eq!(
        (plan.domain_of(at), plan.domain_of(at.with_function(0))),
        (Some(4), None)
    );
}

#[test]
fn domains_of_old_tables_have_eight_bits() {
    let entries = [
        apic_affinity(0xffff_ff01, 2, 1),
        memory_affinity(0xffff_ff02, 0, 1, 1),
    ];
    let domains = |revision| {
        let plan = ProximityPlan::from_bytes(&srat(revision, &entries)).unwrap();
        (plan.processors[0].1, plan.memory[0].domain)
    };
    assert_eq!(domains(1), (1, 2));
    assert_eq!(domains(2), (0xffff_ff01, 0xffff_ff02));
}

#[test]
fn impossible_affinities_are_errors() {
    for (entry, field, value) in [
        (memory_affinity(0, u64::MAX, 2, 1), "length of memory", 2),
        (
            device_affinity(5, 2, 0, pci_handle(0, 0, 0, 0)),
            "type of a device handle",
            2,
        ),
    ] {
        let refused = ProximityPlan::from_bytes(&srat(3, &[entry])).unwrap_err();
        assert_eq!(refused.offset, 48);
        assert_eq!(refused.rule, Rule::BadValue { field, value });
    }
}

#[test]
fn distances_are_read() {
    let bytes = slit(2, &[10, 21, 255, 9]);
    let read = Slit::parse(&bytes).unwrap();
    assert_eq!(read.localities(), 2);
    assert_eq!(
        (read.distance(0, 0), read.distance(0, 1)),
        (Some(10), Some(21))
    );
    // No way, reserved, not in the matrix.
    assert_eq!((read.distance(1, 0), read.distance(1, 1)), (None, None));
    assert_eq!((read.distance(0, 2), read.distance(2, 0)), (None, None));
    // Bytes behind the matrix are left alone.
    assert_eq!(Slit::parse(&slit(1, &[10; 64])).unwrap().localities(), 1);
    assert_eq!(Slit::parse(&slit(0, &[])).unwrap().distance(0, 0), None);
}

#[test]
fn a_matrix_that_is_not_there_is_an_error() {
    for (count, bytes) in [(2, 3), (1025, 4096), (u64::MAX, 100)] {
        let refused = Slit::parse(&slit(count, &vec![10; bytes])).unwrap_err();
        let (field, value) = ("number of localities", count);
        assert_eq!(
            (refused.offset, refused.rule),
            (36, Rule::BadValue { field, value })
        );
    }
}
