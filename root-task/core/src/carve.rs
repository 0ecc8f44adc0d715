//! Cutting exact physical ranges out of device untypeds: [`carve`] turns wanted
//! ranges into a list of retypes, [`Cut`].
//!
//! The kernel hands out an untyped's memory in ascending order from a
//! watermark, aligned to the object's size (`decodeUntypedInvocation`). So for
//! each untyped the cuts go upwards: what is skipped becomes smaller untypeds
//! that stay with the root task, what is wanted becomes untypeds or frames.

use alloc::vec::Vec;

use thiserror::Error;

use crate::facts::{Memory, Untyped};
use crate::region::{LARGE_PAGE, PAGE, Region, RegionSet};

/// Log2 of a small page.
pub(crate) const PAGE_BITS: u8 = 12;
/// Log2 of a large page.
const LARGE_BITS: u8 = 21;
/// Log2 of the largest piece. The kernel aligns memory as it sees it, at physical addresses shifted by 2^39
/// (`PPTR_BASE` of 5.0.0): a larger piece would not lie where its physical address says.
pub(crate) const MOST_BITS: u8 = 39;

/// What a wanted range becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Untypeds of natural sizes.
    Untypeds,
    /// Frames: large pages where the addresses allow, small ones elsewhere.
    Frames,
}

/// A range that somebody is to get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// Which addresses, whole pages.
    pub region: Region,
    /// As what.
    pub form: Form,
}

/// What a cut makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// An untyped of 2^bits bytes.
    Untyped(u8),
    /// A page of 4 KiB.
    SmallFrame,
    /// A page of 2 MiB.
    LargeFrame,
}

impl Piece {
    /// Log2 of its bytes.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Untyped(bits) => bits,
            Self::SmallFrame => PAGE_BITS,
            Self::LargeFrame => LARGE_BITS,
        }
    }
}

/// One retype. Carried out in the order of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Slot of the untyped that is cut.
    pub from: u32,
    /// Physical address of the first piece.
    pub base: u64,
    /// What each piece is.
    pub piece: Piece,
    /// How many, side by side.
    pub count: u32,
    /// Slots of the root CNode for them: this one and those that follow.
    pub slot: u32,
    /// Which want it serves; `None` for what is skipped.
    pub want: Option<usize>,
}

/// Why a carving cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CarveError {
    /// A want does not begin and end on pages.
    #[error("{0} is no run of whole pages")]
    NotPages(Region),
    /// Two wants share addresses.
    #[error("{0} and {1} overlap")]
    Overlap(Region, Region),
    /// No device untyped has these addresses.
    #[error("{0} is in no device untyped")]
    NotThere(Region),
    /// More pieces than slots.
    #[error("the root CNode has no slots left for {bytes:#x} bytes at {base:#x}")]
    NoSlots {
        /// First address without one.
        base: u64,
        /// How many bytes the cut was to have.
        bytes: u64,
    },
}

/// Cuts `wants` out of the device untypeds among `untypeds`. New capabilities take slots from
/// `slots` (first, one past the last) on; `fan_out` is the most objects of one retype. Returns the
/// cuts and the first slot that is still empty.
///
/// # Errors
/// A want is no run of whole pages, overlaps another or is not there; or slots run out.
pub fn carve(
    untypeds: &[Untyped],
    wants: &[Want],
    slots: (u32, u32),
    fan_out: u32,
) -> Result<(Vec<Cut>, u32), CarveError> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|index| wants[*index].region);
    check(untypeds, wants, &order)?;
    let mut sources: Vec<(Region, u32)> = untypeds
        .iter()
        .filter(|untyped| untyped.memory == Memory::Device && untyped.bits >= PAGE_BITS)
        .filter_map(|untyped| Some((untyped.region()?, untyped.slot)))
        .collect();
    sources.sort();
    let mut plan = Carving {
        cuts: Vec::new(),
        slots,
        fan_out: fan_out.max(1),
    };
    for (source, slot) in sources {
        let mut watermark = source.start();
        for index in &order {
            let want = wants[*index];
            let Some(part) = want.region.intersection(source) else {
                continue;
            };
            if let Some(skipped) = Region::new(watermark, part.start()) {
                plan.untypeds(slot, skipped, None)?;
            }
            match want.form {
                Form::Untypeds => plan.untypeds(slot, part, Some(*index))?,
                Form::Frames => plan.frames(slot, part, *index)?,
            }
            watermark = part.end();
        }
    }
    Ok((plan.cuts, plan.slots.0))
}

