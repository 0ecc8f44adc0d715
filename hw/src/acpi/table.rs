//! What all tables have in common: the header, length and checksum ([`Table`]),
//! records within a table, and errors (ACPI 6.5, 5.2.6).

use core::fmt;
use core::iter::FusedIterator;
use core::marker::PhantomData;

use thiserror::Error;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The four letters that say what a table is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 4]);

impl Signature {
    /// Memory mapped configuration space.
    pub const MCFG: Self = Self(*b"MCFG");
    /// DMA remapping.
    pub const DMAR: Self = Self(*b"DMAR");
    /// Interrupt controllers (the MADT).
    pub const APIC: Self = Self(*b"APIC");
    /// High precision event timer.
    pub const HPET: Self = Self(*b"HPET");
    /// DMA remapping units of AMD.
    pub const IVRS: Self = Self(*b"IVRS");
    /// Which processor, memory or device is near which.
    pub const SRAT: Self = Self(*b"SRAT");
    /// Distances between what is near each other.
    pub const SLIT: Self = Self(*b"SLIT");
    /// List of tables, 32-bit addresses.
    pub const RSDT: Self = Self(*b"RSDT");
    /// List of tables, 64-bit addresses.
    pub const XSDT: Self = Self(*b"XSDT");
    /// First half of the root pointer's signature `RSD PTR `; names it in errors.
    pub const RSDP: Self = Self(*b"RSD ");
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            let shown = if byte.is_ascii_graphic() {
                char::from(byte)
            } else {
                '.'
            };
            write!(f, "{shown}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A rule that a table breaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Rule {
    /// Fewer bytes are there than the structure has.
    #[error("needs {needed} bytes, {available} are there")]
    Truncated {
        /// Bytes that it takes.
        needed: u32,
        /// Bytes that are there.
        available: u32,
    },
    /// The table is another one.
    #[error("the signature is {found}")]
    WrongSignature {
        /// What it is.
        found: Signature,
    },
    /// The bytes do not add up to zero.
    #[error("the checksum is off by {sum:#04x}")]
    Checksum {
        /// Sum of all bytes, modulo 256.
        sum: u8,
    },
    /// A record is shorter than its kind is.
    #[error("record of {length} bytes, its kind has {minimum}")]
    RecordTooShort {
        /// Its length, as it says.
        length: u32,
        /// What its kind needs.
        minimum: u32,
    },
    /// A record passes the end of what holds it.
    #[error("record of {length} bytes, {available} are left")]
    RecordBeyondEnd {
        /// Its length, as it says.
        length: u32,
        /// Bytes left.
        available: u32,
    },
    /// A field has a value that makes no sense.
    #[error("{field} is {value:#x}")]
    BadValue {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// More records than are kept.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are kept.
        limit: u32,
    },
    /// The memory that should hold the table cannot be read.
    #[error("no memory at {address:#x}")]
    Unreadable {
        /// Physical address.
        address: u64,
    },
}

/// Which rule a table breaks, and where.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
#[error("ACPI {table} at byte {offset:#x}: {rule}")]
pub struct TableError {
    /// The table.
    pub table: Signature,
    /// Bytes from the table's start to the structure that breaks the rule.
    pub offset: u32,
    /// The rule.
    pub rule: Rule,
}

/// The header that all tables but the RSDP begin with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TableHeader {
    /// What the table is.
    pub signature: Signature,
    /// Bytes of the whole table, header included; at least 36.
    pub length: u32,
    /// Revision of the table's layout.
    pub revision: u8,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: U32,
    creator_id: U32,
    creator_revision: U32,
}

impl TableHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 36;

    /// Reads the header at the start of `bytes`, which may hold less than the whole table: so
    /// that one knows how much to map.
    ///
    /// # Errors
    /// Fewer than 36 bytes, or a length below that. The error names `expected`, since the
    /// signature may be unreadable.
    pub fn parse(bytes: &[u8], expected: Signature) -> Result<Self, TableError> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes)
            .map_err(|_| truncated(expected, 0, Self::BYTES, bytes.len()))?;
        let length = raw.length.get();
        if (length as usize) < Self::BYTES {
            return Err(TableError {
                table: Signature(raw.signature),
                offset: 4,
                rule: Rule::BadValue {
                    field: "table length",
                    value: u64::from(length),
                },
            });
        }
        Ok(Self {
            signature: Signature(raw.signature),
            length,
            revision: raw.revision,
        })
    }
}

