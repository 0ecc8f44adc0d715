//! What the description says of interrupt vectors and lines.

use system::model::System;

use super::{PolicyError, VECTORS, in_range};

/// Lines of the I/O APIC that the kernel drives.
const LINES: u64 = 24;

/// Checks numbers of lines, and that what is kept for clients is there.
///
/// # Errors
/// The first rule that is broken.
pub(super) fn check(system: &System) -> Result<(), PolicyError> {
    for line in system.intx.iter().flat_map(|route| route.lines) {
        in_range(None, "an interrupt line", line.into(), 0, LINES - 1)?;
    }
    let reserved = system.clients.iter().map(|client| client.reserved_vectors);
    let reserved = reserved.map(|count| match count {
        0 => 0,
        some => u64::from(some).next_power_of_two(),
    });
    let shards = u64::from(system.shards.msi.max(1));
    let what = "the number of vectors that are kept for clients";
    in_range(None, what, reserved.sum(), 0, u64::from(VECTORS) / shards)
}
