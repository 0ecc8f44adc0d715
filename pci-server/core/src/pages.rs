//! Pages of a BAR: whether a range may be given out, and what of a BAR is withheld.

use ipc_proto::{Refusal, Rule, Width};

use crate::device::{LARGE_PAGE, Region};
use crate::env::RegionId;
use crate::{Device, MAX_FRAMES};

/// A memory BAR of the device.
///
/// # Errors
/// `NoSuchBar`, `NotMemoryBar`, with the number.
pub fn memory_bar(device: &Device, bar: u8) -> Result<&Region, Refusal> {
    let refuse = |rule| Refusal::new(rule, u64::from(bar));
    let region = device
        .bars
        .get(usize::from(bar))
        .ok_or(refuse(Rule::NoSuchBar))?;
    match region {
        region if region.is_memory() => Ok(region),
        region if region.bytes == 0 => Err(refuse(Rule::NoSuchBar)),
        _ => Err(refuse(Rule::NotMemoryBar)),
    }
}

/// Is page `page` of the BAR kept from clients? Pages are judged by their physical address: a
/// small BAR may share its page with another one's MSI-X table.
fn is_withheld(device: &Device, region: &Region, page: u64) -> bool {
    let physical = (region.base / 4096).saturating_add(page);
    region.shared_page || device.secret.iter().any(|pages| pages.contains(physical))
}

/// Checks a request for `count` pages from `first`; gives how many of them one request places.
///
/// # Errors
/// `PageOutOfRange` (with the BAR's number of pages), also for no pages; `PageWithheld` with the
/// first such page.
pub fn check_range(
    device: &Device,
    region: &Region,
    first: u32,
    count: u16,
) -> Result<u16, Refusal> {
    let end = u64::from(first) + u64::from(count);
    if count == 0 || end > region.pages() {
        return Err(Refusal::new(Rule::PageOutOfRange, region.pages()));
    }
    match first_withheld(device, region, first.into(), end) {
        Some(page) => Err(Refusal::new(Rule::PageWithheld, page)),
        None => Ok(count.min(MAX_FRAMES)),
    }
}

/// Small pages of a large one.
const SMALL_IN_LARGE: u64 = LARGE_PAGE / 4096;

/// Checks a request for `count` large pages from `first`; gives the BAR's memory, which is whole large pages, and how
/// many of them one request places.
///
/// # Errors
/// `NotLarge` with the BAR when it does not lie alone in large pages; `PageOutOfRange` (with the number of large pages),
/// also for no pages; `PageWithheld` with the first small page that is inside and withheld.
pub fn check_large(
    device: &Device,
    bar: u8,
    region: &Region,
    first: u16,
    count: u16,
) -> Result<(RegionId, u16), Refusal> {
    let memory = region
        .memory()
        .filter(|memory| region.alone && (memory.base | memory.bytes).is_multiple_of(LARGE_PAGE))
        .ok_or(Refusal::new(Rule::NotLarge, u64::from(bar)))?;
    let pages = memory.bytes / LARGE_PAGE;
    let (start, end) = (u64::from(first), u64::from(first) + u64::from(count));
    if count == 0 || end > pages {
        return Err(Refusal::new(Rule::PageOutOfRange, pages));
    }
    let withheld = first_withheld(device, region, start * SMALL_IN_LARGE, end * SMALL_IN_LARGE);
    match withheld {
        Some(page) => Err(Refusal::new(Rule::PageWithheld, page)),
        None => Ok((memory, count.min(MAX_FRAMES))),
    }
}

/// The first page of a BAR from `first` up to `end` that is withheld. Pages are not gone through one by one: there
/// may be 2^25 of them.
fn first_withheld(device: &Device, region: &Region, first: u64, end: u64) -> Option<u64> {
    if region.shared_page {
        return (first < end).then_some(first);
    }
    let start = region.base / 4096;
    device
        .secret
        .iter()
        .filter_map(|pages| {
            let last = pages.first.saturating_add(pages.count);
            let from = pages.first.max(start.saturating_add(first));
            (from < last.min(start.saturating_add(end))).then(|| from - start)
        })
        .min()
}

/// The pages of a BAR from the first to the last that is withheld: (first, how many).
/// Pages in between may be free; asking for them tells.
#[must_use]
pub fn withheld_range(device: &Device, region: &Region) -> (u32, u32) {
    if region.shared_page {
        return (0, 1);
    }
    let start = region.base / 4096;
    let end = start.saturating_add(region.pages());
    let hull = device
        .secret
        .iter()
        .map(|pages| {
            let last = pages.first.saturating_add(pages.count);
            (pages.first.max(start), last.min(end))
        })
        .filter(|(first, end)| first < end)
        .reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
    hull.map_or((0, 0), |(first, end)| {
        // Inside a BAR of at most 2^28 pages.
        let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        (word(first - start), word(end - first))
    })
}

/// A register on a withheld page of a BAR: the page, counted from the start of the BAR's memory, and the offset in
/// it. The interrupt messages themselves are none.
///
/// # Errors
/// `BadAccess` with the offset when it is not aligned or outside the BAR; `PageNotWithheld` and `PageWithheld` (these are
/// messages, or bits of them) with the page.
pub fn register(
    device: &Device,
    bar: u8,
    region: &Region,
    offset: u64,
    width: Width,
) -> Result<(u32, u16), Refusal> {
    let bytes = width as u64;
    let end = offset.checked_add(bytes).filter(|end| *end <= region.bytes);
    let (Some(end), true) = (end, offset.is_multiple_of(bytes)) else {
        return Err(Refusal::new(Rule::BadAccess, offset));
    };
    // A BAR below 4 KiB starts somewhere in its page.
    let place = region.base % 4096 + offset;
    let page = place / 4096;
    if !is_withheld(device, region, page) {
        return Err(Refusal::new(Rule::PageNotWithheld, page));
    }
    let is_message = device.msix.is_some_and(|msix| {
        let parts = [
            (msix.table, msix.table_bytes()),
            (msix.pending, msix.pending_bytes()),
        ];
        parts.iter().any(|(part, bytes)| {
            let start = u64::from(part.offset);
            part.bar == bar && offset < start.saturating_add(*bytes) && end > start
        })
    });
    // Pages of a BAR of at most 2^40 bytes are below 2^28.
    match (is_message, u32::try_from(page)) {
        (false, Ok(page)) => Ok((page, (place % 4096) as u16)),
        _ => Err(Refusal::new(Rule::PageWithheld, page)),
    }
}
