//! [`Capabilities`]: what a unit says it can do (VT-d 3.0, 10.4.2 and 10.4.3),
//! checked once, and [`Geometry`]: what all units of a shard have in common,
//! since one set of page tables serves them all.

use thiserror::Error;

use crate::paging::{Largest, Shape};

/// Why a unit cannot be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unusable {
    /// The version register reads zero or all ones: nothing answers there.
    #[error("nothing answers at its registers")]
    Absent,
    /// It has no queued invalidation.
    #[error("it has no queued invalidation")]
    NoQueue,
    /// It has neither 3-level nor 4-level page tables (its SAGAW field).
    #[error("it has neither 39-bit nor 48-bit addresses (SAGAW {0:#x})")]
    NoWidth(u8),
    /// Its fault records (offset in bytes) lie outside the mapped registers.
    #[error("its fault records at {0:#x} lie outside its mapped registers")]
    FaultRecordsOutside(u32),
}

/// Decoded capability registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Domain ids are 0..this.
    pub domains: u32,
    /// Writes to tables sit in a buffer of the chipset until it is flushed (RWBF).
    pub write_buffer: bool,
    /// Entries that are not present are cached too (CM).
    pub caching_mode: bool,
    /// 39-bit addresses, 3-level tables (SAGAW bit 1).
    pub three_levels: bool,
    /// 48-bit addresses, 4-level tables (SAGAW bit 2).
    pub four_levels: bool,
    /// Widest address the unit accepts, in bits (MGAW).
    pub address_bits: u8,
    /// 2 MiB leaves (SLLPS bit 0).
    pub large_pages: bool,
    /// 1 GiB leaves (SLLPS bit 1).
    pub huge_pages: bool,
    /// Largest address mask of a page-selective invalidation; `None` without them (PSI, MAMV).
    pub page_selective: Option<u8>,
    /// Writes in flight can be drained (DWD).
    pub drains_writes: bool,
    /// Reads in flight can be drained (DRD).
    pub drains_reads: bool,
    /// Offset of the first fault record, in bytes (FRO).
    pub fault_records_at: u32,
    /// Fault records, 1..=256 (NFR).
    pub fault_records: u16,
    /// The unit snoops caches when it reads tables (ECAP.C).
    pub coherent: bool,
    /// It can remap interrupts (ECAP.IR).
    pub interrupt_remapping: bool,
    /// Largest mask of an invalidation of interrupt entries (MHMV).
    pub interrupt_mask: u8,
    /// Devices may keep translations (ECAP.DT).
    pub device_tlb: bool,
    /// It throttles device-TLB invalidations by physical function (ECAP.DIT).
    pub throttles: bool,
}

impl Capabilities {
    /// Decodes what a unit's registers say; `window` is how many bytes of it are mapped.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn decode(
        version: u32,
        capability: u64,
        extended: u64,
        window: usize,
    ) -> Result<Self, Unusable> {
        if version == 0 || version == u32::MAX || capability == u64::MAX {
            return Err(Unusable::Absent);
        }
        let bit = |register: u64, bit: u32| register >> bit & 1 == 1;
        let field = |register: u64, low: u32, bits: u32| register >> low & ((1 << bits) - 1);
        if !bit(extended, 1) {
            return Err(Unusable::NoQueue);
        }
        let widths = field(capability, 8, 5) as u8;
        let this = Self {
            // 2^(4 + 2 ND), at most 2^16: ND 7 is reserved.
            domains: 1 << (4 + 2 * field(capability, 0, 3)).min(16),
            write_buffer: bit(capability, 4),
            caching_mode: bit(capability, 7),
            three_levels: widths & 2 != 0,
            four_levels: widths & 4 != 0,
            address_bits: field(capability, 16, 6) as u8 + 1,
            large_pages: bit(capability, 34),
            huge_pages: bit(capability, 34) && bit(capability, 35),
            page_selective: bit(capability, 39).then_some(field(capability, 48, 6) as u8),
            drains_writes: bit(capability, 54),
            drains_reads: bit(capability, 55),
            fault_records_at: field(capability, 24, 10) as u32 * 16,
            fault_records: field(capability, 40, 8) as u16 + 1,
            coherent: bit(extended, 0),
            interrupt_remapping: bit(extended, 3),
            interrupt_mask: field(extended, 20, 4) as u8,
            device_tlb: bit(extended, 2),
            throttles: bit(extended, 41),
        };
        if !this.three_levels && !this.four_levels {
            return Err(Unusable::NoWidth(widths));
        }
        let records = this.fault_records_at as usize + usize::from(this.fault_records) * 16;
        if this.fault_records_at == 0 || records > window {
            return Err(Unusable::FaultRecordsOutside(this.fault_records_at));
        }
        Ok(this)
    }
}

