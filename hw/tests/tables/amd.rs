//! An IVRS, built byte by byte (AMD I/O Virtualization Technology, 5.2).

use super::table;

/// A block of a unit: type 10h, 11h or 40h; the wider two have images of feature registers.
pub fn ivhd(kind: u8, id: u16, base: u64, segment: u16, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut rest = id.to_le_bytes().to_vec();
    rest.extend(0x40u16.to_le_bytes());
    rest.extend(base.to_le_bytes());
    rest.extend(segment.to_le_bytes());
    rest.extend(0x0103u16.to_le_bytes());
    rest.extend(0x0004_0200u32.to_le_bytes());
    if kind != 0x10 {
        rest.extend(0x2465_77ef_a225_4afau64.to_le_bytes());
        rest.extend(0x10u64.to_le_bytes());
    }
    rest.extend(entries.concat());
    ivrs_block(kind, 0xb0, &rest)
}

/// A block: type, flags, length, then `rest`.
pub fn ivrs_block(kind: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, flags];
    bytes.extend((4 + rest.len() as u16).to_le_bytes());
    bytes.extend(rest);
    bytes
}

/// An entry of four bytes.
pub fn entry(kind: u8, id: u16, settings: u8) -> Vec<u8> {
    let [low, high] = id.to_le_bytes();
    vec![kind, low, high, settings]
}

/// An entry of eight bytes.
pub fn long_entry(kind: u8, id: u16, settings: u8, rest: [u8; 4]) -> Vec<u8> {
    [entry(kind, id, settings), rest.to_vec()].concat()
}

/// An entry of the type F0h.
pub fn acpi_entry(id: u16, hardware_id: &[u8; 8], format: u8, uid: &[u8]) -> Vec<u8> {
    let mut bytes = entry(0xf0, id, 0x40);
    bytes.extend(hardware_id);
    bytes.extend([0; 8]);
    bytes.extend([format, uid.len() as u8]);
    bytes.extend(uid);
    bytes
}

/// A range of memory: type 20h, 21h or 22h.
pub fn ivmd(kind: u8, flags: u8, first: u16, last: u16, start: u64, length: u64) -> Vec<u8> {
    let mut rest = first.to_le_bytes().to_vec();
    rest.extend(last.to_le_bytes());
    rest.extend([0; 8]);
    rest.extend(start.to_le_bytes());
    rest.extend(length.to_le_bytes());
    ivrs_block(kind, flags, &rest)
}

pub fn ivrs(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut body = 0x0020_3043u32.to_le_bytes().to_vec();
    body.extend([0; 8]);
    body.extend(blocks.concat());
    table(b"IVRS", &body)
}

/// Entries of every kind that types 10h and 11h may have.
pub fn all_entries() -> Vec<Vec<u8>> {
    vec![
        entry(0, 0, 0),
        entry(1, 0, 0x80),
        entry(2, 0x0010, 0),
        entry(3, 0x0018, 0x01),
        entry(4, 0x00ff, 0),
        long_entry(0x40, 0, 0, [0; 4]),
        long_entry(0x42, 0x0200, 0, [0, 0xa4, 0, 0]),
        long_entry(0x43, 0x0300, 0, [0, 0xa5, 0, 0]),
        entry(4, 0x03ff, 0),
        long_entry(0x46, 0x0400, 0, [0, 0, 0, 0x80]),
        long_entry(0x47, 0x0408, 0, [0, 0, 0, 0x80]),
        entry(4, 0x040f, 0),
        long_entry(0x48, 0, 0xd7, [0x20, 0xa0, 0, 1]),
        long_entry(0x48, 0, 0, [0, 0xa0, 0, 2]),
    ]
}

/// An IVRS with one of everything.
pub fn full_ivrs() -> Vec<u8> {
    let mut mixed = all_entries();
    mixed.push(acpi_entry(0x00a5, b"AMDI0020", 2, b"\\_SB.FUR0"));
    mixed.push(acpi_entry(0x0060, b"MSFT0201", 1, &[1, 0]));
    mixed.push(acpi_entry(0x00a5, b"PNP0D40\0", 0, &[]));
    ivrs(&[
        ivhd(0x10, 2, 0xfd20_0000, 0, &all_entries()),
        ivhd(0x11, 2, 0xfd20_0000, 0, &all_entries()),
        ivmd(0x20, 7, 0, 0, 0x7d90_0000, 0x10_0000),
        ivmd(0x21, 8, 0xc407, 0, 0x75e0_0000, 0x2_0000),
        ivmd(0x22, 3, 0x0300, 0x03ff, 0x1_0000_0000, 0x1000),
        ivhd(0x40, 2, 0xfd20_0000, 0, &mixed),
        ivhd(
            0x10,
            2,
            0xfd28_0000,
            1,
            &[entry(3, 0, 0), entry(4, 0xffff, 0)],
        ),
        ivrs_block(0x51, 8, &[0; 28]),
    ])
}