fn check(untypeds: &[Untyped], wants: &[Want], order: &[usize]) -> Result<(), CarveError> {
    let there: RegionSet = untypeds
        .iter()
        .filter(|untyped| untyped.memory == Memory::Device)
        .filter_map(Untyped::region)
        .collect();
    let mut before: Option<Region> = None;
    for index in order {
        let region = wants[*index].region;
        if region.pages() != region {
            return Err(CarveError::NotPages(region));
        }
        if let Some(before) = before.filter(|before| before.intersection(region).is_some()) {
            return Err(CarveError::Overlap(before, region));
        }
        if !there.covers(region) {
            return Err(CarveError::NotThere(region));
        }
        before = Some(region);
    }
    Ok(())
}

struct Carving {
    cuts: Vec<Cut>,
    slots: (u32, u32),
    fan_out: u32,
}

impl Carving {
    fn cut(
        &mut self,
        from: u32,
        base: u64,
        piece: Piece,
        count: u32,
        want: Option<usize>,
    ) -> Result<(), CarveError> {
        let (slot, end) = self.slots;
        let next = slot
            .checked_add(count)
            .filter(|next| *next <= end)
            .ok_or_else(|| {
                let bytes = u64::from(count) << piece.bits();
                CarveError::NoSlots { base, bytes }
            })?;
        self.slots.0 = next;
        self.cuts.push(Cut {
            from,
            base,
            piece,
            count,
            slot,
            want,
        });
        Ok(())
    }

    fn untypeds(
        &mut self,
        from: u32,
        region: Region,
        want: Option<usize>,
    ) -> Result<(), CarveError> {
        for (base, bits) in region.natural_pieces(PAGE_BITS, MOST_BITS) {
            self.cut(from, base, Piece::Untyped(bits), 1, want)?;
        }
        Ok(())
    }

    fn frames(&mut self, from: u32, region: Region, want: usize) -> Result<(), CarveError> {
        let mut at = region.start();
        while at < region.end() {
            let left = region.end() - at;
            let (piece, until) = if at.is_multiple_of(LARGE_PAGE) && left >= LARGE_PAGE {
                (Piece::LargeFrame, region.end() - left % LARGE_PAGE)
            } else {
                let next = at
                    .checked_add(1)
                    .and_then(|after| after.checked_next_multiple_of(LARGE_PAGE));
                (
                    Piece::SmallFrame,
                    region.end().min(next.unwrap_or(u64::MAX)),
                )
            };
            let count = ((until - at) >> piece.bits())
                .min(u64::from(self.fan_out))
                .max(1) as u32;
            self.cut(from, at, piece, count, Some(want))?;
            at += u64::from(count) << piece.bits();
        }
        Ok(())
    }
}

/// The pieces that serve want `want`: (slot, physical address, what), ascending.
pub fn pieces_of(cuts: &[Cut], want: usize) -> impl Iterator<Item = (u32, u64, Piece)> {
    cuts.iter()
        .filter(move |cut| cut.want == Some(want))
        .flat_map(|cut| {
            (0..cut.count).map(|n| {
                (
                    cut.slot + n,
                    cut.base + (u64::from(n) << cut.piece.bits()),
                    cut.piece,
                )
            })
        })
}