/// Shape of the page tables of a shard: what every unit of it understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Levels, 3 or 4.
    pub levels: u8,
    /// I/O virtual addresses are below 2^this.
    pub address_bits: u8,
    /// Leaves of 2 MiB are understood.
    pub large_pages: bool,
    /// Leaves of 1 GiB are understood.
    pub huge_pages: bool,
    /// Domain ids are below this.
    pub domains: u32,
    /// Every unit snoops caches.
    pub coherent: bool,
}

impl Geometry {
    /// What the units have in common. `None` when there is none, or no common number of levels.
    ///
    /// Three levels are preferred: a walk is shorter, and 512 GiB are enough for DMA buffers.
    pub fn common<'c>(units: impl Iterator<Item = &'c Capabilities> + Clone) -> Option<Self> {
        let all = |test: fn(&Capabilities) -> bool| units.clone().all(test);
        let levels = if all(|unit| unit.three_levels) {
            3
        } else if all(|unit| unit.four_levels) {
            4
        } else {
            return None;
        };
        let narrowest = units.clone().map(|unit| unit.address_bits).min()?;
        Some(Self {
            levels,
            address_bits: narrowest.min(12 + 9 * levels),
            large_pages: all(|unit| unit.large_pages),
            huge_pages: all(|unit| unit.huge_pages),
            domains: units.clone().map(|unit| unit.domains).min()?,
            coherent: all(|unit| unit.coherent),
        })
    }

    /// Shape of page tables.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        Shape {
            levels: self.levels,
            largest: match (self.large_pages, self.huge_pages) {
                (true, true) => Largest::Huge,
                (true, false) => Largest::Large,
                (false, _) => Largest::Small,
            },
        }
    }

    /// The context entry's code for the width: 1 for 39 bits, 2 for 48 (9.3).
    #[must_use]
    pub const fn width_code(&self) -> u64 {
        self.levels as u64 - 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: (u64, u64) = (0x00d2_008c_2226_0206, 0x00f0_0f4a);

    #[test]
    fn qemus_registers_decode_to_what_it_has() {
        let unit = Capabilities::decode(0x10, QEMU.0, QEMU.1, 0x1000).unwrap();
        assert_eq!(
            unit,
            Capabilities {
                domains: 1 << 16,
                write_buffer: false,
                caching_mode: false,
                three_levels: true,
                four_levels: false,
                address_bits: 39,
                large_pages: true,
                huge_pages: true,
                page_selective: Some(18),
                drains_writes: true,
                drains_reads: true,
                fault_records_at: 0x220,
                fault_records: 1,
                coherent: false,
                interrupt_remapping: true,
                interrupt_mask: 15,
                device_tlb: false,
                throttles: false,
            }
        );
        let geometry = Geometry::common([unit].iter()).unwrap();
        assert_eq!((geometry.levels, geometry.address_bits), (3, 39));
        assert_eq!(geometry.width_code(), 1);
    }

    #[test]
    fn units_that_cannot_be_driven_say_why() {
        let decode = |version, capability, extended| {
            Capabilities::decode(version, capability, extended, 0x1000)
        };
        assert_eq!(decode(u32::MAX, u64::MAX, u64::MAX), Err(Unusable::Absent));
        assert_eq!(decode(0, QEMU.0, QEMU.1), Err(Unusable::Absent));
        assert_eq!(decode(0x10, QEMU.0, QEMU.1 & !2), Err(Unusable::NoQueue));
        assert_eq!(
            decode(0x10, QEMU.0 & !0x1f00 | 0x0900, QEMU.1),
            Err(Unusable::NoWidth(9))
        );
        assert_eq!(
            Capabilities::decode(0x10, QEMU.0, QEMU.1, 0x220),
            Err(Unusable::FaultRecordsOutside(0x220))
        );
    }

    #[test]
    fn units_share_only_what_all_have() {
        let three = Capabilities::decode(0x10, QEMU.0, QEMU.1, 0x1000).unwrap();
        let both = Capabilities {
            four_levels: true,
            address_bits: 48,
            large_pages: false,
            coherent: true,
            domains: 256,
            ..three
        };
        let four = Capabilities {
            three_levels: false,
            ..both
        };
        let common = Geometry::common([three, both].iter()).unwrap();
        assert_eq!((common.levels, common.address_bits), (3, 39));
        assert!(!common.large_pages && !common.coherent);
        assert_eq!(common.domains, 256);
        assert_eq!(Geometry::common([both, four].iter()).unwrap().levels, 4);
        assert_eq!(Geometry::common([three, four].iter()), None);
        assert_eq!(Geometry::common([].iter()), None);
    }
}
