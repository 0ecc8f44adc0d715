//! [`tables`]: where the tables with AML are. The root table lists the SSDTs; the DSDT is named by the FADT.

use alloc::vec::Vec;

use hw::acpi::{PhysicalMemory, RootTable, Rsdp, Signature, TableError, TableHeader};

/// Longest table that is read: firmware of servers has DSDTs of some hundred KiB.
const MOST_BYTES: u32 = 1 << 20;
/// Most tables that are read.
const MOST_TABLES: usize = 64;
/// Offsets in the FADT (ACPI 6.5, 5.2.9): the DSDT's address in four bytes, and in eight.
const DSDT: usize = 40;
const X_DSDT: usize = 140;

/// Address and length of each table with AML, the DSDT first. What cannot be read is left out.
///
/// # Errors
/// The root table cannot be read.
pub fn tables<M: PhysicalMemory>(
    memory: &mut M,
    rsdp: &Rsdp,
) -> Result<Vec<(u64, u32)>, TableError> {
    let (address, kind) = rsdp.root_table();
    let unreadable = TableError {
        table: kind,
        offset: 0,
        rule: hw::acpi::Rule::Unreadable { address },
    };
    let length = header(memory, address, kind).map_or(0, |header| header.length);
    let bytes = memory.bytes(address, length as usize).ok_or(unreadable)?;
    let listed: Vec<u64> = RootTable::parse(bytes, kind)?
        .addresses()
        .take(MOST_TABLES * 4)
        .collect();
    let mut found = Vec::new();
    for address in listed {
        // Of which kind it is, its own header says.
        let any = Signature(*b"????");
        let Some(table) = header(memory, address, any) else {
            continue;
        };
        if table.signature == Signature(*b"FACP") {
            let dsdt = memory.bytes(address, table.length as usize).and_then(dsdt);
            let known = dsdt.and_then(|at| Some((at, header(memory, at, Signature(*b"DSDT"))?)));
            if let Some((at, table)) = known {
                found.insert(0, (at, table.length));
            }
        } else if table.signature == Signature(*b"SSDT") {
            found.push((address, table.length));
        }
    }
    found.retain(|(_, length)| *length <= MOST_BYTES);
    found.truncate(MOST_TABLES);
    Ok(found)
}

fn header<M: PhysicalMemory>(
    memory: &mut M,
    address: u64,
    expected: Signature,
) -> Option<TableHeader> {
    TableHeader::parse(memory.bytes(address, TableHeader::BYTES)?, expected).ok()
}

/// The DSDT's address in a FADT.
fn dsdt(fadt: &[u8]) -> Option<u64> {
    let wide = fadt.get(X_DSDT..).and_then(|bytes| bytes.first_chunk());
    let wide = wide
        .map(|bytes| u64::from_le_bytes(*bytes))
        .filter(|at| *at != 0);
    let narrow = fadt.get(DSDT..).and_then(|bytes| bytes.first_chunk());
    let narrow = narrow
        .map(|bytes| u64::from(u32::from_le_bytes(*bytes)))
        .filter(|at| *at != 0);
    wide.or(narrow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Tables side by side from an address on.
    struct Memory(u64, Vec<u8>);

    impl PhysicalMemory for Memory {
        fn bytes(&mut self, address: u64, length: usize) -> Option<&[u8]> {
            let at = usize::try_from(address.checked_sub(self.0)?).ok()?;
            self.1.get(at..at.checked_add(length)?)
        }
    }

    fn table(signature: &[u8; 4], length: usize) -> Vec<u8> {
        let mut bytes = signature.to_vec();
        bytes.extend((length as u32).to_le_bytes());
        bytes.resize(length, 0);
        bytes
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[9] = 0;
        bytes[9] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        bytes
    }

    const BASE: u64 = 0x7ffe_0000;

    /// A root table, a FADT with the DSDT's address at `place`, an SSDT, a table of another kind, the DSDT.
    fn memory(place: usize, width: usize) -> (Memory, Rsdp) {
        let (fadt, ssdt, other, dsdt) = (BASE + 0x100, BASE + 0x300, BASE + 0x400, BASE + 0x500);
        let mut root = table(b"RSDT", 36 + 12);
        for (number, address) in [fadt, ssdt, other].into_iter().enumerate() {
            root[36 + number * 4..][..4].copy_from_slice(&(address as u32).to_le_bytes());
        }
        let mut facp = table(b"FACP", 244);
        facp[place..][..width].copy_from_slice(&dsdt.to_le_bytes()[..width]);
        let mut bytes = vec![0; 0x600];
        for (at, table) in [
            (BASE, sealed(root)),
            (fadt, sealed(facp)),
            (ssdt, table(b"SSDT", 40)),
            (other, table(b"WAET", 40)),
            (dsdt, table(b"DSDT", 60)),
        ] {
            let at = (at - BASE) as usize;
            bytes[at..][..table.len()].copy_from_slice(&table);
        }
        let rsdp = Rsdp {
            revision: 0,
            rsdt: BASE as u32,
            xsdt: None,
        };
        (Memory(BASE, bytes), rsdp)
    }

    #[test]
    fn the_dsdt_comes_first_and_other_tables_not_at_all() {
        for (place, width) in [(DSDT, 4), (X_DSDT, 8)] {
            let (mut memory, rsdp) = memory(place, width);
            let found = tables(&mut memory, &rsdp).unwrap();
            assert_eq!(found, [(BASE + 0x500, 60), (BASE + 0x300, 40)]);
        }
    }

    #[test]
    fn addresses_that_lead_nowhere_are_left_out() {
        let (mut memory, rsdp) = memory(DSDT, 4);
        memory.1.truncate(0x480);
        assert_eq!(tables(&mut memory, &rsdp).unwrap(), [(BASE + 0x300, 40)]);
        memory.1.truncate(40);
        assert!(tables(&mut memory, &rsdp).is_err());
    }
}
