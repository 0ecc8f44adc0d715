//! [`Context`]: what one client's devices may reach: a domain of the back end,
//! the devices in it, and which I/O virtual addresses are taken.
//!
//! A context has a domain from the first device or mapping until both are
//! gone. Addresses are given out from low to high, first fit, since devices
//! with short addresses (edu: 28 bits) exist.

use heapless::Vec;

use crate::backend::DomainId;

/// Most mappings of a context at a time.
pub const MAX_MAPPINGS: usize = 256;

/// Most regions that firmware reserved in a context.
pub const MAX_RESERVED_HERE: usize = 8;

/// First address that is given out by choice; a client may ask for a lower one.
pub const FIRST_IOVA: u64 = 1 << 20;
/// Writes to here are interrupts, not DMA: never translated (VT-d 3.0, 3.14).
pub const INTERRUPTS: core::ops::Range<u64> = 0xfee0_0000..0xfef0_0000;

const LARGE: u64 = 1 << 21;
const HUGE: u64 = 1 << 30;

/// Addresses `start..end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    start: u64,
    end: u64,
}

/// A client's context.
pub struct Context {
    /// The back end's domain, while there is one.
    pub domain: Option<DomainId>,
    /// Devices attached, with those whose detachment was not confirmed.
    pub devices: u16,
    /// Taken addresses, ascending.
    taken: Vec<Range, MAX_MAPPINGS>,
    /// Regions that firmware reserved, with the number of devices that need each.
    reserved: Vec<(Range, u16), MAX_RESERVED_HERE>,
}

/// Why an address range is not to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IovaError {
    /// Not aligned, outside the address space, in the interrupt range, or taken; or no room is left.
    Unusable,
    /// There are [`MAX_MAPPINGS`] already.
    TooMany,
}

impl Context {
    /// A context of nothing.
    pub const fn new() -> Self {
        Self {
            domain: None,
            devices: 0,
            taken: Vec::new(),
            reserved: Vec::new(),
        }
    }

    /// Whether neither a device nor a mapping is left.
    pub fn is_idle(&self) -> bool {
        self.devices == 0 && self.taken.is_empty()
    }

    /// Takes exactly `bytes` from `start` on, below `limit`.
    ///
    /// # Errors
    /// See [`IovaError`].
    pub fn take(&mut self, start: u64, bytes: u64, limit: u64) -> Result<(), IovaError> {
        let end = start
            .checked_add(bytes)
            .filter(|end| *end <= limit && start.is_multiple_of(0x1000) && bytes > 0)
            .ok_or(IovaError::Unusable)?;
        let range = Range { start, end };
        let place = self.taken.partition_point(|other| other.start < start);
        let below = place.checked_sub(1).and_then(|below| self.taken.get(below));
        let clash = |other: Option<&Range>| other.is_some_and(|other| overlap(*other, range));
        if overlap(interrupts(), range) || clash(below) || clash(self.taken.get(place)) {
            return Err(IovaError::Unusable);
        }
        self.taken
            .insert(place, range)
            .map_err(|_| IovaError::TooMany)
    }

    /// Where the taken range in which `at` lies ends.
    pub fn taken_until(&self, at: u64) -> Option<u64> {
        let place = self.taken.partition_point(|range| range.start <= at);
        let range = self.taken.get(place.checked_sub(1)?)?;
        (at < range.end).then_some(range.end)
    }

    /// Takes the lowest `bytes` that are free, and returns where they begin.
    ///
    /// Aligned to their size up to 2 MiB, and from 1 GiB on to that: then one invalidation covers exactly
    /// them, and large pages fit.
    ///
    /// # Errors
    /// See [`IovaError`].
    pub fn take_any(&mut self, bytes: u64, limit: u64) -> Result<u64, IovaError> {
        let align = if bytes >= HUGE {
            HUGE
        } else {
            bytes.min(LARGE).next_power_of_two()
        };
        // A power of two: rounding up is a mask.
        let below = align.wrapping_sub(1);
        let mut start = FIRST_IOVA.wrapping_add(below) & !below;
        // Each round passes one taken range for good.
        let mut place = 0;
        loop {
            let end = start
                .checked_add(bytes)
                .filter(|end| *end <= limit)
                .ok_or(IovaError::Unusable)?;
            let range = Range { start, end };
            let past = if overlap(interrupts(), range) {
                INTERRUPTS.end
            } else {
                match self.taken.get(place) {
                    Some(other) if other.end <= start => {
                        place += 1;
                        continue;
                    }
                    Some(other) if overlap(*other, range) => other.end,
                    Some(_) => {
                        self.taken
                            .insert(place, range)
                            .map_err(|_| IovaError::TooMany)?;
                        return Ok(start);
                    }
                    // Above all others: nothing is to be moved.
                    None => {
                        self.taken.push(range).map_err(|_| IovaError::TooMany)?;
                        return Ok(start);
                    }
                }
            };
            start = past.checked_add(below).ok_or(IovaError::Unusable)? & !below;
        }
    }

