//! ACPI tables built byte by byte, from the specifications and not from
//! `hw::acpi`'s structures, for the tests of ACPI and for `fuzz`. Of AMD's: `amd`.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its own part"
)]

mod amd;
mod proximity;

pub use amd::*;
pub use proximity::*;

/// Makes the bytes add up to zero by changing byte `at`.
pub fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[at] = sum.wrapping_neg();
}

/// A table: header of 36 bytes, then `body`.
pub fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    bytes.extend([1, 0]);
    bytes.extend(b"OEMID OEMTABLE");
    bytes.extend([0; 12]);
    bytes.extend(body);
    seal(&mut bytes, 9);
    bytes
}

pub fn mcfg(allocations: &[(u64, u16, u8, u8)]) -> Vec<u8> {
    let mut body = vec![0; 8];
    for (base, segment, first, last) in allocations {
        body.extend(base.to_le_bytes());
        body.extend(segment.to_le_bytes());
        body.extend([*first, *last, 0, 0, 0, 0]);
    }
    table(b"MCFG", &body)
}

/// A device scope: kind, enumeration id, bus, path.
pub fn scope(kind: u8, id: u8, bus: u8, path: &[(u8, u8)]) -> Vec<u8> {
    let mut bytes = vec![kind, 6 + 2 * path.len() as u8, 0, 0, id, bus];
    bytes.extend(
        path.iter()
            .flat_map(|(device, function)| [*device, *function]),
    );
    bytes
}

/// A remapping structure: type, length, then `rest`.
pub fn remapping(kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((4 + rest.len() as u16).to_le_bytes());
    bytes.extend(rest);
    bytes
}

pub fn drhd(flags: u8, size: u8, segment: u16, base: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let mut rest = vec![flags, size];
    rest.extend(segment.to_le_bytes());
    rest.extend(base.to_le_bytes());
    rest.extend(scopes.concat());
    remapping(0, &rest)
}

pub fn rmrr(base: u64, limit: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let mut rest = vec![0, 0, 0, 0];
    rest.extend(base.to_le_bytes());
    rest.extend(limit.to_le_bytes());
    rest.extend(scopes.concat());
    remapping(1, &rest)
}

pub fn dmar(flags: u8, structures: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![38, flags];
    body.extend([0; 10]);
    body.extend(structures.concat());
    table(b"DMAR", &body)
}

/// A structure with a flag byte, a segment and scopes: ATSR, SATC, SIDP.
pub fn listing(kind: u16, flags: u8, segment: u16, scopes: &[Vec<u8>]) -> Vec<u8> {
    let mut rest = vec![flags, 0];
    rest.extend(segment.to_le_bytes());
    rest.extend(scopes.concat());
    remapping(kind, &rest)
}

/// A DMAR with one of everything.
pub fn full_dmar() -> Vec<u8> {
    let mut rhsa = vec![0; 4];
    rhsa.extend(0xfed9_1000u64.to_le_bytes());
    rhsa.extend(3u32.to_le_bytes());
    dmar(
        0b011,
        &[
            drhd(0, 0, 0, 0xfed9_0000, &[scope(1, 0, 0, &[(2, 0)])]),
            drhd(
                1,
                1,
                0,
                0xfed9_1000,
                &[
                    scope(3, 2, 0xf0, &[(0x1f, 0)]),
                    scope(4, 0, 0, &[(0x1f, 7)]),
                    scope(5, 1, 0, &[(0x15, 0)]),
                ],
            ),
            rmrr(0x7a00_0000, 0x7a0f_ffff, &[scope(1, 0, 0, &[(0x14, 0)])]),
            listing(2, 0, 0, &[scope(2, 0, 0, &[(0x1c, 0)])]),
            remapping(3, &rhsa),
            remapping(4, b"\0\0\0\x01\\_SB.X\0"),
            listing(5, 1, 0, &[scope(1, 0, 0, &[(2, 0)])]),
            listing(6, 0, 0, &[scope(1, 0, 0, &[(2, 0)])]),
            remapping(9, &[1, 2, 3, 4]),
        ],
    )
}

pub fn madt(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = 0xfee0_0000u32.to_le_bytes().to_vec();
    body.extend(1u32.to_le_bytes());
    body.extend(entries.concat());
    table(b"APIC", &body)
}

pub fn local_apic(uid: u8, id: u8, flags: u8) -> Vec<u8> {
    vec![0, 8, uid, id, flags, 0, 0, 0]
}

pub fn x2apic(id: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![9, 16, 0, 0];
    bytes.extend(id.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(7u32.to_le_bytes());
    bytes
}

pub fn full_madt() -> Vec<u8> {
    madt(&[
        local_apic(0, 0, 1),
        local_apic(1, 2, 0),
        local_apic(2, 4, 2),
        x2apic(0, 1),
        x2apic(0x101, 1),
        vec![1, 12, 8, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        vec![2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        vec![2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
        vec![4, 6, 0xff, 0, 0, 1],
        vec![5, 12, 0, 0, 0, 0, 0xe0, 0xfe, 1, 0, 0, 0],
    ])
}

pub fn hpet(space: u8, address: u64) -> Vec<u8> {
    let mut body = 0x8086_a201u32.to_le_bytes().to_vec();
    body.extend([space, 64, 0, 0]);
    body.extend(address.to_le_bytes());
    body.extend([0, 0x80, 0x00, 0]);
    table(b"HPET", &body)
}

pub fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0OEMID ".to_vec();
    bytes.push(revision);
    bytes.extend(rsdt.to_le_bytes());
    seal(&mut bytes, 8);
    if revision >= 2 {
        bytes.extend(36u32.to_le_bytes());
        bytes.extend(xsdt.to_le_bytes());
        bytes.extend([0; 4]);
        seal(&mut bytes, 32);
    }
    bytes
}
