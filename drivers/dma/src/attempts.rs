//! What the device tries, a named check each.

use client::report::check;
use client::{Access, Error, Mmio, PagePreference};
use sel4_client::SeL4Platform;

use crate::OurClient;
use crate::mover::{BYTES, Mover, Page};

const LARGE: u64 = 2 << 20;
/// Seeds of what is in which memory.
const SOURCE: u8 = 1;
const TARGET: u8 = 2;
const OTHER: u8 = 3;

pub fn run<M: Mmio>(
    platform: &'static SeL4Platform,
    client: &OurClient,
    mover: &mut Mover<'_, M>,
) -> Result<(), Error> {
    let source = Page::small(client, SOURCE)?;
    let from = source.map(Access::Read)?;
    // From here on the device's own memory holds the source's pattern.
    mover.fetch(from, BYTES)?;
    across_pages(platform, client, mover)?;
    in_a_large_page(platform, client, mover)?;
    mover.drain()?;

    // Writing what is only readable.
    mover.store(from, BYTES)?;
    let (told, fault) = mover.told(from, Access::Write)?;
    let touched = source.touched(SOURCE);
    check(
        platform,
        "read_only",
        touched == 0 && told,
        format_args!("{touched} bytes touched at {from:#x}, {fault:?}"),
    );
    write_only(platform, client, mover)?;
    outside(platform, client, mover)?;
    in_place_of_another(platform, client, mover)
}

/// A transfer over the boundary of two pages, and back.
fn across_pages<M: Mmio>(
    platform: &'static SeL4Platform,
    client: &OurClient,
    mover: &mut Mover<'_, M>,
) -> Result<(), Error> {
    const AT: usize = 3 * 4096 - BYTES / 2;
    let target = Page::new(client, 4 * 4096, PagePreference::Small, TARGET)?;
    let to = target.map(Access::ReadWrite)?;
    mover.store(to + AT as u64, BYTES)?;
    let there = target.wrong(TARGET, (AT, BYTES), (SOURCE, 0));
    // Back: other bytes of the target into the device, and from there to its beginning.
    mover.fetch(to + 4096, BYTES)?;
    mover.store(to, BYTES)?;
    let target_again = target.wrong_after_return(AT);
    // And the source's bytes again, from where they were put.
    mover.fetch(to + AT as u64, BYTES)?;
    check(
        platform,
        "across_pages",
        there == 0 && target_again == 0,
        format_args!(
            "{BYTES} bytes over a page's end at {to:#x}, {there} wrong there, {target_again} on the way back"
        ),
    );
    Ok(())
}

impl Page<'_> {
    /// After [`across_pages`]: bytes that are wrong.
    fn wrong_after_return(&self, at: usize) -> usize {
        use crate::mover::pattern;
        use client::Memory;
        let mut bytes = [0; 4 * 4096];
        let read = self
            .buffer
            .memory()
            .is_some_and(|memory| memory.read(0, &mut bytes));
        let expected = |place: usize| {
            if place < BYTES {
                pattern(TARGET, 4096 + place)
            } else if (at..at + BYTES).contains(&place) {
                pattern(SOURCE, place - at)
            } else {
                pattern(TARGET, place)
            }
        };
        let wrong = bytes
            .iter()
            .enumerate()
            .filter(|(place, byte)| **byte != expected(*place));
        if read { wrong.count() } else { bytes.len() }
    }
}

/// Two megabytes, in one page where the back end has such, and two places far apart in them.
fn in_a_large_page<M: Mmio>(
    platform: &'static SeL4Platform,
    client: &OurClient,
    mover: &mut Mover<'_, M>,
) -> Result<(), Error> {
    const AT: usize = 0x12_3000 + 0xf80;
    let target = Page::new(client, LARGE, PagePreference::Large, TARGET)?;
    let to = target.map(Access::ReadWrite)?;
    mover.store(to + AT as u64, BYTES)?;
    let wrong = target.wrong(TARGET, (AT, BYTES), (SOURCE, 0));
    target.buffer.unmap()?;
    target.fill(TARGET);
    mover.store(to + AT as u64, BYTES)?;
    let touched = target.touched(TARGET);
    check(
        platform,
        "two_megabytes",
        wrong == 0 && touched == 0,
        format_args!(
            "{} pages at {to:#x}: {wrong} of {LARGE} bytes wrong, {touched} touched after unmapping",
            target.buffer.frame_slots().count
        ),
    );
    Ok(())
}