/// A table whose length, signature and checksum are right.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Its header.
    pub header: TableHeader,
    /// All its bytes, header included.
    bytes: &'a [u8],
}

impl<'a> Table<'a> {
    /// Checks the table at the start of `bytes`; what follows it is ignored.
    ///
    /// # Errors
    /// It is another table, is not whole, or its bytes do not add up to zero.
    pub fn parse(bytes: &'a [u8], expected: Signature) -> Result<Self, TableError> {
        let header = TableHeader::parse(bytes, expected)?;
        let error = |rule| TableError {
            table: expected,
            offset: 0,
            rule,
        };
        if header.signature != expected {
            return Err(error(Rule::WrongSignature {
                found: header.signature,
            }));
        }
        let length = header.length as usize;
        let bytes = bytes
            .get(..length)
            .ok_or(truncated(expected, 0, length, bytes.len()))?;
        match sum(bytes) {
            0 => Ok(Self { header, bytes }),
            sum => Err(error(Rule::Checksum { sum })),
        }
    }

    /// Reads a fixed structure of the table.
    pub(super) fn structure<T>(&self, offset: usize) -> Result<&'a T, TableError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let rest = self.bytes.get(offset..).unwrap_or(&[]);
        let (value, _) = T::ref_from_prefix(rest)
            .map_err(|_| truncated(self.header.signature, offset, size_of::<T>(), rest.len()))?;
        Ok(value)
    }

    /// The bytes from `offset` to the end; empty beyond it.
    pub(super) fn from(&self, offset: usize) -> Span<'a> {
        Span {
            table: self.header.signature,
            offset: offset.min(self.bytes.len()),
            bytes: self.bytes.get(offset..).unwrap_or(&[]),
        }
    }
}

/// A part of a table that knows where it is, for errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span<'a> {
    pub table: Signature,
    /// Bytes from the table's start.
    pub offset: usize,
    pub bytes: &'a [u8],
}

impl<'a> Span<'a> {
    /// The error that a field of it has a value that makes no sense.
    pub fn bad(&self, field: &'static str, value: impl Into<u64>) -> TableError {
        let value = value.into();
        self.error(Rule::BadValue { field, value })
    }

    /// An error about this part.
    pub fn error(&self, rule: Rule) -> TableError {
        TableError {
            table: self.table,
            offset: as_u32(self.offset),
            rule,
        }
    }

    /// Reads the structure at the start, and what follows it.
    ///
    /// # Errors
    /// The part is a record of another kind's length.
    pub fn record<T>(self) -> Result<(&'a T, Span<'a>), TableError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let too_short = self.error(Rule::RecordTooShort {
            length: as_u32(self.bytes.len()),
            minimum: as_u32(size_of::<T>()),
        });
        let (value, bytes) = T::ref_from_prefix(self.bytes).map_err(|_| too_short)?;
        let rest = Span {
            offset: self.offset.saturating_add(size_of::<T>()),
            bytes,
            ..self
        };
        Ok((value, rest))
    }
}

/// A record of a table: where it is, and what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<T> {
    /// Bytes from the table's start.
    pub offset: u32,
    /// Bytes that it takes, as it says.
    pub length: u32,
    /// Its type, as it says.
    pub kind: u16,
    /// What it says.
    pub body: T,
}

/// What heads each record of a list: it says which kind the record is of, and how long it is.
pub(super) trait RecordHead: FromBytes + KnownLayout + Immutable + Unaligned {
    /// The type, as the record says.
    fn kind(&self) -> u16;
    /// Bytes of the record, head included, as it says. `whole` begins with the record and goes
    /// on to the end of the list.
    fn length(&self, whole: &[u8]) -> Result<usize, Rule>;
}