    /// Takes a reserved region for one more device. `false`: it is taken for another already, and mapped.
    ///
    /// # Errors
    /// See [`IovaError`].
    pub fn take_reserved(&mut self, base: u64, bytes: u64, limit: u64) -> Result<bool, IovaError> {
        let end = base.checked_add(bytes).ok_or(IovaError::Unusable)?;
        let range = Range { start: base, end };
        if let Some((_, users)) = self.reserved.iter_mut().find(|(known, _)| *known == range) {
            *users = users.saturating_add(1);
            return Ok(false);
        }
        if self.reserved.is_full() {
            return Err(IovaError::TooMany);
        }
        self.take(base, bytes, limit)?;
        // There is room: it was checked.
        let _ = self.reserved.push((range, 1));
        Ok(true)
    }

    /// One device less needs the region at `base`. Its size, when that was the last: it is to be unmapped then,
    /// and given back with [`Self::give_reserved`].
    pub fn last_of_reserved(&mut self, base: u64) -> Option<u64> {
        let mut known = self.reserved.iter_mut();
        let (range, users) = known.find(|(range, _)| range.start == base)?;
        *users = users.saturating_sub(1);
        (*users == 0).then_some(range.end - range.start)
    }

    /// Gives the addresses of a region back.
    pub fn give_reserved(&mut self, base: u64) {
        self.reserved.retain(|(range, _)| range.start != base);
        self.give(base);
    }

    /// Gives the range that begins at `start` back.
    #[inline]
    pub fn give(&mut self, start: u64) {
        if self.taken.last().is_some_and(|last| last.start == start) {
            self.taken.pop();
            return;
        }
        self.give_below(start);
    }

    #[inline(never)]
    fn give_below(&mut self, start: u64) {
        if let Ok(place) = self.taken.binary_search_by_key(&start, |range| range.start) {
            self.taken.remove(place);
        }
    }
}

fn overlap(one: Range, other: Range) -> bool {
    one.start < other.end && other.start < one.end
}

const fn interrupts() -> Range {
    Range {
        start: INTERRUPTS.start,
        end: INTERRUPTS.end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 39;

    #[test]
    fn addresses_are_chosen_low_and_aligned_and_never_twice() {
        let mut context = Context::new();
        assert_eq!(context.take_any(0x1000, LIMIT), Ok(0x10_0000));
        assert_eq!(context.take_any(0x3000, LIMIT), Ok(0x10_4000));
        assert_eq!(context.take_any(0x1000, LIMIT), Ok(0x10_1000));
        assert_eq!(context.take_any(0x40_0000, LIMIT), Ok(0x20_0000));
        context.give(0x10_0000);
        assert_eq!(context.take_any(0x2000, LIMIT), Ok(0x10_2000));
        assert_eq!(context.take_any(0x1000, LIMIT), Ok(0x10_0000));
    }

    #[test]
    fn the_interrupt_range_is_never_given_out() {
        let mut context = Context::new();
        for start in [0xfee0_0000, 0xfeef_f000, 0xfedf_f000] {
            let refused = context.take(start, 0x2000, LIMIT);
            assert_eq!(refused, Err(IovaError::Unusable), "{start:#x}");
        }
        assert_eq!(context.take(0xfedf_f000, 0x1000, LIMIT), Ok(()));
        assert_eq!(context.take(0xfef0_0000, 0x1000, LIMIT), Ok(()));
        let mut context = Context::new();
        let below = 0xfee0_0000 - FIRST_IOVA;
        context.take(FIRST_IOVA, below, LIMIT).unwrap();
        assert_eq!(context.take_any(0x1000, LIMIT), Ok(0xfef0_0000));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut context = Context::new();
        for (start, bytes) in [
            (0x1800, 0x1000),
            (LIMIT - 0x1000, 0x2000),
            (u64::MAX - 0xfff, 0x1000),
            (0x1000, 0),
        ] {
            let refused = context.take(start, bytes, LIMIT);
            assert_eq!(refused, Err(IovaError::Unusable), "{start:#x}");
        }
        context.take(0, 0x4000, LIMIT).unwrap();
        for start in [0, 0x1000, 0x3000] {
            assert_eq!(context.take(start, 0x1000, LIMIT), Err(IovaError::Unusable));
        }
        context.take(0x4000, 0x1000, LIMIT).unwrap();
        assert_eq!(context.take_any(LIMIT, LIMIT), Err(IovaError::Unusable));
    }

    #[test]
    fn the_number_of_mappings_is_bounded() {
        let mut context = Context::new();
        for _ in 0..MAX_MAPPINGS {
            context.take_any(0x1000, LIMIT).unwrap();
        }
        assert_eq!(context.take_any(0x1000, LIMIT), Err(IovaError::TooMany));
        assert_eq!(context.take(0, 0x1000, LIMIT), Err(IovaError::TooMany));
        context.give(0x10_0000);
        assert_eq!(context.take_any(0x1000, LIMIT), Ok(0x10_0000));
    }
}