/// Reading what is only writable: the device's memory stays as it is.
fn write_only<M: Mmio>(
    platform: &'static SeL4Platform,
    client: &OurClient,
    mover: &mut Mover<'_, M>,
) -> Result<(), Error> {
    let hidden = Page::small(client, OTHER)?;
    let at = hidden.map(Access::Write)?;
    let witness = Page::small(client, TARGET)?;
    let to = witness.map(Access::ReadWrite)?;
    mover.drain()?;
    mover.fetch(at, BYTES)?;
    let (told, fault) = mover.told(at, Access::Read)?;
    mover.store(to, BYTES)?;
    // QEMU's device fills its memory with nothing but what it got: what is refused it does not get.
    let leaked = leaked(&witness);
    // The device's memory is as at the beginning again.
    let source = Page::small(client, SOURCE)?;
    let from = source.map(Access::Read)?;
    mover.fetch(from, BYTES)?;
    mover.store(at, BYTES)?;
    let wrong = hidden.wrong(OTHER, (0, BYTES), (SOURCE, 0));
    check(
        platform,
        "write_only",
        leaked == 0 && told && wrong == 0,
        format_args!("{leaked} bytes read, {fault:?}; {wrong} bytes wrong where it may write"),
    );
    Ok(())
}

/// Runs of the hidden pattern among what the device has.
fn leaked(witness: &Page<'_>) -> usize {
    use crate::mover::pattern;
    use client::Memory;
    let mut bytes = [0; BYTES];
    let read = witness
        .buffer
        .memory()
        .is_some_and(|memory| memory.read(0, &mut bytes));
    let same = bytes
        .iter()
        .enumerate()
        .filter(|(at, byte)| **byte == pattern(OTHER, *at))
        .count();
    // One byte in 256 is the same by chance.
    if !read || same > BYTES / 8 {
        same.max(1)
    } else {
        0
    }
}

/// Where nothing is mapped, and where something was: unmapped, freed and somebody else's since.
fn outside<M: Mmio>(
    platform: &'static SeL4Platform,
    client: &OurClient,
    mover: &mut Mover<'_, M>,
) -> Result<(), Error> {
    let target = Page::small(client, TARGET)?;
    let to = target.map(Access::ReadWrite)?;
    mover.store(to, BYTES)?;
    let works = target.wrong(TARGET, (0, BYTES), (SOURCE, 0));
    target.fill(TARGET);

    let physical = platform.physical_address(target.buffer.frame_slots().first)?;
    mover.drain()?;
    // The device drops address bits above 28.
    let nowhere = if physical != to && physical < 1 << 28 {
        physical
    } else {
        to + 0x40_0000
    };
    mover.store(nowhere, BYTES)?;
    let (told, fault) = mover.told(nowhere, Access::Write)?;
    let touched = target.touched(TARGET);
    check(
        platform,
        "outside",
        works == 0 && touched == 0 && told,
        format_args!("at physical {nowhere:#x}: {touched} bytes touched, {fault:?}"),
    );

    target.buffer.unmap()?;
    mover.store(to, BYTES)?;
    let (told, fault) = mover.told(to, Access::Write)?;
    let touched = target.touched(TARGET);
    check(
        platform,
        "after_unmap",
        touched == 0 && told,
        format_args!("at {to:#x}: {touched} bytes touched, {fault:?}"),
    );

    let to = target.map(Access::ReadWrite)?;
    mover.store(to, BYTES)?;
    target.buffer.free()?;
    let next = Page::small(client, OTHER)?;
    let reused = platform.physical_address(next.buffer.frame_slots().first)? == physical;
    mover.store(to, BYTES)?;
    let touched = next.touched(OTHER);
    check(
        platform,
        "into_recycled",
        reused && touched == 0,
        format_args!("the same memory: {reused}, {touched} bytes touched"),
    );
    mover.drain()
}

/// The same address for other memory: no translation is left of the first.
fn in_place_of_another<M: Mmio>(
    platform: &'static SeL4Platform,
    client: &OurClient,
    mover: &mut Mover<'_, M>,
) -> Result<(), Error> {
    let (first, second) = (Page::small(client, TARGET)?, Page::small(client, OTHER)?);
    let at = first.map(Access::ReadWrite)?;
    mover.store(at, BYTES)?;
    first.buffer.unmap()?;
    first.fill(TARGET);
    second.buffer.map(at, Access::ReadWrite)?;
    mover.store(at, BYTES)?;
    let (touched, wrong) = (
        first.touched(TARGET),
        second.wrong(OTHER, (0, BYTES), (SOURCE, 0)),
    );
    check(
        platform,
        "in_place_of_another",
        touched == 0 && wrong == 0,
        format_args!("at {at:#x}: {wrong} wrong in the second, {touched} touched in the first"),
    );
    Ok(())
}