/// Cuts a part of a table into records; ends after the first that cannot be cut.
#[derive(Clone, Debug)]
struct Cutter<'a, H> {
    rest: Span<'a>,
    head: PhantomData<H>,
}

impl<'a, H: RecordHead> Cutter<'a, H> {
    fn cut(&mut self) -> Result<(&'a H, Span<'a>), TableError> {
        // Whatever happens, the next call must see fewer bytes.
        let whole = Span {
            bytes: core::mem::take(&mut self.rest.bytes),
            ..self.rest
        };
        let beyond = |length| {
            whole.error(Rule::RecordBeyondEnd {
                length: as_u32(length),
                available: as_u32(whole.bytes.len()),
            })
        };
        let (head, _) = H::ref_from_prefix(whole.bytes).map_err(|_| beyond(size_of::<H>()))?;
        let length = head.length(whole.bytes).map_err(|rule| whole.error(rule))?;
        if length < size_of::<H>() {
            return Err(whole.error(Rule::RecordTooShort {
                length: as_u32(length),
                minimum: as_u32(size_of::<H>()),
            }));
        }
        let (bytes, rest) = whole
            .bytes
            .split_at_checked(length)
            .ok_or_else(|| beyond(length))?;
        self.rest = Span {
            offset: whole.offset.saturating_add(length),
            bytes: rest,
            ..whole
        };
        Ok((head, Span { bytes, ..whole }))
    }
}

impl<'a, H: RecordHead + 'a> Iterator for Cutter<'a, H> {
    type Item = Result<(&'a H, Span<'a>), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.bytes.is_empty() {
            return None;
        }
        Some(self.cut())
    }
}

/// The records of a list, each read by `read`. A record that `read` refuses is an error and passed
/// over; one that cannot be cut is the last.
pub(super) fn records<'a, H: RecordHead + 'a, T>(
    list: Span<'a>,
    read: impl Fn(&'a H, Span<'a>) -> Result<T, TableError> + 'a,
) -> impl FusedIterator<Item = Result<Record<T>, TableError>> + 'a {
    let cutter = Cutter::<H> {
        rest: list,
        head: PhantomData,
    };
    cutter
        .map(move |cut| {
            let (head, span) = cut?;
            Ok(Record {
                offset: as_u32(span.offset),
                length: as_u32(span.bytes.len()),
                kind: head.kind(),
                body: read(head, span)?,
            })
        })
        .fuse()
}

/// What a record says, without where it is.
pub(super) fn body<T>(record: Result<Record<T>, TableError>) -> Result<T, TableError> {
    record.map(|record| record.body)
}

/// Implements [`RecordHead`] for a structure with the fields `kind` and `length`.
macro_rules! record_head {
    ($name:ident) => {
        impl RecordHead for $name {
            fn kind(&self) -> u16 {
                self.kind.into()
            }
            fn length(&self, _: &[u8]) -> Result<usize, Rule> {
                Ok(usize::from(u16::from(self.length)))
            }
        }
    };
}
pub(super) use record_head;

/// Sum of all bytes modulo 256: zero if a checksum among them is right.
pub(super) fn sum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// The text that `bytes` are, or the first of them that is no visible ASCII character.
pub(super) fn ascii(bytes: &[u8]) -> Result<&str, u8> {
    match bytes.iter().find(|byte| !byte.is_ascii_graphic()) {
        Some(odd) => Err(*odd),
        // What is all ASCII is valid UTF-8.
        None => Ok(core::str::from_utf8(bytes).unwrap_or_default()),
    }
}

pub(super) fn truncated(
    table: Signature,
    offset: usize,
    needed: usize,
    available: usize,
) -> TableError {
    TableError {
        table,
        offset: as_u32(offset),
        rule: Rule::Truncated {
            needed: as_u32(needed),
            available: as_u32(available),
        },
    }
}

/// A size for an error message; what does not fit is shown as the largest.
pub(super) fn as_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