const _: () = assert!(1 << PAGE_BITS == PAGE && 1 << LARGE_BITS == LARGE_PAGE);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn device(slot: u32, base: u64, bits: u8) -> Untyped {
        Untyped {
            slot,
            base,
            bits,
            memory: Memory::Device,
        }
    }

    fn region(start: u64, end: u64) -> Region {
        Region::new(start, end).unwrap()
    }

    /// Carries cuts out as the kernel does and says what each slot got.
    fn execute(untypeds: &[Untyped], cuts: &[Cut]) -> Vec<(u32, Region)> {
        let mut watermarks: Vec<(u32, u64, u64)> = untypeds
            .iter()
            .map(|u| (u.slot, u.base, u.base + (1 << u.bits)))
            .collect();
        let mut made = vec![];
        for cut in cuts {
            let (_, watermark, end) = watermarks
                .iter_mut()
                .find(|(slot, ..)| *slot == cut.from)
                .unwrap();
            let size = 1u64 << cut.piece.bits();
            *watermark = watermark.next_multiple_of(size);
            assert_eq!(
                *watermark, cut.base,
                "the kernel would place {cut:?} elsewhere"
            );
            for n in 0..cut.count {
                assert!(
                    *watermark + size <= *end,
                    "{cut:?} passes the untyped's end"
                );
                made.push((cut.slot + n, Region::sized(*watermark, size).unwrap()));
                *watermark += size;
            }
        }
        made
    }

    #[test]
    fn ecam_of_a_quarter_gigabyte_is_128_large_pages_in_one_cut() {
        // q35: the untypeds between RAM and the IOAPIC.
        let untypeds = [device(10, 0x8000_0000, 30), device(11, 0xc000_0000, 29)];
        let wants = [Want {
            region: region(0xb000_0000, 0xc000_0000),
            form: Form::Frames,
        }];
        let (cuts, next) = carve(&untypeds, &wants, (100, 1000), 256).unwrap();
        assert_eq!(cuts.last().unwrap().count, 128);
        assert_eq!(
            cuts.len(),
            3,
            "two skipped pieces, one run of frames: {cuts:?}"
        );
        assert_eq!(next, 100 + 2 + 128);
        assert_eq!(execute(&untypeds, &cuts).len(), 130);
    }

    #[test]
    fn an_odd_number_of_megabytes_ends_in_small_pages() {
        let untypeds = [device(1, 0xb000_0000, 28)];
        let wants = [Want {
            region: region(0xb030_0000, 0xb070_0000),
            form: Form::Frames,
        }];
        let (cuts, _) = carve(&untypeds, &wants, (100, 10_000), 256).unwrap();
        let made = execute(&untypeds, &cuts);
        let frames: Vec<_> = pieces_of(&cuts, 0).collect();
        assert_eq!(
            frames
                .iter()
                .filter(|(.., piece)| *piece == Piece::LargeFrame)
                .count(),
            1
        );
        assert_eq!(
            frames
                .iter()
                .filter(|(.., piece)| *piece == Piece::SmallFrame)
                .count(),
            512
        );
        assert!(made.len() > frames.len());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let untypeds = [device(1, 0x10_0000, 20)];
        let want = |start, end| Want {
            region: region(start, end),
            form: Form::Untypeds,
        };
        let cut = |wants: &[Want], slots| carve(&untypeds, wants, slots, 256).unwrap_err();
        assert_eq!(
            cut(&[want(0x10_0000, 0x10_0800)], (0, 9)),
            CarveError::NotPages(region(0x10_0000, 0x10_0800))
        );
        assert_eq!(
            cut(&[want(0x1f_f000, 0x20_1000)], (0, 9)),
            CarveError::NotThere(region(0x1f_f000, 0x20_1000))
        );
        let (a, b) = (want(0x10_0000, 0x10_2000), want(0x10_1000, 0x10_3000));
        assert_eq!(
            cut(&[b, a], (0, 9)),
            CarveError::Overlap(a.region, b.region)
        );
        assert!(matches!(
            cut(&[want(0x11_1000, 0x11_2000)], (0, 2)),
            CarveError::NoSlots { .. }
        ));
    }

    proptest! {
        /// Whatever is wanted, each want gets exactly its addresses and nothing is handed out twice.
        #[test]
        fn every_want_gets_exactly_its_addresses(
            list in proptest::collection::vec((0u64..2000, 1u64..700, any::<bool>()), 1..12),
        ) {
            let untypeds = [device(1, 0, 22), device(2, 0x40_0000, 22), device(3, 0x80_0000, 21)];
            let mut taken = RegionSet::new();
            let mut wants = vec![];
            for (first, pages, frames) in list {
                let region = Region::sized(first * PAGE, pages * PAGE).unwrap();
                if region.end() > 0xa0_0000 || taken.intersection(&[region].into_iter().collect()) != RegionSet::new() {
                    continue;
                }
                taken.insert(region);
                wants.push(Want { region, form: if frames { Form::Frames } else { Form::Untypeds } });
            }
            let (cuts, next) = carve(&untypeds, &wants, (50, 100_000), 256).unwrap();
            let made = execute(&untypeds, &cuts);
            prop_assert_eq!(made.len() as u32, next - 50);
            for (index, want) in wants.iter().enumerate() {
                let mut got = RegionSet::new();
                for (slot, base, piece) in pieces_of(&cuts, index) {
                    prop_assert_eq!(made[(slot - 50) as usize].1, Region::sized(base, 1 << piece.bits()).unwrap());
                    got.insert(made[(slot - 50) as usize].1);
                }
                prop_assert_eq!(got.regions(), &[want.region][..]);
            }
        }
    }
}
