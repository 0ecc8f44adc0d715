//! Where the tables are: the root pointer [`Rsdp`] and the list that it points
//! at, [`RootTable`] (ACPI 6.5, 5.2.5, 5.2.7 and 5.2.8).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{Rule, Signature, Table, TableError, TableHeader, sum, truncated};

/// In the BIOS area (E0000h to FFFFFh) the root pointer is at a multiple of this.
pub const RSDP_ALIGN: usize = 16;

const SIGNATURE: [u8; 8] = *b"RSD PTR ";

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRsdp {
    signature: [u8; 8],
    checksum: u8,
    oem_id: [u8; 6],
    revision: u8,
    rsdt: U32,
}

/// What follows from revision 2 on.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawExtension {
    length: U32,
    xsdt: U64,
    checksum: u8,
    reserved: [u8; 3],
}

/// The root system description pointer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rsdp {
    /// 0 for ACPI 1.0, otherwise at least 2.
    pub revision: u8,
    /// Physical address of the RSDT; 0 if there is none.
    pub rsdt: u32,
    /// Physical address of the XSDT, which comes first where there is one.
    pub xsdt: Option<u64>,
}

impl Rsdp {
    /// Reads the root pointer at the start of `bytes`.
    ///
    /// # Errors
    /// It is none, not whole, a checksum is wrong, or it points nowhere.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let table = Signature::RSDP;
        let error = |offset, rule| TableError {
            table,
            offset,
            rule,
        };
        let (raw, rest) = RawRsdp::ref_from_prefix(bytes)
            .map_err(|_| truncated(table, 0, size_of::<RawRsdp>(), bytes.len()))?;
        if raw.signature != SIGNATURE {
            let [a, b, c, d, ..] = raw.signature;
            let found = Signature([a, b, c, d]);
            return Err(error(0, Rule::WrongSignature { found }));
        }
        check(bytes, size_of::<RawRsdp>())?;
        let rsdt = raw.rsdt.get();
        let xsdt = if raw.revision >= 2 {
            let (extension, _) = RawExtension::ref_from_prefix(rest)
                .map_err(|_| truncated(table, size_of::<RawRsdp>(), 16, rest.len()))?;
            let length = extension.length.get() as usize;
            if length < size_of::<RawRsdp>() + size_of::<RawExtension>() {
                let value = length as u64;
                let field = "length";
                return Err(error(20, Rule::BadValue { field, value }));
            }
            check(bytes, length)?;
            Some(extension.xsdt.get()).filter(|address| *address != 0)
        } else {
            None
        };
        if rsdt == 0 && xsdt.is_none() {
            let field = "address of the RSDT";
            return Err(error(16, Rule::BadValue { field, value: 0 }));
        }
        Ok(Self {
            revision: raw.revision,
            rsdt,
            xsdt,
        })
    }

    /// The first valid root pointer in `area`, and its offset there. Candidates that are not
    /// valid are passed over: firmware leaves copies of the signature in its own code.
    #[must_use]
    pub fn find(area: &[u8]) -> Option<(usize, Self)> {
        (0..area.len()).step_by(RSDP_ALIGN).find_map(|offset| {
            let bytes = area.get(offset..)?;
            if !bytes.starts_with(&SIGNATURE) {
                return None;
            }
            Some((offset, Self::parse(bytes).ok()?))
        })
    }

    /// Physical address of the list of tables, and which kind of list it is.
    #[must_use]
    pub fn root_table(&self) -> (u64, Signature) {
        match self.xsdt {
            Some(address) => (address, Signature::XSDT),
            None => (u64::from(self.rsdt), Signature::RSDT),
        }
    }
}

fn check(bytes: &[u8], length: usize) -> Result<(), TableError> {
    let table = Signature::RSDP;
    let covered = bytes
        .get(..length)
        .ok_or(truncated(table, 0, length, bytes.len()))?;
    match sum(covered) {
        0 => Ok(()),
        sum => Err(TableError {
            table,
            offset: 0,
            rule: Rule::Checksum { sum },
        }),
    }
}

/// The list of all other tables: RSDT or XSDT.
#[derive(Clone, Copy, Debug)]
pub struct RootTable<'a> {
    table: Table<'a>,
    width: usize,
}

impl<'a> RootTable<'a> {
    /// Reads the list at the start of `bytes`; `kind` is [`Signature::XSDT`], or anything else for an RSDT.
    ///
    /// # Errors
    /// It is another table, not whole, or no list of addresses.
    pub fn parse(bytes: &'a [u8], kind: Signature) -> Result<Self, TableError> {
        let (kind, width) = if kind == Signature::XSDT {
            (Signature::XSDT, 8)
        } else {
            (Signature::RSDT, 4)
        };
        let table = Table::parse(bytes, kind)?;
        let list = table.from(TableHeader::BYTES);
        if list.bytes.len() % width != 0 {
            return Err(list.error(Rule::BadValue {
                field: "table length",
                value: u64::from(table.header.length),
            }));
        }
        Ok(Self { table, width })
    }

    /// Physical addresses of the tables, in the order of the list; entries of zero are left out.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + 'a {
        let list = self.table.from(TableHeader::BYTES).bytes;
        list.chunks_exact(self.width)
            .map(|bytes| {
                bytes
                    .iter()
                    .rev()
                    .fold(0u64, |value, byte| value << 8 | u64::from(*byte))
            })
            .filter(|address| *address != 0)
    }
}
