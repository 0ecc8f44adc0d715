//! Reads `[[intx]]`: which lines interrupt pins are wired to.

use super::rule::Rule;
use super::section::Section;
use system::model::{IntxRoute, MAX_INTX_ROUTES};

/// Lines of the one I/O APIC that the kernel drives.
const LINES: u64 = 24;
/// Pins of a device: A to D.
const PINS: usize = 4;

/// Reads one `[[intx]]`. `None`: it lacks what no default can give.
pub fn read(mut section: Section<'_, '_>) -> Option<IntxRoute> {
    let segment = section.number("segment", 0..=0xffff);
    let bus = section.number("bus", 0..=0xff);
    let first = section.number("first", 0..=31);
    let last = section.number("last", 0..=31);
    if let (Some(first), Some(last)) = (&first, &last)
        && first.value > last.value
    {
        section.findings().add(
            Rule::OutOfRange,
            last.span.clone(),
            format!("`last` is {}, `first` {}", last.value, first.value),
        );
    }
    let rotated = section.flag("rotated").is_none_or(|flag| flag.value);
    let lines = section.numbers("lines", 0..=LINES - 1);
    if lines.is_none() {
        section.missing_unless_wrong("lines");
    }
    let span = section.span();
    let lines: Vec<u8> = lines?.into_iter().map(|line| line as u8).collect();
    let Ok(lines) = <[u8; PINS]>::try_from(lines) else {
        section.findings().add(
            Rule::OutOfRange,
            span,
            "`lines` names four lines: of pins A, B, C and D",
        );
        section.finish();
        return None;
    };
    section.finish();
    Some(IntxRoute {
        segment: segment.map_or(0, |segment| segment.value as u16),
        bus: bus.map_or(0, |bus| bus.value as u8),
        first: first.map_or(0, |first| first.value as u8),
        last: last.map_or(31, |last| last.value as u8),
        lines,
        rotated,
    })
}

/// The rules in compiled form; too many of them is noted.
pub fn bounded(
    section: &mut Section<'_, '_>,
    routes: Vec<Option<IntxRoute>>,
) -> heapless::Vec<IntxRoute, MAX_INTX_ROUTES> {
    let mut compiled = heapless::Vec::new();
    for route in routes.into_iter().flatten() {
        if compiled.push(route).is_err() {
            let span = section.span();
            section.findings().add(
                Rule::TooLong,
                span,
                format!("there are at most {MAX_INTX_ROUTES} rules about interrupt pins"),
            );
            break;
        }
    }
    compiled
}
