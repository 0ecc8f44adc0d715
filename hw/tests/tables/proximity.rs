//! SRAT and SLIT, built byte by byte (ACPI 6.5, 5.2.16 and 5.2.17).

use super::{seal, table};

pub fn srat(revision: u8, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0];
    body.extend([0; 8]);
    body.extend(entries.concat());
    let mut bytes = table(b"SRAT", &body);
    bytes[8] = revision;
    seal(&mut bytes, 9);
    bytes
}

/// A processor by its APIC id of 8 bits.
pub fn apic_affinity(domain: u32, id: u8, flags: u32) -> Vec<u8> {
    let [low, high @ ..] = domain.to_le_bytes();
    let mut bytes = vec![0, 16, low, id];
    bytes.extend(flags.to_le_bytes());
    bytes.push(0);
    bytes.extend(high);
    bytes.extend(7u32.to_le_bytes());
    bytes
}

/// A processor by its APIC id of 32 bits.
pub fn x2apic_affinity(domain: u32, id: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![2, 24, 0, 0];
    for word in [domain, id, flags, 9, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

pub fn memory_affinity(domain: u32, base: u64, length: u64, flags: u32) -> Vec<u8> {
    let mut bytes = vec![1, 40];
    bytes.extend(domain.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(base.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(flags.to_le_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// A generic initiator (type 5) or port (type 6).
pub fn device_affinity(kind: u8, handle_kind: u8, domain: u32, handle: [u8; 16]) -> Vec<u8> {
    let mut bytes = vec![kind, 32, 0, handle_kind];
    bytes.extend(domain.to_le_bytes());
    bytes.extend(handle);
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// Handle of a PCI function: segment, bus, device and function.
pub fn pci_handle(segment: u16, bus: u8, device: u8, function: u8) -> [u8; 16] {
    let mut handle = [0; 16];
    handle[..2].copy_from_slice(&segment.to_le_bytes());
    handle[2] = bus;
    handle[3] = device << 3 | function;
    handle
}

/// A SRAT with one of everything.
pub fn full_srat() -> Vec<u8> {
    srat(
        3,
        &[
            apic_affinity(0x0102_0304, 2, 1),
            apic_affinity(0, 3, 0),
            x2apic_affinity(1, 0x101, 1),
            memory_affinity(0, 0, 0x8000_0000, 1),
            memory_affinity(1, 0x1_0000_0000, 0x4000_0000, 3),
            memory_affinity(1, 0, 0, 0),
            vec![3, 18, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            device_affinity(5, 1, 4, pci_handle(0, 0x17, 2, 1)),
            device_affinity(5, 0, 5, *b"ACPI0016\x01\0\0\0\0\0\0\0"),
            device_affinity(6, 0, 6, *b"ACPI0016\x02\0\0\0\0\0\0\0"),
            vec![99, 4, 0, 0],
        ],
    )
}

/// A SLIT of `count` domains, with bytes behind the matrix.
pub fn slit(count: u64, matrix: &[u8]) -> Vec<u8> {
    let mut body = count.to_le_bytes().to_vec();
    body.extend(matrix);
    table(b"SLIT", &body)
}
